"""What a reply means, and the files that record every answer."""

from __future__ import annotations

import json

import pytest
from misbehaving import completion

from feyntune.errors import UserError
from feyntune.evaluation.commercial import answers
from feyntune.evaluation.commercial.answers import Reply


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
    found = answers.interpret(reply)
    assert found["status"] == status
    assert (found["error"] is None) == (status in ("answered", "empty", "refused"))
    json.dumps(found)


@pytest.mark.parametrize("line", ["{", "[]", '{"key": "a"}', "null", "\ufffd"])
def test_a_damaged_record_is_named(tmp_path, line):
    path = tmp_path / "them.jsonl"
    good = json.dumps({"key": "a", "status": "answered"})
    path.write_text(f"{good}\n{line}\n{good}\n")
    with pytest.raises(UserError, match="line 2 is not a recorded answer"):
        answers.read(path)


def test_two_runs_at_once_do_not_write_one_file(tmp_path):
    path = tmp_path / "them.jsonl"
    with (
        answers.open_log(path),
        pytest.raises(UserError, match="Another run is asking already"),
        answers.open_log(path),
    ):
        pass
