"""Asking over real HTTP: an endpoint that misbehaves in every way, and keys."""

from __future__ import annotations

import json
import os
import time
from itertools import pairwise

import pytest
from commercial_runs import (
    KEY,
    PROMPTS,
    VARIABLE,
    asked,
    frame,
    plans,
    provider,
    refusal,
    settings,
    words,
)
from misbehaving import USAGE, answer_to, completion, misbehaving

from feyntune.errors import UserError
from feyntune.evaluation.commercial import answers, asking, chat

pytestmark = pytest.mark.usefixtures("output")
FAULTS = {
    "prompt 1": ["too_many", "too_many"],
    "prompt 2": ["broken", "broken"],
    "prompt 3": ["stall"],
    "prompt 4": ["drop", "half"],
    "prompt 5": ["malformed", "html"],
    "prompt 6": ["empty"],
    "prompt 7": ["refusal"],
    "prompt 8": ["filtered"],
    "prompt 9": ["bad_prompt"],
}
MANY = [f"prompt {number}" for number in range(12)]


def test_nothing_is_lost_whatever_the_endpoint_does():
    with misbehaving(FAULTS) as endpoint:
        given = settings({"them": provider(endpoint.url)})
        plan = chat.plan_requests(given, MANY, ["two words"] * 12, words)
        chat.ask(given, plan)
        recorded = answers.read(given.paths.answers("them"))
        sent = len(endpoint.got)
        found = chat.answered(plan[0], recorded)
        assert found["status"].tolist() == (
            ["answered"] * 6 + ["empty", "refused", "refused", "rejected"] + ["answered"] * 2
        )
        expected = [
            answer_to(prompt) if status == "answered" else ""
            for prompt, status in zip(MANY, found["status"], strict=True)
        ]
        assert found["completion"].tolist() == expected
        # What could not be read is kept as it came.
        unread = [each["response"] for each in recorded if each["status"] == "malformed"]
        assert unread == ['{"choices": [{"message": {"content": "The', "<html>Please log in</html>"]
        assert sent == 12 + 2 + 2 + 1 + 2 + 2  # what was answered, and every failure before it
        # Everything has its answer: a second run sends nothing but what was rejected.
        chat.ask(given, chat.plan_requests(given, MANY, ["two words"] * 12, words))
        assert endpoint.prompts[sent:] == ["prompt 9"]


def test_an_answer_is_recorded_whole():
    with misbehaving() as endpoint:
        given = settings({"them": provider(endpoint.url)})
        answer = asked(given)["them"][0]
    assert answer["request"]["body"] == endpoint.got[0]["body"]
    assert answer["request"]["body"]["messages"] == [
        {"role": "system", "content": given.commercial.instruction},
        {"role": "user", "content": "prompt 0"},
    ]
    assert answer["request"]["body"]["temperature"] == 0.7
    assert answer["model"] == "served-2026-11" and answer["system_fingerprint"] == "fp_1"
    assert answer["usage"] == USAGE and answer["finish_reason"] == "stop"
    assert answer["answer"] == answer_to("prompt 0")
    assert answer["asked"].endswith("+00:00") and answer["seconds"] >= 0


def test_every_answer_is_on_the_disk_before_the_next_is_waited_for(monkeypatch):
    synced = []

    def fsync(descriptor):
        real(descriptor)
        synced.append(os.fstat(descriptor).st_size)

    real = os.fsync
    monkeypatch.setattr(os, "fsync", fsync)
    with misbehaving() as endpoint:
        given = settings({"them": provider(endpoint.url)}, parallel=1)
        asked(given)
    lines = given.paths.answers("them").read_bytes().splitlines(keepends=True)
    assert synced == [sum(map(len, lines[: n + 1])) for n in range(8)]


def test_retry_after_holds_this_request_and_all_that_follow():
    with misbehaving({"prompt 1": ["too_many"]}) as endpoint:
        asked(settings({"them": provider(endpoint.url)}, parallel=2))
    first = next(each["at"] for each in endpoint.got if each["prompt"] == "prompt 1")
    later = {each["prompt"]: each["at"] - first for each in endpoint.got}  # the last time of each
    assert later["prompt 1"] >= 1
    assert min(later[prompt] for prompt in PROMPTS[4:]) >= 1, "not only the one that was refused"


def test_requests_are_spread_over_time():
    with misbehaving() as endpoint:
        asked(settings({"them": provider(endpoint.url)}, requests_per_minute=1200))
    times = sorted(each["at"] for each in endpoint.got)
    assert times[-1] - times[0] >= 7 * 0.05 * 0.9
    assert all(later >= earlier for earlier, later in pairwise(times))


def test_no_more_requests_are_under_way_than_allowed():
    under_way, most = [0], [0]

    def slow(_, body):
        under_way[0] += 1
        most[0] = max(most[0], under_way[0])
        time.sleep(0.05)
        under_way[0] -= 1
        return 200, completion("text")

    with misbehaving({"*": slow}) as endpoint:
        asked(settings({"them": provider(endpoint.url)}, parallel=2))
    assert most[0] == 2


def test_failures_that_last_are_said_and_asked_again():
    with misbehaving({"prompt 3": ["broken"] * 4}) as endpoint:
        given = settings({"them": provider(endpoint.url)})
        assert refusal(given) == "them: 1 requests failed; run again to ask for them."
        assert frame(given)["status"].tolist().count("failed") == 1
        before = len(endpoint.got)
        asked(given)
        assert endpoint.prompts[before:] == ["prompt 3"]
    assert set(frame(given)["status"]) == {"answered"}


def test_an_endpoint_that_is_down_is_given_up():
    with misbehaving({prompt: ["broken"] * 99 for prompt in MANY[1:]}) as endpoint:
        given = settings({"them": provider(endpoint.url)}, retries=0, parallel=1)
        with pytest.raises(UserError, match=r"HTTP 500: oops\. Run again later"):
            chat.ask(given, chat.plan_requests(given, MANY, ["two words"] * 12, words))
        assert len(endpoint.got) == 1 + asking.GIVE_UP


def test_one_provider_that_fails_keeps_no_other_from_being_asked():
    with misbehaving({"*": "broken"}) as down, misbehaving() as up:
        given = settings({"down": provider(down.url), "up": provider(up.url)})
        assert "down: HTTP 500" in refusal(given)
        assert set(frame(given, "up")["status"]) == {"answered"}


# --- bad endpoints ------------------------------------------------------------------------------


def fixed(status, body):
    return {"*": lambda *_: (status, body)}


@pytest.mark.parametrize(
    "status, body, said",
    [
        (401, {"error": {"message": "Incorrect API key"}}, f"It refuses the key {VARIABLE}"),
        (403, {"error": {"message": "No access"}}, f"It refuses the key {VARIABLE}"),
        (404, {"error": {"message": "No such model"}}, "It does not know the model 'asked-for'"),
        (400, [{"error": {"message": "API key not valid"}}], "check key, model and parameters"),
        (402, {"error": {"message": "Insufficient Balance"}}, "HTTP 402: Insufficient Balance"),
        (422, {"detail": "extra field"}, "HTTP 422: extra field"),
        (200, {"content": [{"type": "text", "text": "Hi"}]}, "another dialect"),
        (200, {"error": {"message": "no credit"}}, "HTTP 200, error within the answer: no credit"),
        (200, {"choices": [{"message": {"content": [{"text": "Hi"}]}}]}, "another dialect"),
        (200, b"<html>Please log in</html>", "no JSON: <html>Please log in</html>"),
    ],
)  # fmt: skip
def test_an_endpoint_that_cannot_be_asked_is_asked_once(status, body, said):
    with misbehaving(fixed(status, body)) as endpoint:
        given = settings({"them": provider(endpoint.url)}, retries=1)
        message = refusal(given)
    assert message.startswith("them: ") and said in message
    assert set(endpoint.prompts) == {"prompt 0"} and len(endpoint.got) <= 2
    assert len(answers.read(given.paths.answers("them"))) == len(endpoint.got)


def test_a_wrong_key_that_is_called_a_bad_request_costs_no_answer():
    body = [{"error": {"message": "API key not valid"}}]
    with misbehaving(fixed(400, body)) as endpoint:
        given = settings({"them": provider(endpoint.url)})
        refusal(given)
    with misbehaving() as endpoint:
        given = settings({"them": provider(endpoint.url)})
        # Requests are known by their address too, which a new port changes: given the new one.
        path = given.paths.answers("them")
        again = [{**a, "key": plans(given)[0].requests[0].key} for a in answers.read(path)]
        path.write_text("".join(json.dumps(each) + "\n" for each in again))
        asked(given)
    assert list(frame(given)["status"]) == ["answered"] * len(PROMPTS)


def test_rejections_in_a_row_stop_a_provider_that_answered_before():
    faults = {prompt: ["bad_prompt"] * 9 for prompt in PROMPTS[1:]}
    with misbehaving(faults) as endpoint:
        given = settings({"them": provider(endpoint.url)}, parallel=1)
        assert "Run again later" in refusal(given)
    assert (frame(given)["status"] == "rejected").sum() == asking.GIVE_UP


def test_one_rejection_is_counted_and_after_three_not_asked_again():
    with misbehaving({PROMPTS[3]: ["bad_prompt"] * 9}) as endpoint:
        given = settings({"them": provider(endpoint.url)})
        for _ in range(4):
            asked(given)
        assert endpoint.prompts.count(PROMPTS[3]) == answers.TRIES
    assert list(frame(given)["status"]).count("rejected") == 1


def test_nothing_listens():
    given = settings({"them": provider("http://127.0.0.1:9/v1")}, retries=0)
    assert refusal(given).startswith("them: no connection (ConnectError")


def test_an_endpoint_that_only_stalls():
    with misbehaving({"*": "stall"}) as endpoint:
        given = settings({"them": provider(endpoint.url)}, retries=0)
        assert refusal(given).startswith("them: no answer within 0.6 s")


# --- keys ---------------------------------------------------------------------------------------


def test_the_key_is_sent_and_nothing_else_of_the_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-mine")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-mine")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Mine: custom-of-mine")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another-provider's")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with misbehaving() as endpoint:
        asked(settings({"them": provider(endpoint.url)}))
        asked(settings({"free": provider(endpoint.url, key_variable=None)}))
    sent = json.dumps([each["headers"] for each in endpoint.got])
    assert "of-mine" not in sent and "another-provider" not in sent
    assert [each["headers"]["authorization"] for each in endpoint.got[:8]] == [f"Bearer {KEY}"] * 8
    assert endpoint.got[-1]["headers"]["authorization"] == "Bearer none"
    assert os.environ["OPENAI_ORG_ID"] == "org-of-mine"


@pytest.mark.parametrize(
    "key", ["short", "with space in it", "tab\tin the key", "Schlüssel-langer"]
)
def test_what_cannot_be_a_key_is_refused_and_not_shown(monkeypatch, key):
    monkeypatch.setenv(VARIABLE, key)
    with misbehaving() as endpoint:
        message = refusal(settings({"them": provider(endpoint.url)}))
    assert message.startswith(VARIABLE) and key not in message
    assert endpoint.got == []


def test_a_key_is_scrubbed_from_whatever_holds_it():
    slashed = KEY.replace("/", "\\/")
    given = {"a": [f"x{KEY}y", {KEY: 1}], "b": slashed, "c": "sk-planted%2F0123456789%2Babcdef"}
    assert asking.scrub(given, {KEY}) == {
        "a": ["x[key]y", {"[key]": 1}], "b": "[key]", "c": "[key]"
    }  # fmt: skip
    assert asking.scrub([None, 1.5, True], {KEY}) == [None, 1.5, True]
