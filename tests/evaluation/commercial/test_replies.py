"""What a reply means: finish reasons, contents, errors and usages of all kinds of provider."""

from __future__ import annotations

import json

import pytest
from misbehaving import completion

from feyntune.evaluation.commercial import replies
from feyntune.evaluation.commercial.replies import Reply


def meaning(body, status=200) -> dict:
    return replies.interpret(Reply(status, json.dumps(body).encode()))


@pytest.mark.parametrize(
    "reply, status",
    [
        (Reply(200, json.dumps(completion("text")).encode()), "answered"),
        (Reply(200, json.dumps(completion("text", finish_reason="length")).encode()), "answered"),
        (Reply(200, json.dumps(completion(" \n")).encode()), "empty"),
        (Reply(200, json.dumps(completion(None)).encode()), "empty"),
        (Reply(200, json.dumps(completion(None, refusal="No.")).encode()), "refused"),
        (Reply(200, json.dumps(completion("x", finish_reason="refusal")).encode()), "refused"),
        (Reply(200, json.dumps(completion(None) | {"choices": []}).encode()), "malformed"),
        (Reply(200, json.dumps(completion(None) | {"choices": None}).encode()), "malformed"),
        (Reply(200, b"[]"), "malformed"),
        (Reply(200, b""), "malformed"),
        (Reply(200, b"\xff\xfe"), "malformed"),
        (Reply(400, b"{}"), "rejected"),
        (Reply(429, b""), "failed"),
        (Reply(503, b"\xff"), "failed"),
        (Reply(None, problem="no connection"), "failed"),
    ],
)  # fmt: skip
def test_what_a_reply_means(reply, status):
    found = replies.interpret(reply)
    assert found["status"] == status
    assert (found["error"] is None) == (status in ("answered", "empty", "refused"))
    json.dumps(found)


@pytest.mark.parametrize(
    "reason, status",
    [
        *((reason, "answered") for reason in ("stop", "end_turn", "MAX_TOKENS", "model_length")),
        *((reason, "refused") for reason in ("content_filter: RECITATION", "SAFETY", "sensitive")),
        *((reason, "broken off") for reason in ("insufficient_system_resource", "error", "abort")),
        *((reason, "broken off") for reason in ("load", "timeout", "tool_calls", "new", None)),
    ],
)  # fmt: skip
def test_only_a_known_reason_to_end_makes_an_answer(reason, status):
    assert meaning(completion("We show that", finish_reason=reason))["status"] == status


def test_an_error_beside_the_text_is_an_answer_broken_off():
    within = completion("We show") | {"error": {"code": 502, "message": "went away"}}
    found = meaning(within)
    assert found["status"] == "broken off" and "went away" in found["error"]


@pytest.mark.parametrize("message", [None, {}, "text"])
def test_a_choice_without_a_message_means_what_its_reason_says(message):
    def body(reason):
        return {"choices": [{"finish_reason": reason, "message": message}]}

    assert meaning(body("content_filter"))["status"] == "refused"
    assert meaning(body("stop"))["status"] == ("empty" if message == {} else "malformed")


THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}


@pytest.mark.parametrize(
    "content, status, text",
    [
        ("<think>\nHm.\n</think>\n\nWe show", "answered", "We show"),
        ("Hm.\n</think>\n\nWe show", "answered", "We show"),
        (" <thinking>Hm.</thinking>We show", "answered", "We show"),
        ("[THINK]Hm.[/THINK]We show", "answered", "We show"),
        ("<think>\nHm, the user", "empty", None),
        ("<think>Hm.</think>", "empty", None),
        ("We <think> that", "answered", "We <think> that"),
        ([THOUGHT, {"type": "text", "text": "We "}, "show"], "answered", "We show"),
        ([THOUGHT], "empty", None),
        ([], "empty", None),
        ([{"type": "refusal", "refusal": "I will not."}], "refused", "I will not."),
        ([{"type": "image_url", "image_url": "x"}], "malformed", None),
        ({"text": "We show"}, "malformed", None),
        (7, "malformed", None),
    ],
)  # fmt: skip
def test_what_a_content_means(content, status, text):
    found = meaning(completion(content))
    assert found["status"] == status
    assert found["answer"] == text or found["answer"].strip() == text


@pytest.mark.parametrize(
    "http, error, status",
    [
        (400, {"message": "held back", "code": "content_filter", "param": "prompt"}, "refused"),
        (400, {"code": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}, "refused"),
        (400, {"message": "Content Exists Risk", "code": "invalid_request_error"}, "refused"),
        (400, {"message": "max_tokens is not supported", "code": "unsupported"}, "rejected"),
        (403, {"message": "flagged", "metadata": {"flagged_input": "x"}}, "refused"),
        (200, {"message": "quota of the day used up", "code": 429}, "failed"),
        (200, {"message": "too long", "code": "400"}, "rejected"),
        (200, {"message": "no credit"}, "failed"),
        (200, "no credit", "failed"),
    ],
)  # fmt: skip
def test_what_an_error_means(http, error, status):
    found = meaning({"error": error}, http)
    assert found["status"] == status and found["error"].startswith(f"HTTP {http}")


@pytest.mark.parametrize(
    "usage, tokens",
    [
        ({"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}, (100, 20)),
        # thoughts within, beside as the total shows, beside without a total, and alone
        ({"prompt_tokens": 100, "completion_tokens": 1820, "total_tokens": 1920,
          "completion_tokens_details": {"reasoning_tokens": 1800}}, (100, 1820)),
        ({"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 1920}, (100, 1820)),
        ({"prompt_tokens": 100, "completion_tokens": 20,
          "completion_tokens_details": {"reasoning_tokens": 1800}}, (100, 1820)),
        ({"prompt_tokens": 100, "completion_tokens": 0, "total_tokens": 1124}, (100, 1024)),
        ({"input_tokens": 100, "output_tokens": 20}, (100, 20)),
        ({"prompt_tokens": "100", "completion_tokens": 20.0}, (100, 20)),
        ({"prompt_tokens": 100}, None),
        ({"prompt_tokens": 100, "completion_tokens": -1}, None),
        ({"prompt_tokens": 100, "completion_tokens": 0}, None),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, None),
        ({"prompt_tokens": "many", "completion_tokens": True}, None),
        ({"promptTokenCount": 100, "candidatesTokenCount": 20}, None),
        (None, None),
    ],
)  # fmt: skip
def test_what_a_usage_means(usage, tokens):
    assert replies.usage({"usage": usage, "answer": "We show"}) == tokens
