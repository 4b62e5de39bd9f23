"""What on disk is fresh, stale or missing, and why.

The key of a result is the SHA-256 of its settings, inputs, threads and code. A run whose record
has that key, and whose outputs are as recorded, is fresh: there is nothing to do.

Results may be committed with their experiment, in ``experiments/<name>/``, and stand in for hours
of computing. Neither authors' words nor weights are among them, so a file is committed whole,
without some of its columns, or not at all; see :func:`feyntune.runs.records.states`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from feyntune.errors import UserError
from feyntune.experiment.files import fingerprint, free_name, writing
from feyntune.experiment.schema import Experiment
from feyntune.paths import output_root
from feyntune.runs import code, records
from feyntune.runs.dependencies import as_read, flat, outside
from feyntune.runs.stages import CURATION, FINETUNE, REPORT, Run, plan, run

# Modules changed since results were committed that are named.
NAMED = 5
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


class Taken(NamedTuple):
    """How many results are committed ones, and the code and inputs that changed since."""

    number: int
    inputs: list[str]
    code: list[str]

    def lines(self, experiment: Experiment) -> list[str]:
        """The same in words; of much code the first names."""
        if not self.number:
            return []
        folder = (experiment.parent or experiment).name
        more = [f"{len(self.code) - NAMED} more modules"] if len(self.code) > NAMED else []
        names = ", ".join([*self.inputs, *self.code[:NAMED], *more])
        changed = f" Changed since they were made: {names}." if names else ""
        return [f"{self.number} results are those committed in experiments/{folder}/.{changed}"]


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
            return Status(MISSING, why_not_taken(of) or "not run")
        # What is drawn from whatever there is does not get stale by what is missing.
        if not of.stage.gathers:
            for earlier in of.needs:
                if not self.fresh(earlier):
                    return Status(STALE, f"{earlier} is {self.status(earlier).state}")
        if is_recorded(record):
            return self._look_at_recorded(of, record)
        if record["key"] != self.parts(of)["key"]:
            return Status(STALE, records.what_changed(record, self.parts(of)))
        if (news := of.stage.waited(self.experiment)) is not None:
            return Status(STALE, news)
        changed = changed_outputs(of, record)
        return Status(STALE, f"result changed: {changed[0]}") if changed else Status(FRESH)

    def _look_at_recorded(self, of: Run, record: dict[str, Any]) -> Status:
        """Committed results count as long as settings, sources and inputs are today's.

        Hours of computing are not thrown away for a line of code, nor for an abstract that its
        authors revised: these are named, see :meth:`taken`.
        """
        if committed_record(of) != record:
            return Status(MISSING, "what was committed is not any more")
        if (other := other_settings(record, of)) is not None:
            return Status(STALE, other)
        inputs = records.differences(record["inputs"], self.parts(of)["inputs"])
        revised = self._only_revised()
        for role in inputs:
            if not (revised and role.startswith("data/")):
                return Status(STALE, f"input changed: {role}")
        changed = changed_outputs(of, record)
        if changed:
            return Status(STALE, f"result changed: {changed[0]}")
        return Status(FRESH, "committed, not computed here")

    def _only_revised(self) -> bool:
        """Whether curation counts today what it counted for the committed results.

        Datasets that were added since do not matter.
        """
        of = run(self.experiment, CURATION)
        file = of.experiment.paths.curation
        ours, theirs = records.read(file), records.read(committed(of, file))
        if ours is None or theirs is None:
            return False
        there = {name: ours["datasets"].get(name) for name in theirs["datasets"]}
        return {**ours, "datasets": there} == theirs

    def taken(self, runs: Iterable[Run]) -> Taken:
        """Which of some runs have committed results, and what is not as when they were made."""
        fresh = [each for each in runs if is_recorded(each.record) and self.fresh(each)]
        inputs = dict.fromkeys(
            role
            for each in fresh
            for role in records.differences(each.record["inputs"], self.parts(each)["inputs"])
        )
        changed = dict.fromkeys(
            f"{each.stage.name}'s cells" if name == code.CELLS else name
            for each in fresh
            for name in records.differing(each.record["code"], self.parts(each)["code"])
        )
        return Taken(len(fresh), list(inputs), list(changed))

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
            "settings": flat(as_read(of.settings)) | self._said_of_committed(of),
            "counted_threads": of.counted_threads,
            "code": code.of_module(maker) if maker else code.of_notebook(of.stage.name),
        }
        return {**parts, "inputs": inputs, "key": _key({**parts, "inputs": inputs})}

    def _said_of_committed(self, of: Run) -> dict[str, Any]:
        """What the report says of committed results, where there are some."""
        taken = self.taken(self.before(of)) if of.stage.name == REPORT else Taken(0, [], [])
        return {"committed": as_read(taken._asdict())} if taken.number else {}

    def donor(self, of: Run) -> dict[str, Any] | None:
        """Record of another run with the same key whose results are whole, if there is one."""
        if of.stage.gathers:
            return None
        own = of.record_file
        for file, record in self._records.get(self.parts(of)["key"], []):
            if file == own or is_recorded(record):
                continue
            outputs = record["outputs"]
            if not records.differences(outputs, records.states(places(record), outputs)):
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


def only_code_changed(record: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether a result differs from today's in its code and in nothing else."""
    other = {**record, "code": now["code"]}
    parts = ("settings", "counted_threads", "code", "inputs")
    return record["code"] != now["code"] and now["key"] == _key({p: other[p] for p in parts})


# --- results that are committed with their experiment -------------------------------------------


def committed_record(of: Run) -> dict[str, Any] | None:
    """The record of a run that is committed with its experiment, if there is one."""
    return records.read(committed(of, of.record_file))


def is_recorded(record: dict[str, Any] | None) -> bool:
    """Whether a run's results are those that are committed, not made on this machine."""
    return bool(record and record.get("recorded"))


def committed(of: Run, file: Path) -> Path:
    """What is committed in a file's place, if anything is."""
    paths = of.experiment.paths
    return paths.recorded / file.relative_to(paths.results)


def place(of: Run, role: str) -> Path:
    """Where an output is; a file in a folder has the folder's role first."""
    name = next(name for name in of.writes if f"{role}/".startswith(f"{name}/"))
    return of.writes[name] / role[len(name) + 1 :]


def take_committed(runs: Iterable[Run]) -> list[Run]:
    """Copy the committed results of runs that have today's settings; return which were copied.

    Where somebody's own results are, or a training that began, nothing is copied.

    Raises
    ------
    UserError
        If a committed file is not as it was committed.
    """
    return [each for each in runs if _is_to_be_taken(each) and _take(each)]


def why_not_taken(of: Run) -> str | None:
    """Why there is no result yet where one is committed; ``None`` if none is."""
    record = committed_record(of)
    if record is None:
        return None
    other = other_settings(record, of)
    return "committed, not taken yet" if other is None else f"committed otherwise: {other}"


def _is_to_be_taken(of: Run) -> bool:
    record, there = of.record, committed_record(of)
    if there is None or other_settings(there, of) is not None:
        return False
    if is_recorded(record):
        return record != there or bool(changed_outputs(of, record))
    return record is None and not records.files(of.writes) and not _has_begun(of)


def _has_begun(of: Run) -> bool:
    paths = of.experiment.paths
    return of.stage.name == FINETUNE and any(paths.checkpoints(of.subject).glob("checkpoint-*"))


def _take(of: Run) -> bool:
    record = committed_record(of)
    copies = {}
    for role, state in record["outputs"].items():
        if (sha := state.get("kept", state["sha256"])) is not None:
            file = committed(of, place(of, role))
            if not file.is_file() or records.sha256(file) != sha:
                raise UserError(
                    f"{file} is not as it was committed: bring it back with "
                    f"git checkout -- {of.experiment.paths.recorded}, or remove that folder."
                )
            copies[role] = file
    lock = of.record_file
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock.with_name(f".{lock.stem}.lock"), timeout=0):
            _set_aside_what_is_no_copy(of)
            for role, file in copies.items():
                with writing(place(of, role)) as partial:
                    shutil.copyfile(file, partial)
            records.write(of.record_file, record)
    except Timeout:  # it is being made at this moment
        return False
    return True


def _set_aside_what_is_no_copy(of: Run) -> None:
    """Move away what lies where a copy was taken to, and is neither it nor what it stands for."""
    was = (of.record or {}).get("outputs", {})
    for role, file in records.files(of.writes).items():
        state = was.get(role, {})
        if records.sha256(file) not in (state.get("sha256"), state.get("kept")):
            set_aside(of, role, file)


def set_aside(of: Run, role: str, file: Path) -> Path:
    """Move what a run left where its results are to where nothing removes it; return the place."""
    place = free_name(of.experiment.paths.set_aside / str(of) / role)
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(file, place)
    return place


def other_settings(record: dict[str, Any], of: Run) -> str | None:
    """Which settings or outside sources a record was made with that are not today's."""
    now = {"settings": flat(as_read(of.settings)), "counted_threads": of.counted_threads}
    if any(record[part] != value for part, value in now.items()):
        return records.what_changed(record, {**record, **now})
    sources = outside(of.experiment, of.reads)
    changed = records.differing(record.get("outside", {}), sources)
    return f"source changed: {changed[0]}" if changed else None


def lacking(of: Run) -> list[Run]:
    """The runs before one that have to run here first: it reads files that are not committed."""
    return [each for each in of.needs if any(_reads(of, file) for file in _not_here(each))]


def _not_here(of: Run) -> list[Path]:
    """Outputs of a recorded run that are not on disk as they were made."""
    record = of.record
    if not is_recorded(record):
        return []
    places = {role: place(of, role) for role, s in record["outputs"].items() if "kept" in s}
    return [
        file
        for role, file in places.items()
        if not file.is_file() or records.sha256(file) != record["outputs"][role]["sha256"]
    ]


def _reads(of: Run, file: Path) -> bool:
    return any(file == place or file.is_relative_to(place) for place in of.reads.values())


def needed_again(freshness: Freshness, runs: Iterable[Run]) -> list[Run]:
    """Committed runs that must be computed here before others can be.

    One that is stale only because another is may turn out to be fresh, and asks for none.
    """
    found: dict[Run, None] = {}
    waiting = [
        each
        for each in runs
        if not freshness.fresh(each)
        and (freshness.status(each).state == MISSING or all(map(freshness.fresh, each.needs)))
    ]
    while waiting:
        new = [each for each in lacking(waiting.pop()) if each not in found]
        found |= dict.fromkeys(new)
        waiting += new
    return list(found)
