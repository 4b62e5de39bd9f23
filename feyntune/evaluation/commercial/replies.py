"""What a provider's reply means: an answer, none, a refusal, an error, or no chat completion."""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass
from typing import Any

from feyntune.evaluation.commercial.answers import (
    ANSWERED,
    EMPTY,
    FAILED,
    MALFORMED,
    REFUSED,
    REJECTED,
)

# Errors of the request alone, which the same request would meet again; of others (a key, an
# account, the rate, the server) the cause may be gone the next time.
ABOUT_REQUEST = (400, 413, 415, 422, 451)
LONGEST_ERROR = 200


@dataclass(frozen=True)
class Reply:
    """What came over the wire: a status and a body, or the problem that kept them from coming."""

    status: int | None
    body: bytes = b""
    retries: int | None = None
    problem: str | None = None


def interpreted(reply: Reply) -> dict[str, Any]:
    """A reply as it is recorded: its status among those of `answers`, and all that it said."""
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


def in_short(text: str) -> str:
    """A line of it, for a message."""
    return textwrap.shorten(text, LONGEST_ERROR, placeholder=" …").rstrip(".")


def _read(choice: dict[str, Any]) -> dict[str, Any]:
    message, reason = choice["message"], choice.get("finish_reason")
    content, refusal = message.get("content") or "", message.get("refusal") or ""
    # Some add what the filter found: "content_filter: RECITATION".
    filtered = str(reason or "").lower().startswith(("content_filter", "refusal"))
    status = ANSWERED if content.strip() else EMPTY
    status = REFUSED if refusal or filtered else status
    return {"status": status, "answer": content or refusal or None, "finish_reason": reason}


def _first_choice(data: Any) -> dict[str, Any] | None:
    """The first choice, if this is a chat completion with text or none in it."""
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
    """The words of an error, which every provider puts elsewhere."""
    if isinstance(data, list):
        data = data[0] if data else None
    if isinstance(data, dict):
        for key in ("error", "message", "detail"):
            if data.get(key):
                inner = data[key]
                return _message(inner) if isinstance(inner, dict) else str(inner)
    return None
