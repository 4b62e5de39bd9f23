"""A run that is asked to end: it saves a checkpoint, and says that it can be started again."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from feyntune.errors import UserError

# EX_TEMPFAIL of sysexits.h: not an error, try again.
REQUEUE_STATUS = 75


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
    """Take note of SIGTERM, which a cluster sends some time before it kills, instead of ending.

    Only the main thread may say what a signal does; elsewhere nothing is noted.
    """
    request = Request()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = signal.signal(signal.SIGTERM, request.note)
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, before)
