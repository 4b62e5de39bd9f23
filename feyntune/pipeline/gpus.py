"""The GPUs of this machine, found and reserved without touching one."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock, Timeout

VISIBLE = "CUDA_VISIBLE_DEVICES"


def gpus() -> list[str]:
    """The NVIDIA GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    visible = os.environ.get(VISIBLE)
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    try:
        done = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True)
    except OSError:
        return []
    count = len(done.stdout.splitlines()) if done.returncode == 0 else 0
    return [str(index) for index in range(count)]


@contextmanager
def reserved(count: int) -> Iterator[None]:
    """Give the processes started here one GPU, or none, that nobody else of ours uses meanwhile.

    A machine without any is left as it is: its processor does the work. What asks for none sees
    none: the stand-ins give the same numbers on every machine. Waits until one is free.
    """
    there, before = gpus(), os.environ.get(VISIBLE)
    if not there:
        yield
        return
    with ExitStack() as stack:
        os.environ[VISIBLE] = stack.enter_context(_one_of(there)) if count else ""
        try:
            yield
        finally:
            if before is None:
                del os.environ[VISIBLE]
            else:
                os.environ[VISIBLE] = before


@contextmanager
def _one_of(names: list[str]) -> Iterator[str]:
    """The first GPU that nobody holds, held; waits for one."""
    while (found := _locked(names)) is None:
        time.sleep(1)
    name, lock = found
    try:
        yield name
    finally:
        lock.release()


def _locked(names: list[str]) -> tuple[str, FileLock] | None:
    """A GPU that nobody holds, with its lock; one that this process holds is its own."""
    # What a cluster gave to a job is the job's, and may bear the name of another job's.
    whose = f"{os.getuid()}-{os.environ.get('SLURM_JOB_ID', 'here')}"
    for name in names:
        file = f"feyntune-gpu-{whose}-{quote(name, safe='')}.lock"
        lock = FileLock(Path(tempfile.gettempdir()) / file, is_singleton=True)
        with suppress(Timeout):
            lock.acquire(timeout=0)
            return name, lock
    return None
