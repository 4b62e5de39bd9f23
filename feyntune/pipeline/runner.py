"""Runs one stage: a notebook through papermill, or the maker of a stand-in.

A stage that is fresh returns at once. Otherwise its record is taken away first and written last,
so that at no moment a record vouches for results it did not see.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from filelock import FileLock

from feyntune.data.fetch import pins
from feyntune.errors import UserError
from feyntune.experiment.files import remove, writing
from feyntune.experiment.schema import Experiment
from feyntune.paths import named, output_root
from feyntune.pipeline import gpus, notebooks
from feyntune.runs import freshness, records, stages
from feyntune.runs.signals import Preempted

if TYPE_CHECKING:
    from jupyter_client import AsyncKernelManager


def run_together(
    experiment: Experiment, name: str, subjects: Sequence[str | None], threads: int
) -> Iterator[tuple[str | None, bool]]:
    """Run a stage for several subjects in one kernel, over one base model where it needs one.

    Yields
    ------
    tuple
        Each subject, and whether there was anything to do; its results are whole by then.

    Raises
    ------
    UserError
        What kept some subjects from ending, once all others have.
    """
    errors = []
    with ExitStack() as stack:
        stack.enter_context(gpus.reserved(experiment.resources.of(name).gpus))
        kernel = stack.enter_context(notebooks.one_kernel())
        for subject in subjects:
            try:
                yield subject, run(experiment, name, subject, threads, kernel)
            except Preempted:
                raise
            except UserError as error:
                errors.append(str(error))
    if errors:
        raise UserError("\n".join(errors))


def run(
    experiment: Experiment,
    name: str,
    subject: str | None,
    threads: int,
    kernel: AsyncKernelManager | None = None,
) -> bool:
    """Run a stage unless it is fresh.

    Parameters
    ----------
    kernel
        To execute a notebook in; ``None`` for one of its own.

    Returns
    -------
    bool
        Whether there was anything to do.

    Raises
    ------
    UserError
        If an earlier stage is not fresh, or the notebook failed.
    """
    paths = experiment.paths
    record = paths.record(name, subject)
    record.parent.mkdir(parents=True, exist_ok=True)
    # Two processes never make the same result at once: the second waits, then finds it fresh.
    with FileLock(record.with_name(f".{record.stem}.lock")):
        found = freshness.Survey(experiment)
        fresh = found.fresh(name, subject)
        if not fresh:
            _refuse_without_inputs(found, name, subject)
            _make(experiment, name, subject, threads, kernel)
        _stamp(experiment, name, subject)
    return not fresh


def _refuse_without_inputs(look: freshness.Survey, name: str, subject: str | None) -> None:
    needs = stages.STAGES[name].needs(look.experiment, subject)
    if stages.STAGES[name].gathers:
        # Drawn from whatever is fresh; without the first of them nothing is.
        needs = needs[:1]
    for earlier, of in needs:
        found, why = look.state(earlier, of)
        if found != freshness.FRESH:
            raise UserError(
                f"{named(name, subject)} needs {named(earlier, of)}, which is {found} ({why}). "
                f"Run {command(look.experiment, earlier, of)} first, or ./run_all.sh for all."
            )


def command(experiment: Experiment, name: str, subject: str | None) -> str:
    """The command line that runs a stage."""
    option = {"experiment": "", "variant": f" --variant {subject}", "model": f" --model {subject}"}
    of = option[stages.STAGES[name].per]
    return f"feyntune run {name} --experiment {experiment.name}{of}"


def _make(
    experiment: Experiment,
    name: str,
    subject: str | None,
    threads: int,
    kernel: AsyncKernelManager | None,
) -> None:
    stage, paths = stages.STAGES[name], experiment.paths
    started, clock = datetime.now(UTC), time.monotonic()
    made_of = freshness.identity(experiment, name, subject)
    _refuse_other_than_locked(experiment, made_of["inputs"])
    remove(paths.record(name, subject))
    remove(paths.stamp(name, subject))
    with (
        gpus.reserved(experiment.resources.of(name).gpus),
        notebooks.environment(threads, offline=experiment.on_disk) as facts,
    ):
        if stage.maker:
            importlib.import_module(stage.maker).make(experiment)
        else:
            notebooks.execute(experiment, stage, subject, kernel)
        noted = records.read(facts) or {}
    outputs = stage.writes(paths, subject)
    missing = [path.name for path in outputs if not path.exists()]
    if missing:
        raise UserError(f"{named(name, subject)} ended without writing {', '.join(missing)}.")
    records.write(
        paths.record(name, subject),
        {
            "experiment": experiment.name,
            "stage": name,
            "subject": subject,
            "stand_in": experiment.stand_in,
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - clock, 2),
            "threads": threads,
            "peak_memory_bytes": noted.pop("peak_memory_bytes", None),
            "facts": noted,
            "seed": experiment.seed,
            **made_of,
            "outputs": records.states(outputs),
            **records.surroundings(),
        },
    )


def _refuse_other_than_locked(experiment: Experiment, inputs: dict[str, dict]) -> None:
    """What was fetched must still be what the lock says, to the byte."""
    for source, entry in pins.read(experiment).items():
        for file, pinned in entry.files.items():
            place = experiment.paths.fetched(source) / file
            found = inputs.get(str(place.relative_to(output_root())))
            if found and found["sha256"] != pinned.sha256:
                raise UserError(
                    f"{place.resolve()} is not the file that {experiment.paths.lockfile.name} "
                    "names: its contents changed. Bring it back, or remove it and fetch again."
                )


def _stamp(experiment: Experiment, name: str, subject: str | None) -> None:
    with writing(experiment.paths.stamp(name, subject)) as partial:
        record = records.read(experiment.paths.record(name, subject))
        partial.write_text(record["key"] + "\n", encoding="utf-8")
