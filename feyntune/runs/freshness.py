"""What on disk is fresh, stale or missing, and why.

The key of a result is the SHA-256 of its settings, inputs, threads and code. A run whose record
has that key, and whose outputs are as recorded, is fresh: there is nothing to do.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from feyntune.experiment.files import fingerprint
from feyntune.experiment.load import SECRET
from feyntune.experiment.schema import Experiment
from feyntune.paths import output_root
from feyntune.runs import code, records
from feyntune.runs.stages import FINETUNE, Run, plan, run

FRESH, STALE, MISSING = "fresh", "stale", "missing"
# Where run records are, of experiments and of their trials.
RECORDS = (
    *("*/runs/*.json", "*/finetune/*/run.json"),
    *("*/trials/*/runs/*.json", "*/trials/*/finetune/*/run.json"),
)


class Status(NamedTuple):
    """``fresh``, ``stale`` or ``missing``, and why."""

    state: str
    why: str = ""


class Freshness:
    """One look at what is on disk for an experiment; every file is looked at once."""

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        self._seen: dict[Run, Status] = {}
        self._parts: dict[Run, dict[str, Any]] = {}

    def status(self, of: Run) -> Status:
        """The state of a run, and why it is not fresh.

        It is fresh when its record has the key of today's settings, inputs, threads and code, its
        outputs are as recorded, and every run before it is fresh.
        """
        if of not in self._seen:
            self._seen[of] = self._look(of)
        return self._seen[of]

    def fresh(self, of: Run) -> bool:
        return self.status(of).state == FRESH

    def _look(self, of: Run) -> Status:
        record = of.record
        if record is None or "key" not in record:
            return Status(MISSING, "not run")
        # What is drawn from whatever there is does not get stale by what is missing.
        if not of.stage.gathers:
            for earlier in of.needs:
                if not self.fresh(earlier):
                    return Status(STALE, f"{earlier} is {self.status(earlier).state}")
        if record["key"] != self.parts(of)["key"]:
            return Status(STALE, what_changed(record, self.parts(of)))
        if (news := of.stage.waited(self.experiment)) is not None:
            return Status(STALE, news)
        changed = changed_outputs(of, record)
        return Status(STALE, f"result changed: {changed[0]}") if changed else Status(FRESH)

    def before(self, of: Run) -> list[Run]:
        """Every fresh run of the stages that come before one."""
        planned = plan(self.experiment)
        stages = [each.stage.name for each in planned]
        return [each for each in planned[: stages.index(of.stage.name)] if self.fresh(each)]

    def parts(self, of: Run) -> dict[str, Any]:
        """What a result is made of: settings, threads, code and inputs, and their ``key``."""
        if of not in self._parts:
            self._parts[of] = self._made_of(of)
        return self._parts[of]

    def _made_of(self, of: Run) -> dict[str, Any]:
        reads = of.reads
        if of.stage.gathers:
            # The records say which results it is made from.
            reads = reads | {f"runs/{each}": each.record_file for each in self.before(of)}
        inputs = records.states(reads, (of.record or {}).get("inputs"))
        maker = of.stage.maker
        parts = {
            "settings": flat(as_read(of.settings)),
            "counted_threads": of.counted_threads,
            "code": code.of_module(maker) if maker else code.of_notebook(of.stage.name),
        }
        return {**parts, "inputs": inputs, "key": _key({**parts, "inputs": inputs})}

    def donor(self, of: Run) -> dict[str, Any] | None:
        """Record of another run with the same key whose results are whole, if there is one."""
        if of.stage.gathers:
            return None
        own = of.record_file
        for file, record in self._records.get(self.parts(of)["key"], []):
            recorded = record["outputs"]
            whole = not records.differences(recorded, records.states(places(record), recorded))
            if file != own and whole:
                return record
        return None

    @cached_property
    def _records(self) -> dict[str, list[tuple[Path, dict[str, Any]]]]:
        """Every run record there is, of whatever experiment, by its key."""
        found: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
        results = output_root() / "results"
        for pattern in RECORDS:
            for file in sorted(results.glob(pattern)):
                record = records.read(file)
                if record and "places" in record:
                    found.setdefault(record["key"], []).append((file, record))
        return found


def places(record: dict[str, Any]) -> dict[str, Path]:
    """Where the outputs of a record are, by role."""
    return {role: output_root() / place for role, place in record["places"].items()}


def changed_outputs(of: Run, record: dict[str, Any]) -> list[str]:
    """Roles of the outputs that are not as recorded."""
    return records.differences(record["outputs"], records.states(of.writes, record["outputs"]))


def result_files(of: Run) -> dict[Path, Run]:
    """The result files of every fresh run before one, each with the run that made it."""
    return {
        file: made_by
        for made_by in Freshness(of.experiment).before(of)
        for role, file in records.files(made_by.writes).items()
        if role in made_by.record["outputs"]
    }


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


def _key(parts: dict[str, Any]) -> str:
    return fingerprint({**parts, "inputs": records.hashes(parts["inputs"])})


def training_key(experiment: Experiment, variant: str) -> dict[str, str]:
    """What a checkpoint was trained with, as a hash a part.

    Of the code only what trains counts: the cells of notebook 02, `training` and `models`.
    """
    parts = Freshness(experiment).parts(run(experiment, FINETUNE, variant))
    inputs = records.hashes(parts["inputs"])
    trains = ("feyntune.training.", "feyntune.models.", code.CELLS)
    found = {
        "settings": [parts["settings"], parts["counted_threads"]],
        "data": {role: sha for role, sha in inputs.items() if role.startswith("data/")},
        "base": {role: sha for role, sha in inputs.items() if role.startswith("base/")},
        "code": {name: sha for name, sha in parts["code"].items() if name.startswith(trains)},
    }
    return {part: fingerprint(value) for part, value in found.items()}


# --- why --------------------------------------------------------------------------------------


def what_changed(record: dict[str, Any], now: dict[str, Any]) -> str:
    """Why a record's key is not today's, in a few words."""
    settings = [
        f"{name}: {_short(record['settings'], name)} -> {_short(now['settings'], name)}"
        for name in _differing(record["settings"], now["settings"])
    ]
    if settings:
        return f"settings changed: {_listed(settings)}"
    if record["counted_threads"] != now["counted_threads"]:
        return f"threads changed: {record['counted_threads']} -> {now['counted_threads']}"
    changed = _differing(record["code"], now["code"])
    if changed:
        return f"code changed: {_listed(changed)}"
    inputs = records.differences(record["inputs"], now["inputs"])
    return f"input changed: {_listed(inputs)}" if inputs else "record of an older form"


def only_code_changed(record: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether a result differs from today's in its code and in nothing else."""
    other = {**record, "code": now["code"]}
    parts = ("settings", "counted_threads", "code", "inputs")
    return record["code"] != now["code"] and now["key"] == _key({p: other[p] for p in parts})


def _differing(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    nothing = object()
    return sorted(n for n in {*old, *new} if old.get(n, nothing) != new.get(n, nothing))


def _short(settings: dict[str, Any], name: str) -> str:
    text = repr(settings[name]) if name in settings else "(none)"
    return text if len(text) <= 40 else f"{text[:37]}..."


def _listed(names: list[str]) -> str:
    more = f", and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}"
