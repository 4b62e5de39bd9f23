"""Runs one stage: a notebook through papermill, or the maker of a stand-in.

A stage that is fresh returns at once. Otherwise its record is taken away first and written last,
so that at no moment a record vouches for results it did not see.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from feyntune import lock, provenance, stages, survey, warm
from feyntune.errors import UserError
from feyntune.paths import NOTEBOOKS, named, output_root, remove, writing
from feyntune.settings import Experiment

# The process id of the workflow engine: a job whose engine was killed ends too.
OWNER_VARIABLE = "FEYNTUNE_WORKFLOW_PID"
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
)
# Executed notebooks are read by people: no progress bars, no chatter of libraries.
QUIET = {
    "TQDM_DISABLE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore::FutureWarning",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    "JUPYTER_PLATFORM_DIRS": "1",
}


def run(experiment: Experiment, name: str, subject: str | None, threads: int) -> bool:
    """Run a stage unless it is fresh.

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
        found = survey.Survey(experiment)
        fresh = found.fresh(name, subject)
        if not fresh:
            _refuse_without_inputs(found, name, subject)
            _make(experiment, name, subject, threads)
        _stamp(experiment, name, subject)
    return not fresh


def _refuse_without_inputs(look: survey.Survey, name: str, subject: str | None) -> None:
    stage = stages.STAGES[name]
    needs = stage.needs(look.experiment, subject)
    if stage.gathers:
        # It works with whatever is fresh; without the first of them there is nothing.
        needs = needs[:1]
    for earlier, of in needs:
        found, why = look.state(earlier, of)
        if found != survey.FRESH:
            raise UserError(
                f"{named(name, subject)} needs {named(earlier, of)}, which is {found} ({why}). "
                f"Run {command(look.experiment, earlier, of)} first, or ./run_all.sh for all."
            )


def command(experiment: Experiment, name: str, subject: str | None) -> str:
    """The command line that runs a stage."""
    option = {"experiment": "", "variant": f" --variant {subject}", "model": f" --model {subject}"}
    of = option[stages.STAGES[name].per]
    return f"feyntune run {name} --experiment {experiment.name}{of}"


def _make(experiment: Experiment, name: str, subject: str | None, threads: int) -> None:
    stage, paths = stages.STAGES[name], experiment.paths
    started, clock = datetime.now(UTC), time.monotonic()
    made_of = survey.identity(experiment, name, subject)
    _refuse_other_than_locked(experiment, made_of["inputs"])
    remove(paths.record(name, subject))
    remove(paths.stamp(name, subject))
    with _environment(threads, offline=experiment.on_disk) as facts:
        if stage.maker:
            importlib.import_module(stage.maker).make(experiment)
        else:
            _execute(experiment, stage, subject)
        noted = provenance.read(facts) or {}
    outputs = stage.writes(paths, subject)
    missing = [path.name for path in outputs if not path.exists()]
    if missing:
        raise UserError(f"{named(name, subject)} ended without writing {', '.join(missing)}.")
    provenance.write(
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
            "outputs": provenance.states(outputs),
            **provenance.surroundings(),
        },
    )


def _refuse_other_than_locked(experiment: Experiment, inputs: dict[str, dict]) -> None:
    """What was fetched must still be what the lock says, to the byte."""
    for source, entry in lock.read(experiment).items():
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
        record = provenance.read(experiment.paths.record(name, subject))
        partial.write_text(record["key"] + "\n", encoding="utf-8")


def quiet(threads: int, *, offline: bool) -> dict[str, str]:
    """The variables that libraries read when they are imported: threads, quiet, no network."""
    variables = {**{name: str(threads) for name in THREAD_VARIABLES}, **QUIET}
    # Stand-ins are on disk: no library may ask a hub about them.
    return {**variables, "HF_HUB_OFFLINE": "1"} if offline else variables


@contextmanager
def _environment(threads: int, offline: bool) -> Iterator[Path]:
    """Give the kernel its threads and its quiet; yield where it may leave facts."""
    with tempfile.TemporaryDirectory() as folder:
        facts = Path(folder) / "facts.json"
        os.environ.update(quiet(threads, offline=offline))
        os.environ[provenance.FACTS_VARIABLE] = str(facts)
        yield facts


def _execute(experiment: Experiment, stage: stages.Stage, subject: str | None) -> None:
    """Execute the notebook; its executed copy is kept, also when it fails."""
    import papermill  # takes two seconds, which a fresh stage does not pay

    source = NOTEBOOKS / f"{stage.name}.ipynb"
    parameters = _parameters(experiment, stage, subject, papermill.inspect_notebook(str(source)))
    executed = experiment.paths.notebook(stage.name, subject)
    executed.parent.mkdir(parents=True, exist_ok=True)
    partial = executed.with_name(f".partial-{executed.name}")
    try:
        papermill.execute_notebook(
            str(source),
            str(partial),
            parameters=parameters,
            kernel_name=os.environ.get(warm.KERNEL_VARIABLE, "python3"),
            cwd=str(NOTEBOOKS),
            progress_bar=False,
            # Not that the kernel's sockets are unencrypted, nor that it was interrupted to end.
            extra_arguments=["--log-level=50"],
        )
    except papermill.PapermillExecutionError as error:
        # The last line of the traceback is the error itself; a UserError's is already advice.
        raise UserError(
            f"{named(stage.name, subject)} failed in cell {error.exec_count}: "
            f"{error.ename}: {' '.join(error.evalue.split())} (executed notebook: {executed})"
        ) from None
    finally:
        if partial.exists():
            os.replace(partial, executed)


def _parameters(
    experiment: Experiment, stage: stages.Stage, subject: str | None, known: dict[str, Any]
) -> dict[str, str]:
    """The notebook's parameters, each of which it must declare: papermill only warns."""
    given = {"experiment": experiment.name}
    if subject is not None:
        given[stage.per] = subject
    if set(given) != set(known):
        raise UserError(
            f"notebooks/{stage.name}.ipynb declares the parameters {sorted(known)}, "
            f"but is run with {sorted(given)}."
        )
    return given


def end_with_owner() -> None:
    """End this process and its kernel when the workflow engine that started it is gone.

    A SIGKILL of the engine reaches none of its jobs; left alone they would write results while
    the next run makes the same ones.
    """
    owner = os.environ.get(OWNER_VARIABLE)
    if owner:
        threading.Thread(target=_watch, args=(int(owner),), daemon=True).start()


def _watch(owner: int) -> None:
    import psutil

    with contextlib.suppress(psutil.Error):
        process = psutil.Process(owner)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.5)
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os._exit(1)
