"""Recorded answers: every request and what came of it, on disk the moment it arrives.

A file per provider, a line of JSON per answer, only ever added to. Answers are found by the
content of their request, so a killed run asks nothing twice, and whoever has the file can compute
every number from it without a key.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from feyntune.errors import UserError

ANSWERED, EMPTY, REFUSED, REJECTED = "answered", "empty", "refused", "rejected"
MALFORMED, FAILED = "malformed", "failed"
# Asking again would bring the same; after MALFORMED and FAILED it is asked again, and after
# REJECTED so many times: a wrong key or an empty account may be what the endpoint means by it.
FINAL = (ANSWERED, EMPTY, REFUSED)
REJECTIONS = 3
NOT_ASKED = "not asked"

Answer = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """What is sent: ``body`` to the endpoint, and ``key``, the hash of both."""

    key: str
    body: dict[str, Any] = field(hash=False)


def read(path: Path) -> list[Answer]:
    """Every recorded answer, in order of arrival; a last line that was cut off is none.

    Raises
    ------
    UserError
        If any other line is no answer.
    """
    if not path.is_file():
        return []
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    found = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            answer = json.loads(line)
            answer["key"], answer["status"]
        except (ValueError, TypeError, KeyError):
            raise UserError(
                f"{path}, line {number} is no recorded answer. Restore the file, or remove the "
                "line to ask for it again."
            ) from None
        found.append(answer)
    return found


def final(recorded: Sequence[Answer]) -> dict[str, Answer]:
    """By request, the answer that counts: the first that asking again would not change."""
    found: dict[str, Answer] = {}
    rejections: Counter[str] = Counter()
    for answer in recorded:
        key, status = answer["key"], answer["status"]
        rejections[key] += status == REJECTED
        if status in FINAL or rejections[key] >= REJECTIONS:
            found.setdefault(key, answer)
    return found


class Log:
    """An open file of answers, to which several threads add."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def add(self, answer: Answer) -> None:
        """Write one answer and see it on the disk before returning."""
        line = json.dumps(answer, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        with self._lock:
            view = memoryview(line)
            while view:
                view = view[os.write(self._descriptor, view) :]
            os.fsync(self._descriptor)


@contextmanager
def recording(path: Path) -> Iterator[Log]:
    """Open the file to add answers; what a killed run left of a line is cut off.

    Raises
    ------
    UserError
        If another run is adding to it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=0):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                os.ftruncate(descriptor, path.read_bytes().rfind(b"\n") + 1)
                yield Log(descriptor)
            finally:
                os.close(descriptor)
    except Timeout:
        raise UserError(f"Another run is asking already: {path} is in use.") from None
