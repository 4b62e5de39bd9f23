"""Answers of providers: what a reply means, and the files that record every answer.

A file per provider, a line of JSON per answer, written to disk when it arrives and only ever
appended to. Answers are found by the content of their request, so a killed run asks nothing twice,
and every number can be computed from the file without a key.
"""

from __future__ import annotations

import json
import os
import textwrap
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
# Asking again would bring the same. After MALFORMED and FAILED a prompt is asked again, after
# REJECTED up to REJECTIONS times: some endpoints reject a wrong key or an empty account that way.
FINAL = (ANSWERED, EMPTY, REFUSED)
REJECTIONS = 3
NOT_ASKED = "not asked"
# HTTP errors of the request itself, which would come again. Others (key, account, rate, server) may
# be gone the next time.
ABOUT_REQUEST = (400, 413, 415, 422, 451)
LONGEST_ERROR = 200

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
    rejections: Counter[str] = Counter()
    for answer in recorded:
        key, status = answer["key"], answer["status"]
        rejections[key] += status == REJECTED
        if status in FINAL or rejections[key] >= REJECTIONS:
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


# --- what a reply means ------------------------------------------------------------------------


@dataclass(frozen=True)
class Reply:
    """What came back: an HTTP status and a body, or the problem that prevented them."""

    status: int | None
    body: bytes = b""
    retries: int | None = None
    problem: str | None = None


def interpret(reply: Reply) -> dict[str, Any]:
    """A reply as it is recorded: one of the statuses above, and everything it said."""
    text = reply.body.decode("utf-8", "replace")
    data = _json(text)
    found = {
        "status": FAILED,
        "answer": None,
        "finish_reason": None,
        "model": None,
        "system_fingerprint": None,
        "usage": None,
        "http_status": reply.status,
        "retries": reply.retries,
        "error": reply.problem,
        "response": text if data is None else data,
    }
    if reply.status is None:
        return found
    if reply.status >= 400:
        status = REJECTED if reply.status in ABOUT_REQUEST else FAILED
        said = _message(data) or text
        return found | {"status": status, "error": f"HTTP {reply.status}: {said}"}
    choice = _first_choice(data)
    if choice is None:
        said = "no JSON" if data is None else "JSON without choices"
        return found | {"status": MALFORMED, "error": f"{said}: {_message(data) or text}"}
    return (
        found
        | _read(choice)
        | {
            "model": data.get("model"),
            "system_fingerprint": data.get("system_fingerprint"),
            "usage": data.get("usage") if isinstance(data.get("usage"), dict) else None,
        }
    )


def shorten(text: str) -> str:
    """Shortened to a line, for a message."""
    return textwrap.shorten(text, LONGEST_ERROR, placeholder=" …").rstrip(".")


def _read(choice: dict[str, Any]) -> dict[str, Any]:
    message, reason = choice["message"], choice.get("finish_reason")
    content, refusal = message.get("content") or "", message.get("refusal") or ""
    # Some endpoints add what the filter found: "content_filter: RECITATION".
    filtered = str(reason or "").lower().startswith(("content_filter", "refusal"))
    status = ANSWERED if content.strip() else EMPTY
    status = REFUSED if refusal or filtered else status
    return {"status": status, "answer": content or refusal or None, "finish_reason": reason}


def _first_choice(data: Any) -> dict[str, Any] | None:
    """The first choice, if this is a chat completion; its text may be empty."""
    try:
        choice = data["choices"][0]
        texts = (choice["message"].get("content"), choice["message"].get("refusal"))
    except (TypeError, KeyError, IndexError, AttributeError):
        return None
    return choice if all(text is None or isinstance(text, str) for text in texts) else None


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _message(data: Any) -> str | None:
    """The text of an error; every provider puts it in another place."""
    if isinstance(data, list):
        data = data[0] if data else None
    if isinstance(data, dict):
        for key in ("error", "message", "detail"):
            if data.get(key):
                inner = data[key]
                return _message(inner) if isinstance(inner, dict) else str(inner)
    return None
