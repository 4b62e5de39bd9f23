"""The GPUs of this machine, found and reserved without touching one."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock, Timeout

from feyntune.errors import UserError

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
    """Give the processes started here ``count`` GPUs that nobody else of ours uses meanwhile.

    A machine without any is left as it is: its processor does the work. What asks for none sees
    none: the stand-ins give the same numbers on every machine. Waits until enough are free.

    Raises
    ------
    UserError
        If there are fewer.
    """
    there = gpus()
    if count > len(there) > 0:
        raise UserError(
            f"{count} GPUs are asked for, {len(there)} exist on this machine: ask for at most "
            f"{len(there)}."
        )
    before, taken = os.environ.get(VISIBLE), {}
    try:
        while len(taken) < count and there:
            _release(taken)  # all or none: two that wait for each other would wait for ever
            taken = _free(there, count)
            if len(taken) < count:
                time.sleep(1)
        if there:
            os.environ[VISIBLE] = ",".join(taken)
        yield
    finally:
        _release(taken)
        if there and before is None:
            del os.environ[VISIBLE]
        elif there:
            os.environ[VISIBLE] = before


def _free(names: list[str], count: int) -> dict[str, FileLock]:
    """Locks of up to ``count`` GPUs that nobody holds; one that this process holds is its own."""
    found: dict[str, FileLock] = {}
    # What a cluster gave to a job is the job's, and may bear the name of another job's.
    whose = f"{os.getuid()}-{os.environ.get('SLURM_JOB_ID', 'here')}"
    for name in names:
        file = f"feyntune-gpu-{whose}-{quote(name, safe='')}.lock"
        lock = FileLock(Path(tempfile.gettempdir()) / file, is_singleton=True)
        with suppress(Timeout):
            lock.acquire(timeout=0)
            found[name] = lock
        if len(found) == count:
            break
    return found


def _release(locks: dict[str, FileLock]) -> None:
    for lock in locks.values():
        lock.release()
