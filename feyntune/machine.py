"""The cores and the memory that this process may use, of this machine or of its container."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

CONTROL_GROUP = Path("/sys/fs/cgroup")


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
    return min(free, limit - int(used)) if limit is not None and used.isdigit() else free


def memory_for(threads: int) -> int:
    """Bytes for a process with this many threads: its part of the whole, if so much is free.

    Jobs side by side divide the cores among them, and the memory in the same way: the first one
    that starts must not take what the second one needs.
    """
    whole = psutil.virtual_memory().total
    whole = min(whole, _limit() or whole)
    return min(free_memory(), whole * min(threads, cores()) // cores())


def _limit() -> int | None:
    limit = _control_group("memory.max")
    return int(limit) if limit.isdigit() else None


def _control_group(name: str) -> str:
    """A limit of the container that this runs in (Linux, version 2), or nothing."""
    try:
        return (CONTROL_GROUP / name).read_text(encoding="ascii").strip()
    except OSError:
        return ""
