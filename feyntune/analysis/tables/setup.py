"""Tables of what was done: datasets and their overlap, settings, time and memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd

from feyntune.evaluation.grouping import Models
from feyntune.experiment.recipes import Variant
from feyntune.experiment.schema import Experiment
from feyntune.paths import SPLITS

PAPER_ROWS = [f"paper_{split}" for split in SPLITS]
OWN = "of this experiment"  # a dataset that is not the paper's
OVERLAPS = ("ids", "texts", "near_duplicates")
GIB = 2**30


def datasets(
    experiment: Experiment,
    curation: Mapping[str, Any] | None,
    cards: Mapping[str, Mapping[str, Any]],
    models: Models,
) -> pd.DataFrame:
    """Rows of each dataset's splits beside the paper's, each with how it is known.

    Parameters
    ----------
    curation
        ``curation.json``; ``None`` where nothing is curated: then the paper's rows stand alone.
    cards
        By variant, what its released model card says: ``datasets`` (that it names) and
        ``verdict`` on our recipe. Empty where no card was fetched: then there is no such column.
    models
        The variants, which say whose card is whose.
    """
    rows = []
    for name, recipe in experiment.recipes.items():
        found = curation["datasets"][name]["rows"] if curation else {}
        rows.append(
            {"dataset": name, "mixture": recipe.title, "assignment": recipe.certainty or OWN}
            | {split: found[split] for split in SPLITS if curation}
            | dict(zip(PAPER_ROWS, recipe.paper_rows or [None] * 3, strict=True))
            | {"paper_rows": recipe.rows_certainty if recipe.paper_rows else "not known"}
            | {"hub": recipe.hub}
            | _cards(name, cards, models)
        )
    return pd.DataFrame(rows).astype(dict.fromkeys(PAPER_ROWS, "Int64"))


def _cards(dataset: str, cards: Mapping[str, Mapping[str, Any]], models: Models) -> dict[str, str]:
    """The verdict of each flavour's card, and what it names instead."""
    verdicts = {}
    of = {models.variants[name].flavour: name for name in models.trained_on(dataset)}
    for flavour in models.used if cards else ():
        card = cards.get(of.get(flavour), {"verdict": "not fetched"})
        instead = f": {', '.join(card['datasets'])}" if card["verdict"] == "contradicted" else ""
        verdicts[f"card_{flavour}"] = card["verdict"] + instead
    return verdicts


def overlap(curation: Mapping[str, Any]) -> pd.DataFrame:
    """Test abstracts of s1 that the training split of each dataset also has, and in percent.

    ``curation`` is ``curation.json``. How many test abstracts are later than what the base model
    can have read is the same in every row.
    """
    test, rows = curation["test"], []
    age = {
        "test_abstracts": test["abstracts"],
        "knowledge_until": str(test["knowledge_until"]),  # a year is not grouped by thousands
        "test_after_knowledge": test["after_knowledge"],
    }
    for name, entry in curation["datasets"].items():
        row = {"dataset": name, "mixture": entry["title"], "train": entry["rows"]["train"]}
        for kind in OVERLAPS:
            shared = entry["overlap_with_s1_test"][kind]
            row |= {kind: shared, f"{kind}_percent": 100 * shared / test["abstracts"]}
        rows.append(row | age)
    return pd.DataFrame(rows)


def hyperparameters(
    experiment: Experiment, models: Models, trainable: Mapping[str, Mapping[str, float]]
) -> pd.DataFrame:
    """Every training setting, one column per flavour that a variant has.

    Parameters
    ----------
    trainable
        By variant that was trained, ``count`` and ``share`` of its trainable parameters. A
        flavour's are those of a variant with the settings that most of its variants have.
    """
    base = experiment.base
    quantization = base.quantization.model_dump() if base.quantization else {"type": None}
    shared = {"base model": base.model or "stand-in Llama"}
    shared |= {f"quantization {key}": value for key, value in quantization.items()}
    shared |= {"base dtype": base.dtype}
    columns = {}
    for flavour in models.used:
        settings = {
            name: _settings(variant)
            for name, variant in experiment.variants.items()
            if variant.flavour == flavour
        }
        common = max(settings.values(), key=list(settings.values()).count)
        usual = [trainable[name] for name in trainable if settings.get(name) == common]
        found = usual[0] if usual else {}
        columns[flavour] = (
            {key: _written(value) for key, value in shared.items()}
            | common
            | {"trainable parameters": _written(found.get("count", "unknown"))}
            | {"trainable share": _written(found.get("share", "unknown"))}
        )
        for name, own in settings.items():
            keys = [key for key in {**common, **own} if own.get(key) != common.get(key)]
            changed = [f"{key} {own.get(key, 'none')}" for key in keys]
            if changed:
                columns[flavour][f"differs: {name}"] = ", ".join(changed)
    table = pd.DataFrame(columns).fillna("").rename(index=lambda key: key.replace("_", " "))
    return table.rename_axis("setting").reset_index()


def _settings(variant: Variant) -> dict[str, str]:
    plain = variant.training.model_dump(exclude={"report_to"})  # for looking on, not training
    lora, schedule = plain.pop("lora"), plain.pop("lr_scheduler_kwargs")
    plain |= schedule | {f"LoRA {key.removeprefix('lora_')}": v for key, v in lora.items()}
    return {key: _written(value) for key, value in {"seed": variant.seed, **plain}.items()}


def _written(value: object) -> str:
    """A setting as a person writes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return ", ".join(map(_written, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_written(inner)}" for key, inner in value.items()) or "none"
    return f"{value:,}" if isinstance(value, Integral) else f"{value:.6g}"


def compute(
    records: Iterable[Mapping[str, Any]], wanted: Iterable[tuple[str, str | None]], *, absent: str
) -> pd.DataFrame:
    """Seconds, tokens per second and peak memory of every run, and all runs of each stage.

    ``records`` are run records; ``wanted`` the stages and subjects that there should be; of one
    without a record the note is ``absent``.
    """
    names = {
        "facts.tokens": "tokens",
        "facts.seconds": "work_seconds",
        "peak_memory_bytes": "peak_memory_GiB",
    }
    numbers = ["seconds", *names.values(), "threads"]
    planned = pd.DataFrame(wanted, columns=["stage", "subject"])
    runs = pd.concat([pd.json_normalize(list(records)), planned]).rename(columns=names)
    runs = runs.reindex(columns=["stage", "subject", *numbers]).fillna({"subject": ""})
    runs = runs.drop_duplicates(["stage", "subject"]).astype(dict.fromkeys(numbers, float))
    runs["peak_memory_GiB"] /= GIB
    runs["work_seconds"] = runs["work_seconds"].where(runs["tokens"].notna())
    runs["note"] = np.where(runs["seconds"].isna(), absent, "")
    stages = runs.groupby("stage")
    whole = stages[["seconds", "tokens", "work_seconds"]].sum(min_count=1)
    whole = whole.assign(subject="all", peak_memory_GiB=stages["peak_memory_GiB"].max(), note="")
    whole = whole[stages["seconds"].count() > 1].reset_index()
    table = pd.concat([runs, whole]).sort_values("stage", kind="stable", ignore_index=True)
    table.insert(4, "tokens_per_second", table["tokens"] / table.pop("work_seconds"))
    return table.astype({"tokens": "Int64", "threads": "Int64"})
