"""Work in processes of their own, results in order, little of it in memory at once."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing import get_context, parent_process
from typing import TypeVar

from feyntune.errors import UserError

Task, Result = TypeVar("Task"), TypeVar("Result")
# More would wait for the disk, and each takes memory.
MOST = 4


def in_order(function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
    """Apply a function to tasks on all cores, up to four.

    A single task, or any on a single core, is done in this process.

    Parameters
    ----------
    function
        Importable by name, as are the functions inside a :class:`functools.partial`.
    tasks
        Asked for the next one only as results are taken, so they need not fit in memory.

    Yields
    ------
    result
        In the order of the tasks. What a task raises is raised here.

    Raises
    ------
    UserError
        If a worker was ended from outside.
    """
    tasks, count = iter(tasks), min(cores(), MOST)
    first = list(islice(tasks, 2))
    if len(first) < 2 or count < 2:
        yield from map(function, chain(first, tasks))
        return
    # Spawned, for a notebook's kernel has threads, whose locks a fork would copy as they are.
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_begin)
    waiting: deque = deque()
    try:
        for task in chain(first, tasks):
            waiting.append(pool.submit(function, task))
            if len(waiting) > 2 * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise UserError(
            "A worker process was ended from outside, most likely for want of memory: end other "
            "programs and run again."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def cores() -> int:
    """The cores that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def _begin() -> None:
    """In a worker: leave Ctrl-C to the parent, and end when it ends, however that happens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent_process().join()
    os._exit(1)
