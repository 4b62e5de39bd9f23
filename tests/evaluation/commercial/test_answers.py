"""The files that record every answer."""

from __future__ import annotations

import json

import pytest
from misbehaving import completion

from feyntune.errors import UserError
from feyntune.evaluation.commercial import answers


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


def recorded(*statuses: str) -> list[dict]:
    """Answers to one request, after another was answered."""
    found = [{"key": "a", "status": status} for status in statuses]
    return [{"key": "other", "status": "answered"}, *found]


@pytest.mark.parametrize("status", ["broken off", "malformed", "rejected"])
def test_three_tries_then_final_as_that(status):
    assert "a" not in answers.final(recorded(status, status))
    assert answers.final(recorded(status, status, status))["a"]["status"] == status
    # Before the endpoint has answered anything, its key may be wrong.
    alone = recorded(status, status, status)[1:]
    assert ("a" in answers.final(alone)) == (status == "broken off")


def test_what_is_about_the_endpoint_is_never_final():
    assert "a" not in answers.final(recorded(*["failed"] * 9))


def test_an_answer_of_an_earlier_run_means_what_the_tables_say_now(tmp_path):
    body = completion("We show that the", finish_reason="insufficient_system_resource")
    path = tmp_path / "them.jsonl"
    old = {"key": "a", "status": "answered", "answer": "We show that the", "error": None}
    path.write_text(json.dumps(old | {"http_status": 200, "response": body}) + "\n")
    (found,) = answers.read(path)
    assert found["status"] == "broken off" and answers.final([found]) == {}
