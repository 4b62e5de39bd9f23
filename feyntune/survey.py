"""What lies on disk for an experiment: fresh, stale or missing, and why.

The identity (`key`) of a result is the SHA-256 of its settings, its code and its inputs. A stage
whose run record bears that key, and whose outputs are as recorded, is fresh: nothing to do. The
workflow engine only orders the work; whether there is any is decided here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from feyntune import code, provenance
from feyntune.experiment import fingerprint
from feyntune.paths import named
from feyntune.settings import Experiment
from feyntune.stages import FIGURES, STAGES, Subject, plan

FRESH, STALE, MISSING = "fresh", "stale", "missing"


def identity(experiment: Experiment, name: str, subject: Subject) -> dict[str, Any]:
    """Settings, code and inputs of a result, each as hashes, and their joint ``key``."""
    stage = STAGES[name]
    record = provenance.read(experiment.paths.record(name, subject)) or {}
    reads = stage.reads(experiment, subject)
    reads += fresh_records(experiment) if name == FIGURES else []
    inputs = provenance.states(reads, record.get("inputs"))
    parts = {
        "settings": fingerprint(stage.settings(experiment, subject)),
        "code": code.of_module(stage.maker) if stage.maker else code.of_notebook(name),
    }
    key = fingerprint({**parts, "inputs": provenance.hashes(inputs)})
    return {**parts, "inputs": inputs, "key": key}


class Survey:
    """One look at what lies on disk for an experiment; every file is looked at once."""

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        self._seen: dict[tuple[str, Subject], tuple[str, str]] = {}

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
        record = provenance.read(self.experiment.paths.record(name, subject))
        if record is None:
            return MISSING, "not run"
        # Figures are drawn from whatever is there; what is not there does not make them stale.
        if name != FIGURES:
            for earlier, of in STAGES[name].needs(self.experiment, subject):
                if not self.fresh(earlier, of):
                    return STALE, f"{named(earlier, of)} is {self.state(earlier, of)[0]}"
        now = identity(self.experiment, name, subject)
        if record["key"] != now["key"]:
            return STALE, _what_changed(record, now)
        if (news := STAGES[name].waited(self.experiment)) is not None:
            return STALE, news
        writes = STAGES[name].writes(self.experiment.paths, subject)
        changed = provenance.differences(
            record["outputs"], provenance.states(writes, record["outputs"])
        )
        return (STALE, f"result changed: {changed[0]}") if changed else (FRESH, "")


def to_draw(experiment: Experiment) -> list[tuple[str, Subject]]:
    """Every fresh stage before the figures: what figures and tables are drawn from."""
    survey = Survey(experiment)
    return [job for job in plan(experiment) if job[0] != FIGURES and survey.fresh(*job)]


def fresh_records(experiment: Experiment) -> list[Path]:
    """The run records of what is to be drawn; they vouch for its results."""
    return [experiment.paths.record(*job) for job in to_draw(experiment)]


def _what_changed(record: dict[str, Any], now: dict[str, Any]) -> str:
    for part in ("settings", "code"):
        if record[part] != now[part]:
            return f"{part} changed"
    changed = provenance.differences(record["inputs"], now["inputs"])
    return f"input changed: {changed[0]}" if changed else "record of an older form"
