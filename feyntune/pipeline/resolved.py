"""An experiment as it is resolved: all its settings, what differs and where it was set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from feyntune.experiment import load
from feyntune.experiment.schema import Experiment

NONE = "(none)"


def whole(experiment: Experiment) -> str:
    """The whole file that the experiment's file and those it extends amount to, as YAML."""
    settings: dict[str, Any] = {}
    for _, layer in _layers(experiment):
        settings = load.merge(settings, layer)
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=100)


def differences(experiment: Experiment) -> list[str]:
    """A line for each setting that differs from the parent's: both values, and where it was set.

    The parent of a trial is its experiment, that of a file the one that it extends.
    """
    *below, (place, own) = _layers(experiment)
    parent: dict[str, Any] = {}
    for _, layer in below:
        parent = load.merge(parent, layer)
    return [
        f"{key}: {_shown(before)} -> {_shown(after)}  ({place})"
        for key, before, after in _differing(parent, load.merge(parent, own))
    ]


def schema() -> dict[str, Any]:
    """JSON schema of a file in ``experiments/``, for editors: every key may be left out."""
    found = Experiment.model_json_schema()
    for part in (found, *found["$defs"].values()):
        part.pop("required", None)
    keys = found["properties"]
    del keys["name"]
    training = {"$ref": "#/$defs/Training"}
    label = {"type": "string"}
    entry = {
        "type": "object",
        "properties": {"name": label, "dataset": label, "flavour": label, "training": training}
        | {"seed": {"type": "integer"}},
        "required": ["name"],
        "additionalProperties": False,
    }
    shares = {"type": "object", "additionalProperties": {"type": "number"}}
    recipe = found["$defs"]["Recipe"]["properties"]
    recipe["parts"] = {"anyOf": [shares, recipe["parts"]]}
    return found | {
        "title": "An experiment of FeynTune",
        "properties": {"extends": {**label, "description": "The experiment to start from."}}
        | keys
        | {"variants": {"anyOf": [label, {"type": "array", "items": {"anyOf": [label, entry]}}]}}
        | {name: _may_be_null(keys[name]) for name in ("sources", "recipes", "flavours", "fetch")},
    }


def _may_be_null(table: dict[str, Any]) -> dict[str, Any]:
    """A table whose entries may be null: then this experiment has not what its parent has."""
    for kind in ("additionalProperties", "patternProperties"):
        entries = table.get(kind)
        if kind == "additionalProperties" and isinstance(entries, dict):
            table = {**table, kind: {"anyOf": [entries, {"type": "null"}]}}
        elif isinstance(entries, dict):
            nullable = {p: {"anyOf": [e, {"type": "null"}]} for p, e in entries.items()}
            table = {**table, kind: nullable}
    return table


def _layers(experiment: Experiment) -> list[tuple[str, dict[str, Any]]]:
    """What was said where, in the order in which the later wins."""
    name = (experiment.parent or experiment).name
    found = [(f"experiments/{file}.yaml", layer) for file, layer in load.layers(name)]
    if experiment.parent is None:
        return found
    own: dict[str, Any] = {}
    for key, value in experiment.overrides.items():
        load.put(own, key.split("."), value)
    more = [v for v in experiment.variants if v not in experiment.parent.variants]
    if more:
        own["variants"] = [*experiment.parent.variants, *more]
    return [*found, (f"trial {experiment.name}", own)]


def _differing(before: Any, after: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys([*before, *after]):
            inner = f"{place}.{key}".lstrip(".")
            yield from _differing(before.get(key, NONE), after.get(key, NONE), inner)
    elif before != after:
        yield place, before, after


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)
