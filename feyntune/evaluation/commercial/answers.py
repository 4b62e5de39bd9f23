"""The files that record every answer of a provider.

A file per provider, a line of JSON per answer, written to disk when it arrives and only ever
appended to. Answers are found by the content of their request, so a killed run asks nothing twice,
and every number can be computed from the file without a key. What a reply means is worked out when
it is read, so that what is learnt about providers holds for answers of earlier runs too.
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
from feyntune.evaluation.commercial import replies

# After so many tries a request counts as what came of it. Tries before the endpoint has sent any
# chat completion do not count: key, account or address may have been wrong.
TRIES = 3
NOT_ASKED = "not asked"

Answer = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """What is sent: ``body`` to the endpoint, and ``key``, the hash of both."""

    key: str
    body: dict[str, Any] = field(hash=False)


def read(path: Path) -> list[Answer]:
    """Every recorded answer, in order of arrival, without a last line that was cut off.

    Raises
    ------
    UserError
        If any other line is not an answer.
    """
    if not path.is_file():
        return []
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    found = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            answer = json.loads(line)
            answer["key"], answer["status"]
            if "response" in answer:
                said = (answer["http_status"], answer["response"], answer["error"])
                answer |= replies.meaning(*said)
        except (ValueError, TypeError, KeyError):
            raise UserError(
                f"{path}, line {number} is not a recorded answer. Restore the file, or remove the "
                "line to ask for it again."
            ) from None
        found.append(answer)
    return found


def final(recorded: Sequence[Answer]) -> dict[str, Answer]:
    """By request, the answer that counts: the first that asking again would not change."""
    found: dict[str, Answer] = {}
    tries: Counter[str] = Counter()
    proven = False
    for answer in recorded:
        key, status = answer["key"], answer["status"]
        proven = proven or status in replies.SPOKEN
        tries[key] += proven and status in replies.COUNTED
        if status in replies.FINAL or tries[key] >= TRIES:
            found.setdefault(key, answer)
    return found


class AnswerLog:
    """An open file of answers, to which several threads append."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def add(self, answer: Answer) -> None:
        """Write one answer to the disk before returning."""
        line = json.dumps(answer, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        with self._lock:
            view = memoryview(line)
            while view:
                view = view[os.write(self._descriptor, view) :]
            os.fsync(self._descriptor)


@contextmanager
def open_log(path: Path) -> Iterator[AnswerLog]:
    """Open the file to append answers, after cutting off a line that a killed run left unfinished.

    Raises
    ------
    UserError
        If another run is appending to it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=0):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                os.ftruncate(descriptor, path.read_bytes().rfind(b"\n") + 1)
                yield AnswerLog(descriptor)
            finally:
                os.close(descriptor)
    except Timeout:
        raise UserError(f"Another run is asking already: {path} is in use.") from None
