"""Runs stages: a notebook through papermill, or the maker of a stand-in.

A run that is fresh returns at once; results that another experiment has already are taken over.
Otherwise the run is recorded from its start to its end (`recording`).
"""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from filelock import FileLock

from feyntune.data.fetch import pins
from feyntune.errors import UserError
from feyntune.paths import output_root
from feyntune.pipeline import gpus, notebooks
from feyntune.runs import recording, records
from feyntune.runs.freshness import (
    Freshness,
    changed_outputs,
    is_recorded,
    only_code_changed,
    set_aside,
)
from feyntune.runs.signals import Preempted
from feyntune.runs.stages import FINETUNE, Run

TAKEN_OVER, DONE, UP_TO_DATE = "taken over", "done", "up to date"


def run_together(runs: Sequence[Run], *, anew: Collection[Run] = ()) -> Iterator[tuple[Run, str]]:
    """Run what a job has, in order, in one kernel as long as all may use the same of a machine.

    One that fails, or whose kernel is killed, costs only those that need it: the others go on in a
    new kernel.

    Parameters
    ----------
    anew
        Those to compute even if they are fresh.

    Yields
    ------
    tuple
        Each run, and what there was to do; its results are whole by then.

    Raises
    ------
    UserError
        What kept some of them from ending, once all others have.
    """
    errors, failed, kernel = [], set(), notebooks.Kernel()
    try:
        for (wanted, _), alike in groupby(runs, lambda each: (each.requests.gpus, each.threads)):
            kernel.end()  # threads and GPU of a kernel are those that it started with
            with gpus.reserved(wanted):
                for each in alike:
                    if not failed.isdisjoint(each.needs):
                        failed.add(each)
                        continue
                    try:
                        yield each, run(each, kernel, anew=each in anew)
                    except Preempted:
                        raise
                    except UserError as error:
                        errors.append(str(error))
                        failed.add(each)
                        kernel.end()  # what failed may still hold memory
    finally:
        kernel.end()
    if errors:
        raise UserError("\n".join(errors))


def run(of: Run, kernel: notebooks.Kernel | None = None, *, anew: bool = False) -> str:
    """Run a stage unless it is fresh, or its results are there in another experiment.

    Parameters
    ----------
    kernel
        To execute a notebook in; ``None`` for one of its own.
    anew
        Whether to compute it even if it is fresh; a training that did not end goes on.

    Returns
    -------
    str
        What there was to do: ``UP_TO_DATE``, ``TAKEN_OVER`` or ``DONE``.

    Raises
    ------
    UserError
        If an earlier stage is not fresh, or the notebook failed.
    """
    lock = of.record_file
    lock.parent.mkdir(parents=True, exist_ok=True)
    # Two processes never make the same result at once: the second waits, then finds it fresh.
    with FileLock(lock.with_name(f".{lock.stem}.lock")):
        freshness = Freshness(of.experiment)
        if freshness.fresh(of) and not anew:
            return UP_TO_DATE
        recording.check_inputs(freshness, of)
        if anew and of.stage.name == FINETUNE and freshness.fresh(of):
            _begin_again(of)
        if not anew and recording.take_over(freshness, of):
            return TAKEN_OVER
        _make(of, kernel)
        return DONE


def _begin_again(of: Run) -> None:
    """Set aside the checkpoints of a training that ended: from its last one no step is left."""
    checkpoints = of.experiment.paths.checkpoints(of.subject)
    if checkpoints.exists():
        set_aside(of, checkpoints.name, checkpoints)


def _make(of: Run, kernel: notebooks.Kernel | None) -> None:
    begun = recording.Recording(of)
    _check_pinned(of, begun.parts["inputs"])
    begun.finish(**_execute(of, kernel))


def _execute(of: Run, kernel: notebooks.Kernel | None = None) -> dict[str, Any]:
    """Run a notebook or a maker; return the facts it left."""
    with (
        gpus.reserved(of.requests.gpus),
        notebooks.environment(of.threads, offline=of.experiment.on_disk) as facts,
    ):
        if of.stage.maker:
            importlib.import_module(of.stage.maker).make(of.experiment)
        else:
            notebooks.execute(of, kernel)
        return records.read(facts) or {}


def _check_pinned(of: Run, inputs: dict[str, dict]) -> None:
    """What was fetched must still be what the lock says, to the byte."""
    paths = of.experiment.paths
    roles = {file: role for role, file in records.files(of.reads).items()}
    for source, entry in pins.read(of.experiment).items():
        for name, pinned in entry.files.items():
            place = paths.fetched(source) / name
            if place in roles and inputs[roles[place]]["sha256"] != pinned.sha256:
                raise UserError(
                    f"{place.resolve()} is not the file that {paths.lockfile.name} "
                    "names: its contents changed. Bring it back, or remove it and fetch again."
                )


# --- accepting a change of code ---------------------------------------------------------------


def accept(runs: Sequence[Run], why: str) -> tuple[Run, list[Run]]:
    """Keep results after a change of code that changed none of them.

    One run of the stage, that which took least time, is recomputed in a scratch folder. If every
    output has the same bytes as recorded, all are recorded as results of today's code.

    Returns
    -------
    tuple
        The run that was recomputed, and all that were recorded anew.

    Raises
    ------
    UserError
        If there is nothing to accept, or the recomputed results differ.
    """
    stage = runs[0].stage
    if stage.gathers:
        raise UserError(f"{stage.name} takes seconds: run it again.")
    if stage.keeps:
        raise UserError(f"{stage.name} records answers with their times: run it again.")
    found = {each: Freshness(each.experiment).parts(each) for each in runs if _acceptable(each)}
    if not found:
        raise UserError(f"{stage.name}: no result is stale because of its code alone.")
    sample = min(found, key=lambda each: each.record["seconds"])
    outputs = sample.record["outputs"]
    differing = records.differences(outputs, _recomputed(sample))
    if differing:
        raise UserError(
            f"{sample} computed again differs in {', '.join(differing)}: the change of code "
            f"changed results. Run {stage.name} again."
        )
    accepted = {
        "why": why,
        "recomputed": str(sample),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        **{key: records.surroundings()[key] for key in ("commit", "uncommitted_changes")},
    }
    for each, now in found.items():
        recording.accept(each, now, accepted)
    return sample, list(found)


def _acceptable(of: Run) -> bool:
    """Whether a result is whole, and differs from today's in its code alone."""
    freshness, record = Freshness(of.experiment), of.record
    return (
        record is not None
        and not is_recorded(record)
        and only_code_changed(record, freshness.parts(of))
        and not changed_outputs(of, record)
    )


def _recomputed(of: Run) -> dict[str, dict[str, Any]]:
    """States of the outputs of a run, made again from the same inputs in a scratch folder."""
    root = output_root()
    inside = [file for file in records.files(of.reads).values() if file.is_relative_to(root)]
    with tempfile.TemporaryDirectory() as scratch:
        for file in inside:
            copy = Path(scratch) / file.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, copy)
        lock = of.experiment.paths.lockfile
        with _output_in(scratch):
            if lock.is_file():
                of.experiment.paths.lockfile.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(lock, of.experiment.paths.lockfile)
            _execute(of)
            return records.states(of.writes)


@contextmanager
def _output_in(folder: str) -> Iterator[None]:
    before = os.environ.get("FEYNTUNE_OUTPUT")
    os.environ["FEYNTUNE_OUTPUT"] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ["FEYNTUNE_OUTPUT"]
        else:
            os.environ["FEYNTUNE_OUTPUT"] = before
