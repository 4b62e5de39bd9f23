"""What a provider's reply means: finish reasons, contents, errors and usages, as tables of data.

Every provider writes them in its own way. What a table does not hold is on the safe side: the text
is not scored and the cost is not known.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

ANSWERED, EMPTY, REFUSED = "answered", "empty", "refused"
BROKEN, MALFORMED, REJECTED, FAILED = "broken off", "malformed", "rejected", "failed"
# Asking again would bring the same.
FINAL = (ANSWERED, EMPTY, REFUSED)
# About this one request: it is asked again, but not for ever. FAILED is about the endpoint (its
# key, account, rate, server, or the way to it), and is asked again whenever somebody runs.
COUNTED = (BROKEN, MALFORMED, REJECTED)
# A chat completion came: key, account and address are right.
SPOKEN = (*FINAL, BROKEN)

# --- finish reasons, and what errors say: in lower case, before any ":" ------------------------
WHOLE = ("stop", "stop_sequence", "end_turn", "eos", "eos_token", "complete", "completed")
CUT = ("length", "max_tokens", "max_output_tokens", "max_completion_tokens", "model_length")
FILTERED = (
    *("content_filter", "content_filtered", "content_policy_violation", "refusal", "sensitive"),
    *("safety", "recitation", "blocklist", "prohibited_content", "spii"),  # Gemini
    *("responsibleaipolicyviolation", "guardrail_intervened"),  # Azure, Bedrock
    *("data_inspection_failed", "datainspectionfailed", "content exists risk"),  # Qwen, DeepSeek
    "flagged_input",  # OpenRouter
)
# Any other reason, and none: it is not known whether the text is whole. Among them `error`,
# `insufficient_system_resource`, `abort`, and `load`, which Ollama says before its first answer.
MEANING = dict.fromkeys(WHOLE + CUT, ANSWERED) | dict.fromkeys(FILTERED, REFUSED)

# --- numbers of errors, in HTTP or within the body ---------------------------------------------
ABOUT_REQUEST = (400, 413, 415, 422, 451)

# --- contents ----------------------------------------------------------------------------------
# Types of a part, and the key of what it adds to the answer; None: thoughts, which are no answer.
PARTS = {
    **{"text": "text", "output_text": "text", "refusal": None},
    **{"thinking": None, "redacted_thinking": None, "reasoning": None},
}
# How models mark thoughts that their server leaves in the answer. The opening mark may be missing:
# the templates of some models have it in the prompt.
THOUGHTS = (
    *((f"<{name}>", f"</{name}>") for name in ("think", "thinking", "thought", "reasoning")),
    *(("[THINK]", "[/THINK]"), ("◁think▷", "◁/think▷")),
)

# --- usages ------------------------------------------------------------------------------------
SENT = ("prompt_tokens", "input_tokens")
SAID = ("completion_tokens", "output_tokens")
DETAILS = ("completion_tokens_details", "output_tokens_details")

LONGEST_ERROR = 200


@dataclass(frozen=True)
class Reply:
    """What came back: an HTTP status and a body, or the problem that prevented them."""

    status: int | None
    body: bytes = b""
    retries: int | None = None
    problem: str | None = None


def interpret(reply: Reply) -> dict[str, Any]:
    """A reply as it is recorded: everything it said, and what that means."""
    text = reply.body.decode("utf-8", "replace")
    data = _json(text)
    response = text if data is None else data
    return {
        **meaning(reply.status, response, reply.problem),
        "http_status": reply.status,
        "retries": reply.retries,
        "response": response,
    }


def meaning(http_status: int | None, response: Any, problem: str | None) -> dict[str, Any]:
    """One of the statuses above, the answer, and where there is none, why.

    Parameters
    ----------
    response
        The body: parsed if it is JSON, else its text.
    problem
        What kept a reply without HTTP status from coming.
    """
    body = response if isinstance(response, dict) else {}
    usage = body.get("usage")
    told = {
        "status": FAILED,
        "answer": None,
        "finish_reason": None,
        "model": body.get("model"),
        "system_fingerprint": body.get("system_fingerprint"),
        "usage": usage if isinstance(usage, dict) else None,
        "error": problem,
    }
    if http_status is None:
        return told
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if http_status >= 400 or (choice is None and body.get("error")):
        return told | _of_error(http_status, response)
    if not isinstance(choice, dict):
        said = "JSON without choices" if isinstance(response, dict | list) else "no JSON"
        return told | {"status": MALFORMED, "error": f"{said}: {_message(response)}"}
    return told | _of_choice(choice, choice.get("error") or body.get("error"))


def shorten(text: str) -> str:
    """Shortened to a line, for a message."""
    return textwrap.shorten(text, LONGEST_ERROR, placeholder=" …").rstrip(".")


def _of_error(http_status: int, response: Any) -> dict[str, Any]:
    """The meaning of an error; within a reply of HTTP 200 its own number counts."""
    said = {str(each).lower() for each in _walk(response)}
    number = http_status if http_status >= 400 else _number(response)
    if said & set(FILTERED):
        status = REFUSED
    elif number in ABOUT_REQUEST:
        status = REJECTED
    else:
        status = FAILED
    within = "" if http_status >= 400 else ", error within the answer"
    return {"status": status, "error": f"HTTP {http_status}{within}: {_message(response)}"}


def _of_choice(choice: dict[str, Any], error: Any) -> dict[str, Any]:
    reason = choice.get("finish_reason")
    found = {"finish_reason": reason}
    status = BROKEN
    if not error:
        status = MEANING.get(str(reason).lower().partition(":")[0].strip(), BROKEN)
    text, refusal, unread = _texts(choice.get("message"))
    found["answer"] = text or refusal or None
    if status == REFUSED or refusal:
        return found | {"status": REFUSED}
    if unread and not error and (status != BROKEN or reason is None):
        return found | {"status": MALFORMED, "answer": None, "error": unread}
    if status == BROKEN:
        why = f"broken off (finish_reason {json.dumps(reason)})"
        return found | {"status": BROKEN, "error": f"{why}: {_message(error)}" if error else why}
    return found | {"status": ANSWERED if text.strip() else EMPTY}


def _texts(message: Any) -> tuple[str, str, str | None]:
    """Answer without thoughts, refusal, and why the message cannot be read."""
    if not isinstance(message, dict):
        return "", "", f"a choice without a message: {json.dumps(message)}"
    content, refusal = message.get("content") or "", message.get("refusal") or ""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    text = ""
    for part in parts if isinstance(parts, list) else [parts]:
        part = {"type": "text", "text": part} if isinstance(part, str) else part
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in PARTS:
            return "", "", f"a content that is no text: {json.dumps(part)}"
        text += str(part.get(PARTS[kind]) or "") if PARTS[kind] else ""
        refusal += str(part.get("refusal") or "")
    return without_thoughts(text), refusal, None


def without_thoughts(text: str) -> str:
    """The answer after thoughts that stand before it; nothing if the thoughts do not end."""
    for opening, closing in THOUGHTS:
        if closing in text:
            return text.rpartition(closing)[2]
        if text.lstrip().startswith(opening):
            return ""
    return text


def usage(answer: dict[str, Any]) -> tuple[int, int] | None:
    """Tokens sent and answered, thoughts included, as billed; ``None`` if that is not known.

    Thoughts are within the tokens of the answer at some providers and beside them at others, where
    the total shows them, or a number of thoughts that is larger than that of the answer.
    """
    said = answer.get("usage") or {}
    sent, answered = _count(said, SENT), _count(said, SAID)
    if not sent or answered is None:
        return None
    details = next((said[name] for name in DETAILS if isinstance(said.get(name), dict)), {})
    thoughts = _count(details, ("reasoning_tokens",)) or 0
    beside = answered + thoughts if thoughts > answered else answered
    answered = max(beside, (_count(said, ("total_tokens",)) or 0) - sent)
    return None if answer.get("answer") and not answered else (sent, answered)


def _count(said: dict[str, Any], names: tuple[str, ...]) -> int | None:
    """A whole number, also as text or with a point; ``None`` if it is not there or is not one."""
    value = next((said[name] for name in names if said.get(name) is not None), None)
    try:
        number = None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None
    return int(number) if number is not None and number >= 0 and number.is_integer() else None


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _walk(value: Any) -> Iterator[Any]:
    """Every key and every value within JSON."""
    if isinstance(value, dict):
        yield from value
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _walk(each)
    else:
        yield value


def _number(response: dict[str, Any]) -> int | None:
    error = response["error"]
    return _count(error, ("code", "status")) if isinstance(error, dict) else None


def _message(data: Any) -> str:
    """The text of an error; every provider puts it in another place."""
    if isinstance(data, list) and data:
        return _message(data[0])
    if isinstance(data, dict):
        for key in ("error", "message", "detail"):
            if data.get(key):
                inner = data[key]
                return _message(inner) if isinstance(inner, dict) else str(inner)
    return data if isinstance(data, str) else json.dumps(data)
