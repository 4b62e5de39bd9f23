"""A run that is asked to end: it saves a checkpoint, and says that it can be started again.

And one that must end because nobody waits for it any more, or because of Ctrl-C.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from feyntune.errors import UserError

# EX_TEMPFAIL of sysexits.h: not an error, try again.
REQUEUE_STATUS = 75
# What a shell says of a command that was ended by Ctrl-C.
INTERRUPTED_STATUS = 130
# The process id of the workflow engine: a job whose engine was killed ends too.
OWNER_VARIABLE = "FEYNTUNE_WORKFLOW_PID"
# For a job that was asked to end itself, to write a checkpoint after its engine has ended.
SECONDS_TO_SAVE = 60


class Preempted(UserError):
    """The run was asked to end, and did so after saving a checkpoint."""


class Request:
    """Whether SIGTERM came since :func:`listening` began."""

    def __init__(self):
        self.received = False

    def note(self, *_) -> None:
        self.received = True


@contextmanager
def listening() -> Iterator[Request]:
    """Take note of SIGTERM, which a cluster sends some time before it kills, instead of ending."""
    request = Request()
    with _heard(request.note, signal.SIGTERM):
        yield request


@contextmanager
def passed_on() -> Iterator[Request]:
    """Hand SIGTERM on to the processes started here, and wait for them instead of ending.

    Ctrl-C is the same to them; a second one waits for nothing.
    """
    request = Request()

    def pass_on(number: int, _) -> None:
        import psutil

        if number == signal.SIGINT:
            heed_interrupts()
        request.note()
        _asked.set()
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.Error):
                child.terminate()

    with _heard(pass_on, signal.SIGTERM, signal.SIGINT):
        yield request


_asked = threading.Event()


@contextmanager
def _heard(handler, *numbers: signal.Signals) -> Iterator[None]:
    """Only the main thread may say what a signal does; elsewhere nothing is noted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


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
    if _asked.is_set():
        # A cluster tells all processes of a job at once; the engine is the first to end.
        time.sleep(SECONDS_TO_SAVE)
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os._exit(1)


# --- Ctrl-C -----------------------------------------------------------------------------------


def heed_interrupts() -> None:
    """End by SIGINT also without a terminal: a shell lets what it starts with & ignore it."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


def supervised(command: list[str], environment: dict[str, str]) -> int:
    """Run the workflow engine to its end, and return its exit status.

    Its jobs hear nothing of a terminal's Ctrl-C, which would break them off anywhere: they are
    asked to end, as by a cluster, and save checkpoints. A second Ctrl-C waits for nothing.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C, once every process has ended.
    """
    engine = subprocess.Popen(
        command, env=environment, start_new_session=True, preexec_fn=_end_with_parent
    )
    try:
        return engine.wait()
    except KeyboardInterrupt:
        _wind_down(engine)
        raise


def _end_with_parent() -> None:
    """On Linux, let the engine be killed when this process is, and with it its jobs.

    Not terminated: Snakemake would wait for its running jobs, beside whatever is started next.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def _wind_down(engine: subprocess.Popen) -> None:
    """Let the engine start nothing more, ask its jobs to end, and kill what has not in time."""
    import psutil

    started: set[psutil.Process] = set()
    asked: set[psutil.Process] = set()
    until = time.monotonic() + SECONDS_TO_SAVE
    engine.send_signal(signal.SIGINT)
    try:
        while engine.poll() is None and time.monotonic() < until:
            with contextlib.suppress(psutil.Error):
                started |= set(psutil.Process(engine.pid).children(recursive=True))
            for process in started - asked:
                with contextlib.suppress(psutil.Error):
                    if _is_job(process.cmdline()):
                        asked.add(process)
                        process.terminate()
            time.sleep(0.2)
    finally:
        engine.kill()
        for process in started:
            with contextlib.suppress(psutil.Error):
                process.kill()
        engine.wait()


def _is_job(command: list[str]) -> bool:
    """Whether a process is `feyntune run`; the shell around it has all of it in one word."""
    return "feyntune" in command and "run" in command
