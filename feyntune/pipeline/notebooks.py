"""Executes notebooks with papermill, in kernels of this checkout and this interpreter.

One kernel may execute several notebooks, one after the other: what modules keep outlives a
notebook (the libraries, a base model in memory), everything a notebook defines is cleared.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feyntune import surroundings
from feyntune.errors import UserError
from feyntune.paths import NOTEBOOKS
from feyntune.runs import code, progress, records, signals
from feyntune.runs.stages import Run

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
# Log level: not that the kernel's sockets are unencrypted, nor that it was interrupted to end.
_KERNEL = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=50"]
_ENGINE = "feyntune"
# Errors of a cell, by name or words, that are about memory: of its own, or of a process it started.
_OUT_OF_MEMORY = ("MemoryError", "OutOfMemoryError", "TerminatedWorkerError", "BrokenProcessPool")
_NO_MEMORY = ("can't allocate memory", "Cannot allocate memory")
_MORE_MEMORY = (
    "run again with --jobs 1 or where there is more memory; on a cluster raise "
    "resources.<stage>.memory_gb"
)
# Run before each notebook of a kernel, whose environment is read only once. Without `return_memory`
# glibc keeps what a training freed: an evaluation after one of `small` had a peak of 4.4 GiB, not
# 1.5.
_CLEARED = f"""%reset -f
import gc; gc.collect()
from feyntune.machine import return_memory; return_memory()
%env {records.FACTS_VARIABLE}={{}}
from feyntune.runs.records import forget_peak; forget_peak(); del forget_peak, return_memory, gc"""


class KernelDied(UserError):
    """A kernel ended while it executed a notebook: killed from outside, or out of memory."""


def variables(threads: int, *, offline: bool) -> dict[str, str]:
    """What libraries read when they are imported: threads, no chatter, no network."""
    found = {**{name: str(threads) for name in THREAD_VARIABLES}, **QUIET}
    # Stand-ins are on disk: no library may ask a hub about them.
    return {**found, "HF_HUB_OFFLINE": "1"} if offline else found


@contextmanager
def environment(threads: int, offline: bool) -> Iterator[Path]:
    """Set the variables for what is started here; yield where a run may leave facts."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        facts = Path(folder) / "facts.json"
        surroundings.set_aside()
        os.environ.update(variables(threads, offline=offline))
        os.environ[records.FACTS_VARIABLE] = str(facts)
        try:
            yield facts
        finally:
            os.environ.clear()
            os.environ.update(before)


class Kernel:
    """A kernel that starts with the first notebook executed in it, and ends with :meth:`end`.

    It runs this interpreter and imports this checkout's package, whatever kernels, packages and
    paths the user has installed or set.
    """

    def __init__(self):
        self._manager: AsyncKernelManager | None = None
        self._folder: tempfile.TemporaryDirectory | None = None

    def manager(self) -> AsyncKernelManager:
        """The manager to execute with; a kernel that died is replaced."""
        if self._manager is not None and not self._alive():
            self.end()
        if self._manager is None:
            self._folder = tempfile.TemporaryDirectory(prefix="feyntune-")
            self._manager = _manager(Path(self._folder.name))
        return self._manager

    def exit_status(self) -> int | None:
        """Of a kernel that died: minus a signal's number, or what the process gave."""
        process = getattr(getattr(self._manager, "provisioner", None), "process", None)
        return process.poll() if process is not None else None

    def started(self) -> bool:
        return self._manager is not None and self._manager.has_kernel

    def _alive(self) -> bool:
        from jupyter_core.utils import run_sync

        return not self._manager.has_kernel or run_sync(self._manager.is_alive)()

    def end(self) -> None:
        from jupyter_core.utils import run_sync

        if self.started():
            run_sync(self._manager.shutdown_kernel)(now=True)
        if self._folder is not None:
            self._folder.cleanup()
        self._manager = self._folder = None


def _manager(folder: Path) -> AsyncKernelManager:
    """Of a kernel that is reached by sockets in a folder: two that start at once can never take
    the same network port.
    """
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

    class ThisCheckout(KernelSpecManager):
        """In place of looking a kernel up among those that happen to be installed."""

        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            # In place of the user's profile, whose start-up files are code.
            own = {"IPYTHONDIR": str(folder / "ipython").replace("$", "$$")}  # a template
            return KernelSpec(argv=_KERNEL, env=own, display_name="FeynTune", language="python")

    return AsyncKernelManager(
        kernel_spec_manager=ThisCheckout(),
        transport="ipc",
        ip=str(folder / "socket"),
        connection_file=str(folder / "connection.json"),
    )


def execute(of: Run, kernel: Kernel | None = None) -> None:
    """Execute a run's notebook; its executed copy is kept, also when it fails.

    Parameters
    ----------
    kernel
        To execute it in; ``None`` for one that ends with it.

    Raises
    ------
    UserError
        If a cell fails; :class:`feyntune.runs.signals.Preempted` if it was asked to end.
    """
    own = kernel or Kernel()
    try:
        _execute(of, own)
    finally:
        if kernel is None:
            own.end()


def _execute(of: Run, kernel: Kernel) -> None:
    import papermill  # takes two seconds, which a fresh stage does not pay

    source = NOTEBOOKS / f"{of.stage.name}.ipynb"
    parameters = _parameters(of, papermill.inspect_notebook(_template(source)))
    of.notebook.parent.mkdir(parents=True, exist_ok=True)
    partial = of.notebook.with_name(f".partial-{of.notebook.name}")
    _register(kernel, of)
    try:
        with signals.passed_on() as request:
            papermill.execute_notebook(
                _template(source),
                _template(partial),
                parameters=parameters,
                engine_name=_ENGINE,
                kernel_name="python3",  # what papermill wants to hear; the engine has its own
                cwd=str(NOTEBOOKS),
                progress_bar=False,
            )
    except papermill.PapermillExecutionError as error:
        said = " ".join(error.evalue.split())
        if error.ename == signals.Preempted.__name__:
            raise signals.Preempted(said) from None
        if error.ename in _OUT_OF_MEMORY or any(words in said for words in _NO_MEMORY):
            said = f"{said[:200]} ({_MORE_MEMORY})"
        # The last line of the traceback is the error itself; a UserError's is already advice.
        raise UserError(
            f"{of} failed in cell {error.exec_count}: "
            f"{error.ename}: {said} (executed notebook: {of.notebook})"
        ) from None
    except RuntimeError as error:
        # A cell that does not listen for SIGTERM ends with its kernel.
        if request.received:
            raise signals.Preempted("Asked to end: start again.") from None
        if type(error).__name__ == "DeadKernelError":
            raise KernelDied(
                f"{of} {_how_it_died(kernel.exit_status())} (executed notebook: {of.notebook})"
            ) from None
        raise
    finally:
        if partial.exists():
            os.replace(partial, of.notebook)


def executed(stage: str, *tags: str, **names: Any) -> dict[str, Any]:
    """Execute the cells of a notebook that have these tags in this process, as tests do.

    Its imports come first. So what stands in a notebook alone, such as the arguments of
    ``SFTConfig``, is tested and timed as it stands there.

    Parameters
    ----------
    names
        What the cells use, by name; they win over imports.

    Returns
    -------
    dict
        These names, and those that the cells define.
    """
    found: dict[str, Any] = {}
    for tag in ("imports", *tags):
        exec(code.tagged_cell(NOTEBOOKS / f"{stage}.ipynb", tag), found)
        found |= names
    return found


def _template(path: Path) -> str:
    """A path for papermill, which would fill in braces."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _how_it_died(status: int | None) -> str:
    """In words, by the exit status of a kernel; ``None`` where it is not known."""
    if status in (None, -signal.SIGKILL):
        return f"was killed by the system, most likely because memory ran out: {_MORE_MEMORY}."
    how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    return f"ended at once, its process crashed ({how}): run again; if it does, report it."


def _register(kernel: Kernel, of: Run) -> None:
    """Let papermill execute in ``kernel``, and say how far a training is as it goes on."""
    import click
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell, new_notebook
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import NBClientEngine, papermill_engines

    class Saying(PapermillNotebookClient):
        def process_message(self, msg, *args, **kwargs):
            said = (msg["content"].get("transient") or {}).get(progress.LINE)
            if said:
                click.echo(f"{of}: {said}", err=True)
            return super().process_message(msg, *args, **kwargs)

    class InKernel(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, **_):
            manager = kernel.manager()
            if kernel.started():
                cell = new_code_cell(_CLEARED.format(os.environ[records.FACTS_VARIABLE]))
                NotebookClient(new_notebook(cells=[cell]), km=manager).execute()
            resources = {"metadata": {"path": str(NOTEBOOKS)}}
            Saying(nb_man, km=manager, resources=resources).execute()

    papermill_engines.register(_ENGINE, InKernel)


def _parameters(of: Run, known: dict[str, Any]) -> dict[str, Any]:
    """The notebook's parameters, each of which it must declare: papermill only warns."""
    given: dict[str, Any] = {"experiment": of.experiment.name}
    if of.subject is not None:
        given[of.stage.per] = of.subject
    optional = {"overrides", "trial"} & set(known)
    if "overrides" in optional and of.experiment.parent is None:
        given["overrides"] = of.experiment.overrides
    if set(given) | optional != set(known):
        raise UserError(
            f"notebooks/{of.stage.name}.ipynb declares the parameters {sorted(known)}, "
            f"but is run with {sorted(given)}."
        )
    return given
