"""What the results of each stage depend on: settings by value, files by role.

A change of anything else leaves them fresh. Where a setting names a file or folder on this disk,
its contents are among the inputs and its place does not count.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from feyntune.experiment.files import fingerprint
from feyntune.experiment.load import SECRET, beside
from feyntune.experiment.recipes import BASE, MEASURED_ON
from feyntune.experiment.schema import Experiment
from feyntune.experiment.sections import result_settings
from feyntune.paths import SPLITS

Subject = str | None  # a variant or model; None for a stage of the whole experiment
Places = dict[str, Path]  # files and folders by role


# --- files that several stages read -----------------------------------------------------------


def base_files(experiment: Experiment) -> Places:
    """The base model's folder; one from the Hub is identified by its id and revision."""
    folder, named = Path(experiment.base_source), experiment.base.model
    on_disk = named is None or experiment.is_fetched(named) or folder.is_dir()
    return {"base": folder} if on_disk else {}


def model_files(experiment: Experiment, model: Subject) -> Places:
    """Folders of the base model and of the adapter on it, where they are on this disk."""
    adapter = {} if model == BASE else {"adapter": experiment.paths.adapter(model)}
    return base_files(experiment) | adapter


def embedder_files(experiment: Experiment) -> Places:
    """The folder of the model that embeds texts, unless it is the base model or on the Hub."""
    folder, named = Path(experiment.embedder_source), experiment.completions.embedder
    on_disk = named != BASE and (experiment.is_fetched(named) or folder.is_dir())
    return {"embedder": folder} if on_disk else {}


def one_split(experiment: Experiment, dataset: str, split: str) -> Places:
    return {f"data/{dataset}/{split}": experiment.paths.split(dataset, split)}


def every_split(experiment: Experiment) -> Places:
    found = {}
    for dataset in experiment.recipes:
        for split in SPLITS:
            found |= one_split(experiment, dataset, split)
    return found


def evaluation_files(experiment: Experiment, model: Subject) -> Places:
    return one_split(experiment, MEASURED_ON, "test") | model_files(experiment, model)


# --- settings by value ------------------------------------------------------------------------


def identified(experiment: Experiment) -> dict[str, Any]:
    """The base model as it is given abstracts: by what they start with, id and revision.

    A folder's contents are among the inputs instead of id and revision.
    """
    start = {"start": experiment.base.start}
    if base_files(experiment):
        return start
    return start | {"model": experiment.base.model, "revision": experiment.base.revision}


def curation_settings(experiment: Experiment, _: Subject) -> dict[str, Any]:
    # The snapshot is an input: its contents count, not its name.
    data = result_settings(experiment.data)
    apart = {key: value for key, value in data.items() if key not in ("snapshot", "stand_in")}
    return {
        "data": apart,
        "base.knowledge_until": experiment.base.knowledge_until,
        "recipes": result_settings(experiment.recipes),
        "sources": result_settings(experiment.sources),
    }


def base_settings(experiment: Experiment, _: Subject) -> dict[str, Any]:
    return {
        "base.stand_in": result_settings(experiment.base.stand_in),
        "base.knowledge_until": experiment.base.knowledge_until,
        "data.excluded_ids": experiment.data.excluded_ids,
    }


def finetune_settings(experiment: Experiment, variant: Subject) -> dict[str, Any]:
    """Training as this variant gets it: another flavour's arguments change nothing."""
    trained = experiment.variants[variant]
    base = result_settings(experiment.base)
    loaded = {key: base[key] for key in ("quantization", "dtype")}
    return {
        "seed": trained.seed,
        "base": loaded | identified(experiment),
        "training": result_settings(trained.training),
    }


def completion_settings(experiment: Experiment, _: Subject = None) -> dict[str, Any]:
    """The section on completions; an embedder's folder is among the inputs instead."""
    settings = result_settings(experiment.completions)
    if embedder_files(experiment):
        del settings["embedder"]
    return settings


def commercial_settings(experiment: Experiment, _: Subject) -> dict[str, Any]:
    """What is asked and scored; how fast, and up to what cost, changes no answer."""
    scored = completion_settings(experiment)
    names = {"abstracts", "embedder", "embedder_max_tokens", "dtype"}
    return {
        "base": identified(experiment),
        "commercial": result_settings(experiment.commercial),
        "completions": {key: value for key, value in scored.items() if key in names},
    }


def rating_settings(experiment: Experiment, _: Subject) -> dict[str, Any]:
    """Files of ratings are inputs: what they hold counts, not where they are."""
    rating = result_settings(experiment.human_evaluation)
    given = [len(rating.pop("ratings")), rating.pop("key") is not None]
    return {
        "human_evaluation": rating,
        "given": given,
        "statistics": result_settings(experiment.statistics),
        "variants": _grouped(experiment),
    }


def figures_settings(experiment: Experiment, _: Subject) -> dict[str, Any]:
    """Everything: table ``hyperparameters`` prints it, and every picture bears the label."""
    settings = result_settings(experiment)
    del settings["data"]["snapshot"]
    del settings["human_evaluation"]["ratings"], settings["human_evaluation"]["key"]
    order = [list(table) for table in (experiment.recipes, experiment.flavours)]
    return {
        **settings,
        "stand_in": experiment.stand_in,
        "order": [*order, _grouped(experiment)],
    }


def _grouped(experiment: Experiment) -> list[list[str]]:
    """Dataset and flavour of every variant, in order: which are compared, and where they stand."""
    return [[name, each.dataset, each.flavour] for name, each in experiment.variants.items()]


def outside(experiment: Experiment, reads: Places) -> dict[str, Any]:
    """How every outside source among some places is pinned, by its name in `fetch`."""
    found = {}
    for name, source in experiment.fetch.items():
        folder = experiment.paths.fetched(name)
        if any(folder in (place, *place.parents) for place in reads.values()):
            found[name] = source.model_dump(mode="json")
            if name == experiment.listed:
                found[name]["ids"] = fingerprint(beside(source.id).read_text(encoding="utf-8"))
    return found


# --- settings as records hold them ------------------------------------------------------------


def as_read(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as they come back from a record: with lists for tuples."""
    return json.loads(json.dumps(settings))


def without_secrets(settings: Any) -> Any:
    """Nested settings; where a user may have put a secret, only its hash."""
    if not isinstance(settings, dict):
        return settings
    return {
        key: fingerprint(value) if key in SECRET and value is not None else without_secrets(value)
        for key, value in settings.items()
    }


def flat(settings: Any) -> dict[str, Any]:
    """Nested settings by dotted name; where a user may have put a secret, only its hash."""
    return _flat(without_secrets(settings), "")


def _flat(settings: Any, place: str) -> dict[str, Any]:
    if not isinstance(settings, dict) or not settings:
        return {place: settings}
    found = {}
    for key, value in settings.items():
        found |= _flat(value, f"{place}.{key}".lstrip("."))
    return found
