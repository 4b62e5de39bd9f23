"""What lies on disk for an experiment: fresh, stale or missing, and why.

The identity (`key`) of a result is the SHA-256 of its settings, its code and its inputs. A stage
whose run record bears that key, and whose outputs are as recorded, is fresh: nothing to do. The
workflow engine only orders the work; whether there is any is decided here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from feyntune.experiment.files import fingerprint
from feyntune.experiment.schema import Experiment
from feyntune.paths import named, output_root
from feyntune.runs import code, records
from feyntune.runs.stages import STAGES, Job, Subject, plan

FRESH, STALE, MISSING = "fresh", "stale", "missing"


class Survey:
    """One look at what lies on disk for an experiment; every file is looked at once."""

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        self._seen: dict[Job, tuple[str, str]] = {}

    def state(self, name: str, subject: Subject) -> tuple[str, str]:
        """Return ``fresh``, ``stale`` or ``missing``, and why.

        A stage is fresh when its record bears the key of today's settings, code and inputs, its
        outputs are as recorded, and every stage before it is fresh.
        """
        if (name, subject) not in self._seen:
            self._seen[name, subject] = self._look(name, subject)
        return self._seen[name, subject]

    def fresh(self, name: str, subject: Subject) -> bool:
        return self.state(name, subject)[0] == FRESH

    def _look(self, name: str, subject: Subject) -> tuple[str, str]:
        record = records.read(self.experiment.paths.record(name, subject))
        if record is None:
            return MISSING, "not run"
        # What is drawn from whatever is there is not made stale by what is not.
        if not STAGES[name].gathers:
            for earlier, of in STAGES[name].needs(self.experiment, subject):
                if not self.fresh(earlier, of):
                    return STALE, f"{named(earlier, of)} is {self.state(earlier, of)[0]}"
        now = self.identity(name, subject)
        if record["key"] != now["key"]:
            return STALE, _what_changed(record, now)
        if (news := STAGES[name].waited(self.experiment)) is not None:
            return STALE, news
        writes = STAGES[name].writes(self.experiment.paths, subject)
        changed = records.differences(record["outputs"], records.states(writes, record["outputs"]))
        return (STALE, f"result changed: {changed[0]}") if changed else (FRESH, "")

    def before(self, name: str) -> list[Job]:
        """Every fresh run of the stages that come before one."""
        order = list(STAGES)
        earlier = order[: order.index(name)]
        return [job for job in plan(self.experiment) if job[0] in earlier and self.fresh(*job)]

    def identity(self, name: str, subject: Subject) -> dict[str, Any]:
        """Settings, code and inputs of a result, each as hashes, and their joint ``key``."""
        stage, paths = STAGES[name], self.experiment.paths
        record = records.read(paths.record(name, subject)) or {}
        reads = stage.reads(self.experiment, subject)
        if stage.gathers:
            # The run records vouch for the results that it is made from.
            reads = reads + [paths.record(*job) for job in self.before(name)]
        inputs = records.states(reads, record.get("inputs"))
        parts = {
            "settings": fingerprint(stage.settings(self.experiment, subject)),
            "code": code.of_module(stage.maker) if stage.maker else code.of_notebook(name),
        }
        key = fingerprint({**parts, "inputs": records.hashes(inputs)})
        return {**parts, "inputs": inputs, "key": key}


def identity(experiment: Experiment, name: str, subject: Subject) -> dict[str, Any]:
    """Settings, code and inputs of a result, each as hashes, and their joint ``key``."""
    return Survey(experiment).identity(name, subject)


def to_draw(experiment: Experiment, name: str) -> list[Job]:
    """Every fresh run before a stage: what figures and tables, or the report, are made from."""
    return Survey(experiment).before(name)


def vouched_for(experiment: Experiment, name: str) -> dict[Path, Job]:
    """The result files of those runs, each with the run that made it."""
    return {
        output_root() / file: job
        for job in to_draw(experiment, name)
        for file in records.read(experiment.paths.record(*job))["outputs"]
    }


def _what_changed(record: dict[str, Any], now: dict[str, Any]) -> str:
    for part in ("settings", "code"):
        if record[part] != now[part]:
            return f"{part} changed"
    changed = records.differences(record["inputs"], now["inputs"])
    return f"input changed: {changed[0]}" if changed else "record of an older form"
