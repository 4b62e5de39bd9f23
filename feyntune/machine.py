"""The cores and the memory that this process may use, of this machine or of its container."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import psutil

CONTROL_GROUP = Path("/sys/fs/cgroup")
# Set by the engine: how many jobs it runs side by side on this machine.
WORKERS_VARIABLE = "FEYNTUNE_WORKERS"


def cores() -> int:
    """Processors this process may use: by affinity, and by a container's quota."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _control_group("cpu.max").split()
    allowed = int(quota[0]) // int(quota[1]) if len(quota) == 2 and quota[0] != "max" else here
    return max(1, min(here, allowed))


def free_memory() -> int:
    """Bytes that are free here, or that a container leaves of its limit."""
    free, used = psutil.virtual_memory().available, _control_group("memory.current")
    limit = _limit()
    if limit is None or not used.isdigit():
        return free
    return min(free, limit - int(used) + _file_cache())


def memory_of_a_job() -> int:
    """Bytes for this process: its part of the whole among the jobs side by side, if it is free.

    The first job that starts must not take what the second one needs.
    """
    whole = psutil.virtual_memory().total
    whole = min(whole, _limit() or whole)
    return min(free_memory(), whole // int(os.environ.get(WORKERS_VARIABLE, 1)))


def _file_cache() -> int:
    """Bytes that a container is charged for files it has read, which the system takes back."""
    lines = (line.split() for line in _control_group("memory.stat").splitlines())
    return sum(int(size) for name, size in lines if name in ("active_file", "inactive_file"))


def _limit() -> int | None:
    limit = _control_group("memory.max")
    return int(limit) if limit.isdigit() else None


def _control_group(name: str) -> str:
    """A limit of the container that this runs in (Linux, version 2), or nothing."""
    try:
        return (CONTROL_GROUP / name).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def return_memory() -> None:
    """Give the system back what this process freed; glibc keeps it otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
