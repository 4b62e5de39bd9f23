"""Executes notebooks with papermill: each in a kernel of its own, or several in one.

In one kernel, what a module keeps outlives a notebook: the base model is loaded once for all the
models that are evaluated on it (:func:`feyntune.models.base.resident_model`). Everything else a
notebook leaves behind is cleared before the next begins.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feyntune.errors import UserError
from feyntune.experiment.schema import Experiment
from feyntune.paths import NOTEBOOKS, named
from feyntune.pipeline import warm
from feyntune.runs import records, signals
from feyntune.runs.stages import Stage, Subject

if TYPE_CHECKING:  # it takes a second, which a fresh stage does not pay
    from jupyter_client import AsyncKernelManager

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
# Not that the kernel's sockets are unencrypted, nor that it was interrupted to end.
_KERNEL_ARGUMENTS = ["--log-level=50"]
_ONE_KERNEL = "feyntune-one-kernel"
# Run between two notebooks of one kernel, which read their environment only once.
_CLEARED = f"%reset -f\n%env {records.FACTS_VARIABLE}={{}}"


def quiet(threads: int, *, offline: bool) -> dict[str, str]:
    """The variables that libraries read when they are imported: threads, quiet, no network."""
    variables = {**{name: str(threads) for name in THREAD_VARIABLES}, **QUIET}
    # Stand-ins are on disk: no library may ask a hub about them.
    return {**variables, "HF_HUB_OFFLINE": "1"} if offline else variables


@contextmanager
def environment(threads: int, offline: bool) -> Iterator[Path]:
    """Give the kernel its threads and its quiet; yield where it may leave facts."""
    with tempfile.TemporaryDirectory() as folder:
        facts = Path(folder) / "facts.json"
        os.environ.update(quiet(threads, offline=offline))
        os.environ[records.FACTS_VARIABLE] = str(facts)
        yield facts


@contextmanager
def one_kernel() -> Iterator[AsyncKernelManager]:
    """A kernel that starts with the first notebook that is executed in it, and ends here."""
    from jupyter_client import AsyncKernelManager
    from jupyter_core.utils import run_sync

    kernel = AsyncKernelManager(kernel_name=_kernel_name())
    try:
        yield kernel
    finally:
        if kernel.has_kernel:
            run_sync(kernel.shutdown_kernel)(now=True)


def execute(
    experiment: Experiment,
    stage: Stage,
    subject: Subject,
    kernel: AsyncKernelManager | None = None,
) -> None:
    """Execute a stage's notebook; its executed copy is kept, also when it fails.

    Parameters
    ----------
    kernel
        Of :func:`one_kernel`; ``None`` for one of its own.

    Raises
    ------
    UserError
        If a cell fails; :class:`feyntune.runs.signals.Preempted` if it was asked to end.
    """
    import papermill  # takes two seconds, which a fresh stage does not pay

    source = NOTEBOOKS / f"{stage.name}.ipynb"
    parameters = _parameters(experiment, stage, subject, papermill.inspect_notebook(str(source)))
    executed = experiment.paths.notebook(stage.name, subject)
    executed.parent.mkdir(parents=True, exist_ok=True)
    partial = executed.with_name(f".partial-{executed.name}")
    try:
        with signals.passed_on() as request:
            papermill.execute_notebook(
                str(source),
                str(partial),
                parameters=parameters,
                engine_name=_engine(kernel),
                kernel_name=_kernel_name(),
                cwd=str(NOTEBOOKS),
                progress_bar=False,
                extra_arguments=_KERNEL_ARGUMENTS,
            )
    except papermill.PapermillExecutionError as error:
        said = " ".join(error.evalue.split())
        if error.ename == signals.Preempted.__name__:
            raise signals.Preempted(said) from None
        # The last line of the traceback is the error itself; a UserError's is already advice.
        raise UserError(
            f"{named(stage.name, subject)} failed in cell {error.exec_count}: "
            f"{error.ename}: {said} (executed notebook: {executed})"
        ) from None
    except RuntimeError:
        # A cell that does not listen for SIGTERM ends with its kernel.
        if request.received:
            raise signals.Preempted("Asked to end (SIGTERM): start again.") from None
        raise
    finally:
        if partial.exists():
            os.replace(partial, executed)


def _kernel_name() -> str:
    return os.environ.get(warm.KERNEL_VARIABLE, "python3")


def _engine(kernel: AsyncKernelManager | None) -> str | None:
    """Name of the papermill engine that executes in ``kernel``; ``None`` for papermill's own."""
    if kernel is None:
        return None
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell, new_notebook
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import NBClientEngine, papermill_engines

    class OneKernel(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, *, extra_arguments=(), **_):
            if kernel.has_kernel:
                cell = new_code_cell(_CLEARED.format(os.environ[records.FACTS_VARIABLE]))
                NotebookClient(new_notebook(cells=[cell]), km=kernel).execute()
            client = PapermillNotebookClient(nb_man, km=kernel, extra_arguments=extra_arguments)
            client.execute()

    papermill_engines.register(_ONE_KERNEL, OneKernel)
    return _ONE_KERNEL


def _parameters(
    experiment: Experiment, stage: Stage, subject: Subject, known: dict[str, Any]
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
