"""One experiment: the typed, validated configuration that every stage reads.

An experiment is a YAML file in ``experiments/``. It may ``extends:`` another and override keys,
and ``FEYNTUNE__SECTION__KEY=value`` in the environment overrides both. Unknown keys, wrong types
and values out of range are errors that name the key.
"""

from __future__ import annotations

import os
from difflib import get_close_matches
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from feyntune.errors import UserError, choose
from feyntune.experiment import recipes
from feyntune.experiment.schema import Experiment
from feyntune.paths import EXPERIMENTS

ENVIRONMENT_PREFIX = "FEYNTUNE__"
# Where a user may by mistake write a key itself: what was written there is never shown.
SECRET = ("key_variable", "base_url")


def names() -> list[str]:
    """Names of the experiments there are."""
    return sorted(path.stem for path in EXPERIMENTS.glob("*.yaml") if "." not in path.stem)


def ancestry(name: str) -> list[str]:
    """An experiment and those that it extends, nearest first."""
    line = [name]
    while (parent := _settings_of(line[-1]).get("extends")) in names():
        line.append(parent)
    return line


def load(name: str, overrides: dict[str, Any] | None = None) -> Experiment:
    """Load and validate ``experiments/<name>.yaml``.

    Parameters
    ----------
    name
        Name of an experiment, without folder and ending.
    overrides
        Dotted keys and values that win over file and environment, e.g.
        ``{"data.snapshot": "file.json"}``.

    Raises
    ------
    UserError
        If there is no such experiment, or its settings are not valid.
    """
    return _validated(name, {**_environment(), **(overrides or {})})


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


def changed(experiment: Experiment) -> list[str]:
    """Settings, as dotted keys, that differ from those of the experiment's own file."""
    return _differing(experiment.model_dump(), _validated(experiment.name, {}).model_dump())


def _differing(ours: Any, theirs: Any, place: str = "") -> list[str]:
    if not (isinstance(ours, dict) and isinstance(theirs, dict)):
        return [] if ours == theirs else [place]
    return [
        key
        for name in sorted({*ours, *theirs})
        for key in _differing(ours.get(name), theirs.get(name), f"{place}.{name}".lstrip("."))
    ]


def _validated(name: str, overrides: dict[str, Any]) -> Experiment:
    choose("experiment", name, names())
    settings = _read(name, ())
    for key, value in overrides.items():
        _put(settings, key.split("."), value)
    settings["name"] = name
    _name_variants(settings)
    _drop_sources(settings)
    _complete_overrides(settings)
    try:
        return Experiment.model_validate(settings)
    except ValidationError as error:
        problems = "; ".join(_explain(problem) for problem in error.errors())
        set_outside = [v for v in sorted(os.environ) if v.startswith(ENVIRONMENT_PREFIX)]
        also = f" (with {', '.join(set_outside)} from the environment)" if set_outside else ""
        raise UserError(f"experiments/{name}.yaml{also}: {problems}.") from None


def _read(name: str, seen: tuple[str, ...]) -> dict[str, Any]:
    """The settings of a file on top of those that it extends."""
    if name in seen:
        raise UserError(f"experiments/{name}.yaml extends itself: {' -> '.join((*seen, name))}.")
    settings = _settings_of(name)
    parent = settings.pop("extends", None)
    if parent is None:
        return settings
    choose(f"experiment (extended by {name})", str(parent), names())
    return _merge(_read(parent, (*seen, name)), settings)


def _settings_of(name: str) -> dict[str, Any]:
    """What a file says, without those it extends."""
    path = EXPERIMENTS / f"{name}.yaml"
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"experiments/{path.name} is not YAML: {_one_line(error)}") from None
    if not isinstance(settings, dict):
        raise UserError(f"experiments/{path.name} must be a mapping of settings.")
    return settings


class _UniqueKeys(yaml.SafeLoader):
    """YAML that refuses a key written twice, of which the first would be dropped silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"written twice: {', '.join(twice)}", node.start_mark
            )
        return super().construct_mapping(node, deep)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if nested else value
    return merged


def _environment() -> dict[str, Any]:
    """``FEYNTUNE__DATA__SNAPSHOT=file`` gives ``{"data.snapshot": "file"}``."""
    found = {}
    for variable, text in sorted(os.environ.items()):
        if variable.startswith(ENVIRONMENT_PREFIX):
            key = variable.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            try:
                found[key] = yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise UserError(f"{variable} is not YAML: {_one_line(error)}") from None
    return found


def _put(settings: dict[str, Any], keys: list[str], value: Any) -> None:
    """Set a nested key, in copies: what is no section becomes one, which validation refuses."""
    *above, last = keys
    for key in above:
        found = settings.get(key)
        settings[key] = dict(found) if isinstance(found, dict) else {}
        settings = settings[key]
    settings[last] = value


def _name_variants(settings: dict[str, Any]) -> None:
    """Resolve ``all``, and let every listed variant be one that there is."""
    listed = settings.get("variants")
    if listed == "all":
        settings["variants"] = list(recipes.VARIANTS)
    elif isinstance(listed, list):
        chosen = {choose("variant", str(name), recipes.VARIANTS) for name in listed}
        settings["variants"] = [name for name in recipes.VARIANTS if name in chosen]


def _drop_sources(settings: dict[str, Any]) -> None:
    """A source that is set to null is one that an extended experiment has and this one has not."""
    sources = settings.get("fetch")
    if isinstance(sources, dict):
        settings["fetch"] = {k: source for k, source in sources.items() if source is not None}


def _complete_overrides(settings: dict[str, Any]) -> None:
    """A variant's overrides on top of the common training settings."""
    given = settings.get("overrides") or {}
    common = settings.get("training")
    if not isinstance(given, dict) or not isinstance(common, dict):
        return
    for name in given:
        choose("variant (in overrides)", str(name), recipes.VARIANTS)
    settings["overrides"] = {
        name: _merge(common, changed) if isinstance(changed, dict) else changed
        for name, changed in given.items()
    }


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
        hint = " (YAML needs a dot: 2.0e-4, not 2e-4)" if "e" in value.lower() else ""
        return f"{key}: {value!r} is text, not a number{hint}"
    message = problem["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(value, dict) else f" (got {value!r})"
    return f"{key}: {message[0].lower()}{message[1:]}{shown}"


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
