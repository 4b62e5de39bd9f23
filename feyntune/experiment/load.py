"""One experiment: the typed, validated configuration that every stage reads.

An experiment is a YAML file in ``experiments/``. What it says wins over the file that it
``extends``, a variant's own training settings win over both, and overrides (``--set``) win over
all; there is no other way. Unknown keys, wrong types and values out of range are errors that name
the key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import count
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from feyntune.errors import UserError, choose
from feyntune.experiment import recipes, trials
from feyntune.experiment.files import number_or_text, read_yaml, writing
from feyntune.experiment.schema import Experiment
from feyntune.paths import EXPERIMENTS, REPOSITORY, Paths, output_root

# Where a user may by mistake write a key itself: what was written there is never shown.
SECRET = ("key_variable", "base_url")
# What may be in the environment; nothing else there moves anything.
VARIABLES = (
    *("FEYNTUNE_OUTPUT", "FEYNTUNE_PYTHON", "FEYNTUNE_SMOKE_OUTPUT"),  # for people and tests
    # How a step goes through memory (`training.memory`), and a copy of a metric for a benchmark.
    *("FEYNTUNE_ROWS", "FEYNTUNE_BASE_FORM", "FEYNTUNE_RECOMPUTE", "FEYNTUNE_EVALUATE"),
    # Between our own processes.
    *("FEYNTUNE_JOBS", "FEYNTUNE_WORKERS", "FEYNTUNE_FACTS", "FEYNTUNE_WORKFLOW_PID"),
)
# Keys of earlier versions, and what stands in their place.
OLD_KEYS = {
    "overrides": "training of an entry of variants",
    "training.epochs": "training.num_train_epochs",
    "training.batch_size": "training.per_device_train_batch_size",
    "training.optimizer": "training.optim",
    "training.betas": "training.adam_beta1 and training.adam_beta2",
    "training.epsilon": "training.adam_epsilon",
    "training.schedule": "training.lr_scheduler_type",
    "training.min_lr_rate": "training.lr_scheduler_kwargs.min_lr_rate",
    "training.warmup_share": "training.warmup_steps (below 1: a share of all steps)",
    "training.max_tokens": "training.max_length",
    "training.evaluation_batch_size": "training.per_device_eval_batch_size",
    "training.checkpoints_kept": "training.save_total_limit",
    "training.lora.alpha": "training.lora.lora_alpha",
    "training.lora.dropout": "training.lora.lora_dropout",
    "training.lora.targets": "target_modules of an entry of flavours",
}
# Tables of which an entry that is null is one that an extended experiment has and this has not.
_TABLES = (*recipes.TABLES, "fetch")


def _folders() -> list[Path]:
    """Where experiments are: also beside an output that is elsewhere, and there first."""
    root = output_root()
    return [*([root / EXPERIMENTS.name] if root != REPOSITORY else []), EXPERIMENTS]


def names() -> list[str]:
    """Names of the experiments there are: those written, and those made by ``--snapshot``."""
    files = [path for folder in _folders() for path in folder.glob("*.yaml")]
    written = [path.stem for path in files if "." not in path.stem]
    made = [path.parent.name for path in (output_root() / "results").glob("*/experiment.yaml")]
    return sorted({*written, *made})


def file_of(name: str) -> Path:
    """The file of an experiment."""
    written = [folder / f"{name}.yaml" for folder in _folders()]
    made = Paths(name).results / "experiment.yaml"
    return next((file for file in written if file.is_file()), made)


def beside(file: str) -> Path:
    """A file that experiments name, which is where they are."""
    places = [folder / file for folder in _folders()]
    return next((place for place in places if place.is_file()), places[-1])


def ancestry(name: str) -> list[str]:
    """An experiment and those that it extends, nearest first; a trial extends its experiment."""
    line = [name]
    if trials.is_trial(name):
        line.append(trials.split_name(name)[0])
    while (parent := _settings_of(line[-1]).get("extends")) in names():
        line.append(parent)
    return line


def load(
    name: str,
    overrides: dict[str, Any] | None = None,
    *,
    trial: str = "",
    variant: str | Sequence[str] = (),
) -> Experiment:
    """Load and validate ``experiments/<name>.yaml``, or a trial of it.

    Parameters
    ----------
    name
        Name of an experiment, without folder and ending; or of a trial there is,
        ``smoke/trials/hot``.
    overrides
        Dotted keys and values that win over everything, e.g. ``{"training.learning_rate": 1e-2}``.
        If they move numbers, the experiment is a trial.
    trial
        Its name; otherwise one that says what is overridden.
    variant
        One that is to be run, or several: if the experiment does not list one, this is a trial.

    Raises
    ------
    UserError
        If there is no such experiment, or its settings are not valid.
    """
    _check_environment()
    overrides = {key: number_or_text(value) for key, value in (overrides or {}).items()}
    if trials.is_trial(name):
        name, trial = trials.split_name(name)
        if trials.recorded(trials.name_of(name, trial)) is None:
            raise UserError(f"There is no trial {trial} of {name}.")
    known = trial and trials.recorded(trials.name_of(name, trial))
    if known and overrides:
        overrides = _again(name, trial, known, overrides)
    elif known:
        overrides = known["overrides"]
    parent = _experiment(name)
    listed = [v for v in (known or {}).get("variants", []) if v not in parent.variants]
    wanted = [variant] if isinstance(variant, str) else variant
    more = [v for v in dict.fromkeys(wanted) if v not in (*parent.models, *listed)]
    possible = _combinations({"recipes": parent.recipes, "flavours": parent.flavours})
    for each in more:
        valid = dict.fromkeys([*parent.models, *possible])
        choose("model", each, valid, of=f"experiment {name}")
    if not (overrides or listed or more or trial):
        return parent
    return _trial(parent, overrides, trial, [*listed, *more])


def model(reference: str) -> tuple[Experiment, str]:
    """An experiment and one of its models, as ``demo/base`` or ``smoke/trials/hot/s1-LoRA-all``.

    Raises
    ------
    UserError
        If there is no such experiment, trial or model.
    """
    name, _, chosen = reference.rpartition("/")
    if not name:
        raise UserError(
            "A model is named as EXPERIMENT/MODEL or EXPERIMENT/trials/NAME/MODEL, such as "
            f"demo/s1-LoRA-all, not {reference!r}."
        )
    experiment = load(name)
    return experiment, choose("model", chosen, experiment.models, of=f"experiment {name}")


def with_settings(name: str, overrides: dict[str, Any]) -> Experiment:
    """An experiment with other settings under its own name: for what keeps no results by them."""
    return _experiment(name, {key: number_or_text(v) for key, v in overrides.items()})


def with_snapshot(name: str, snapshot: Path) -> str:
    """Make an experiment that is ``name`` with another snapshot, and return its name.

    It is ``<name>-<name of the file>``, and its file stands among its results: what is curated
    from a file of the user's never stands in place of anything else.
    """
    stem = re.sub(r"[^\w.+-]+", "-", snapshot.name.split(".")[0]).strip("-.") or "snapshot"
    settings = {
        "extends": name,
        "title": f"{_experiment(name).title}, on {snapshot.name}",
        "data": {"snapshot": os.path.abspath(snapshot)},
    }
    for number in count(1):  # files of one name from several folders
        wanted = f"{name}-{stem}" if number == 1 else f"{name}-{stem}-{number}"
        if wanted not in names():
            with writing(Paths(wanted).results / "experiment.yaml") as partial:
                text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
                partial.write_text(text, encoding="utf-8")
        if _settings_of(wanted) == settings:
            return wanted


def _trial(
    parent: Experiment, overrides: dict[str, Any], trial: str, more: list[str]
) -> Experiment:
    """An experiment with overrides: under its own name if they change no result."""
    trials.check_keys(parent.name, overrides)
    changed = _experiment(parent.name, overrides, more)
    if not more and not trials.moves_numbers(changed, parent):
        if trial:
            raise UserError(f"Trial {trial} is {parent.name}: nothing that moves a number is set.")
        changed._overrides = overrides
        return changed
    if not trial:
        trial = trials.default_name(_moving(parent.name, overrides, more), more)
        if known := trials.recorded(trials.name_of(parent.name, trial)):
            _again(parent.name, trial, known, overrides)
    trials.check_name(trial)
    name = trials.name_of(parent.name, trial)
    changed = changed.model_copy(update={"name": name})
    changed._parent = parent
    changed._overrides = overrides
    return changed


def _again(
    name: str, trial: str, known: dict[str, Any], overrides: dict[str, Any]
) -> dict[str, Any]:
    """The overrides of a trial that there is, with those given now.

    Either those that move numbers are given again, all of them, or none is; others are free.

    Raises
    ------
    UserError
        If numbers would move: the trial's results are not written over.
    """
    before = known["overrides"]
    both = before | overrides
    listed, ran, alone, added = (
        _experiment(name, each, known["variants"]) for each in ({}, before, overrides, both)
    )
    complete = trials.moves_numbers(alone, listed)
    if trials.moves_numbers(alone if complete else added, ran):
        said = ", ".join(f"{key}={value}" for key, value in before.items())
        raise UserError(
            f"There is a trial {trial} already, with {said or 'no overrides'}: give this one "
            "another name."
        )
    return overrides if complete else both


def _moving(name: str, overrides: dict[str, Any], more: list[str]) -> dict[str, Any]:
    """The overrides without which numbers would be others."""
    whole = _experiment(name, overrides, more)
    rest = {key: {k: v for k, v in overrides.items() if k != key} for key in overrides}
    return {
        key: overrides[key]
        for key, others in rest.items()
        if trials.moves_numbers(whole, _experiment(name, others, more))
    }


def base_revision(experiment: Experiment) -> str | None:
    """Commit of the base model: the fetched one, else the one that the experiment names."""
    try:
        text = experiment.paths.lockfile.read_text(encoding="utf-8")
    except FileNotFoundError:
        return experiment.base.revision
    for entry in yaml.safe_load(text)["sources"].values():
        if entry["source"].get("id") == experiment.base.model and entry["commit"]:
            return entry["commit"]
    return experiment.base.revision


def _check_environment() -> None:
    """Refuse variables that look like settings: surroundings move nothing."""
    unknown = [v for v in sorted(os.environ) if v.startswith("FEYNTUNE_") and v not in VARIABLES]
    if unknown:
        key = unknown[0].removeprefix("FEYNTUNE_").lower().strip("_").replace("__", ".")
        raise UserError(
            f"{unknown[0]} in the environment does nothing: unset it, and say --set "
            f"{key}=... instead."
        )


# --- from files to settings -------------------------------------------------------------------


def layers(name: str) -> list[tuple[str, dict[str, Any]]]:
    """What each file says, by its name: the paper's tables first, the experiment's own last."""
    choose("experiment", name, names())
    seen = []
    while name is not None:
        if name in [file for file, _ in seen]:
            chain = " -> ".join([*(file for file, _ in seen), name])
            raise UserError(f"experiments/{name}.yaml extends itself: {chain}.")
        if seen:
            choose(f"experiment (extended by {seen[-1][0]})", str(name), names())
        settings = _settings_of(name)
        parent = settings.pop("extends", None)
        seen.append((name, settings))
        name = parent
    return [("paper.recipes", recipes.PAPER), *reversed(seen)]


def _settings_of(name: str) -> dict[str, Any]:
    """What a file says, without those it extends."""
    settings = read_yaml(file_of(name))
    if not isinstance(settings, dict):
        raise UserError(f"experiments/{name}.yaml must be a mapping of settings.")
    return dict(settings)


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Settings on top of others: mappings are merged, everything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if nested else value
    return merged


def put(settings: dict[str, Any], keys: list[str], value: Any) -> None:
    """Set a nested key, in copies: what is no section becomes one, which validation refuses."""
    *above, last = keys
    for key in above:
        found = settings.get(key)
        settings[key] = dict(found) if isinstance(found, dict) else {}
        settings = settings[key]
    settings[last] = value


def _experiment(
    name: str, overrides: dict[str, Any] | None = None, more: list[str] | None = None
) -> Experiment:
    overrides = overrides or {}
    settings: dict[str, Any] = {}
    for _, layer in layers(name):
        settings = merge(settings, layer)
    for key, value in overrides.items():
        put(settings, key.split("."), value)
    settings["name"] = name
    place = f"experiments/{name}.yaml"
    _check_old_keys(settings, place)
    for table in _TABLES:
        settings[table] = _present(settings.get(table))
    try:
        settings["variants"] = _variants(settings, overrides, more or [])
        if isinstance(settings.get("training"), dict):
            settings["training"] = _without_nulls(settings["training"])
        _complete_sample(settings)
        return Experiment.model_validate(settings)
    except ValidationError as error:
        problems = "; ".join(dict.fromkeys(map(_explain, _first_causes(error))))
        also = f" (with {', '.join(overrides)} set)" if overrides else ""
        raise UserError(f"{place}{also}: {problems}.") from None
    except UserError as error:
        raise UserError(f"{place}: {error}") from None


def _check_old_keys(settings: dict[str, Any], place: str) -> None:
    for key, now in OLD_KEYS.items():
        inner: Any = settings
        for part in key.split("."):
            inner = inner.get(part) if isinstance(inner, dict) else None
        if inner is not None:
            raise UserError(f"{place}: {key} is now {now}.")


def _present(table: Any) -> Any:
    """A table without the entries that are null."""
    if not isinstance(table, dict):
        return table
    return {key: value for key, value in table.items() if value is not None}


def _without_nulls(training: dict[str, Any]) -> dict[str, Any]:
    """Training settings without the arguments of libraries that are null."""
    tables = [name for name in ("lora", "lr_scheduler_kwargs") if name in training]
    return training | {name: _present(training[name]) for name in tables}


def _complete_sample(settings: dict[str, Any]) -> None:
    """A field whose sample is not named gives all its abstracts."""
    data, sources = settings.get("data"), settings.get("sources")
    sample = data.get("sample", {}) if isinstance(data, dict) else None
    if isinstance(sample, dict) and isinstance(sources, dict):
        fields = [name for name, source in sources.items() if isinstance(source, list)]
        put(settings, ["data", "sample"], {**dict.fromkeys(fields), **sample})


# --- variants ---------------------------------------------------------------------------------


def _variants(
    settings: dict[str, Any], overrides: dict[str, Any], more: list[str]
) -> dict[str, Any] | Any:
    """The listed variants, each with its complete settings, by name."""
    listed = settings.get("variants")
    listed = [listed] if isinstance(listed, str) else listed
    if not isinstance(listed, list):
        return listed
    every = _combinations(settings)
    found: dict[str, Any] = {}
    for entry in [*_spelled_out(listed, every), *more]:
        entry = entry if isinstance(entry, dict) else {"name": entry}
        name = str(entry.get("name"))
        if "name" not in entry:
            raise UserError(f"variants: an entry has no name: {entry}.")
        if name.lower() in (known.lower() for known in (*found, recipes.BASE)):
            raise UserError(f"variants: the name {name} is taken twice (case does not count).")
        found[name] = _variant(name, entry, every, settings, overrides)
    return found


def _combinations(settings: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Dataset and flavour of every variant that needs no entry of its own, by name."""
    datasets, flavours = settings.get("recipes") or {}, settings.get("flavours") or {}
    return {f"{d}-{f}": (d, f) for f in flavours for d in datasets}


def _spelled_out(listed: list[Any], every: dict[str, Any]) -> list[Any]:
    """The entries, with the paper's variants in place of ``all``."""
    paper = [name for name in recipes.VARIANTS if name in every]
    return [each for entry in listed for each in (paper if entry == recipes.ALL else [entry])]


def _variant(
    name: str,
    entry: dict[str, Any],
    every: dict[str, tuple[str, str]],
    settings: dict[str, Any],
    overrides: dict[str, Any],
) -> dict[str, Any]:
    """One variant: common training settings, its flavour's, its own, and overrides on top."""
    unknown = sorted(set(entry) - {"name", "dataset", "flavour", "training", "seed"})
    if unknown:
        raise UserError(f"variants.{name}: unknown key {unknown[0]!r}.")
    if "dataset" not in entry and "flavour" not in entry:
        choose("variant", name, every)
    dataset, flavour = every.get(name, (None, None))
    chosen = (entry.get("dataset", dataset), entry.get("flavour", flavour))
    if name in every and chosen != every[name]:
        raise UserError(f"variants.{name} is the name of {flavour} on {dataset}: give another.")
    choose("dataset", str(chosen[0]), settings["recipes"], of=f"variant {name}")
    choose("flavour", str(chosen[1]), settings["flavours"], of=f"variant {name}")
    training = settings.get("training")
    if isinstance(training, dict):
        lora = settings["flavours"][chosen[1]]
        training = merge(merge(training, {"lora": lora}), entry.get("training") or {})
        for key, value in overrides.items():
            section, _, rest = key.partition(".")
            if section == "training" and rest:
                put(training, rest.split("."), value)
        training = _without_nulls(training)
    seed = overrides.get("seed", entry.get("seed", settings.get("seed")))
    return {"dataset": chosen[0], "flavour": chosen[1], "seed": seed, "training": training}


# --- what is wrong, in words ------------------------------------------------------------------


def _first_causes(error: ValidationError) -> list[dict[str, Any]]:
    """The problems, without those that variants have from the common training settings."""
    found = error.errors()
    common = {problem["loc"] for problem in found if problem["loc"][0:1] != ("variants",)}
    return [p for p in found if not (p["loc"][:1] == ("variants",) and p["loc"][2:] in common)]


def _explain(problem: dict[str, Any]) -> str:
    """One validation problem in words a user can act on."""
    key = ".".join(str(part) for part in problem["loc"])
    value = problem["input"]
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key!r}{_near(problem['loc'])}"
    if problem["type"] == "missing":
        return f"{key} is missing"
    if problem["loc"][-1:] and problem["loc"][-1] in SECRET:
        hint = ": the name of an environment variable, not a key" if key.endswith(SECRET[0]) else ""
        return f"{key} is not valid{hint} ({problem['msg'].removeprefix('Value error, ')})"
    if isinstance(value, str) and _is_number(value):
        return f"{key}: {value!r} is text, not a number"
    message = problem["msg"].removeprefix("Value error, ")
    message = message if not key else f"{message[0].lower()}{message[1:]}"
    shown = "" if isinstance(value, dict | Experiment) else f" (got {value!r})"
    return f"{key}: {message}{shown}".removeprefix(": ")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _near(location: tuple[int | str, ...]) -> str:
    """The key of the same section that was nearly written."""
    section: Any = Experiment
    for part in location[:-1]:
        field = getattr(section, "model_fields", {}).get(part)
        if field is not None:
            section = field.annotation
        # `Section | None` and `dict[str, Section]` stand for the section.
        section = next((a for a in get_args(section) if hasattr(a, "model_fields")), section)
    close = get_close_matches(str(location[-1]), getattr(section, "model_fields", {}), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
