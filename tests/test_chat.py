"""Asking over real HTTP: an endpoint that misbehaves in every way, limits, keys, killed runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise

import openai
import pandas as pd
import pytest
from misbehaving import USAGE, answer_to, completion, misbehaving

from feyntune.analysis.tables import scores
from feyntune.errors import UserError
from feyntune.evaluation.commercial import answers, asking, chat, costs, keys
from feyntune.evaluation.commercial.replies import Reply, interpreted
from feyntune.experiment import load
from feyntune.experiment.endpoints import Limits, Price
from feyntune.experiment.sections import Statistics
from feyntune.paths import REPOSITORY
from feyntune.runs import records
from feyntune.runs.freshness import STALE, Survey
from feyntune.runs.stages import COMMERCIAL, STAGES

KEY = "sk-planted/0123456789+abcdef"
VARIABLE = "PLANTED_KEY"
PROMPTS = [f"prompt {number}" for number in range(8)]
TRUTHS = ["two words"] * 8
PRICE = {"prompt": 10.0, "answer": 100.0}
# By the usage that the endpoint states.
PER_ANSWER = (USAGE["prompt_tokens"] * 10 + USAGE["completion_tokens"] * 100) / 1e6


def words(texts, add_special_tokens):
    """A tokenizer of words."""
    assert add_special_tokens is False
    return {"input_ids": [text.split() for text in texts]}


@pytest.fixture(autouse=True)
def output(tmp_path, monkeypatch):
    """Results in a folder of the test's own; waits that no test needs are short."""
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path))
    monkeypatch.setenv(VARIABLE, KEY)
    monkeypatch.setattr(asking, "BACK_OFF", 0.01)
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.01)
    return tmp_path


def provider(url: str, **changes) -> dict:
    given = {
        "base_url": url,
        "model": "asked-for",
        "key_variable": VARIABLE,
        "price": PRICE,
        "parameters": {"temperature": 0.7, "max_tokens": 20},
    }
    return given | changes


def settings(providers: dict, **changes) -> load.Experiment:
    given = {
        "commercial.providers": providers,
        "commercial.limits": {"usd": 1.0, "tokens": None},
        "commercial.timeout_seconds": 0.6,
        "commercial.retries": 3,
        "commercial.parallel": 3,
    }
    return load.load("smoke", given | {f"commercial.{k}": v for k, v in changes.items()})


def plans(given, prompts=PROMPTS):
    return chat.planned(given, prompts, TRUTHS[: len(prompts)], words)


def asked(given, prompts=PROMPTS):
    """Ask, and return what is recorded of every provider."""
    chat.ask(given, plans(given, prompts))
    return {name: answers.read(given.paths.answers(name)) for name in given.commercial.present}


def frame(given, name="them", prompts=PROMPTS):
    plan = next(plan for plan in plans(given, prompts) if plan.name == name)
    return chat.answered(plan, answers.read(given.paths.answers(name)))


def refusal(given, prompts=PROMPTS) -> str:
    with pytest.raises(UserError) as raised:
        asked(given, prompts)
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


# --- a misbehaving endpoint -------------------------------------------------------------------

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
        plan = chat.planned(given, MANY, ["two words"] * 12, words)
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
        chat.ask(given, chat.planned(given, MANY, ["two words"] * 12, words))
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
            chat.ask(given, chat.planned(given, MANY, ["two words"] * 12, words))
        assert len(endpoint.got) == 1 + asking.GIVE_UP


def test_one_provider_that_fails_keeps_no_other_from_being_asked():
    with misbehaving({"*": "broken"}) as down, misbehaving() as up:
        given = settings({"down": provider(down.url), "up": provider(up.url)})
        assert "down: HTTP 500" in refusal(given)
        assert set(frame(given, "up")["status"]) == {"answered"}


def test_equal_prompts_are_asked_once():
    with misbehaving() as endpoint:
        given = settings({"them": provider(endpoint.url)})
        asked(given, ["same", "same", "other"])
        assert sorted(endpoint.prompts) == ["other", "same"]
    assert len(frame(given, prompts=["same", "same", "other"])) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"model": "another"},
        {"parameters": {"temperature": 0.8, "max_tokens": 20}},
        {"parameters": {"temperature": 0.7, "max_tokens": 21}},
    ],
)
def test_another_request_is_asked_anew_and_the_old_answer_is_kept(change):
    with misbehaving() as endpoint:
        asked(settings({"them": provider(endpoint.url)}), ["prompt 0"])
        recorded = asked(settings({"them": provider(endpoint.url, **change)}), ["prompt 0"])
    assert len(endpoint.got) == len(recorded["them"]) == 2


def test_another_instruction_or_address_is_another_request():
    first = settings({"them": provider("http://localhost:1/v1")})
    more = [
        settings({"them": provider("http://localhost:1/v1")}, instruction="Write on."),
        settings({"them": provider("http://localhost:2/v1")}),
    ]
    found = {plans(each, ["prompt 0"])[0].requests[0].key for each in [first, *more]}
    assert len(found) == 3


# --- bad endpoints ----------------------------------------------------------------------------


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
        (200, {"error": {"message": "no credit"}}, "JSON without choices: no credit"),
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
        assert endpoint.prompts.count(PROMPTS[3]) == answers.REJECTIONS
    assert list(frame(given)["status"]).count("rejected") == 1


def test_an_answer_without_usage_counts_as_dear_as_can_be_in_the_next_run_too():
    with misbehaving() as endpoint:
        given = settings({"them": provider(endpoint.url)})
        asked(given)
    plan = plans(given)[0]
    silent = [{**answer, "usage": None} for answer in plan.recorded]
    failed = [{**answer, "status": "failed"} for answer in silent]
    most = costs.total(costs.at_most(each, plan.provider) for each in plan.requests)
    assert costs.spent_at_most(silent, plan.provider) == most and most.usd > 8 * PER_ANSWER
    assert costs.spent_at_most(plan.recorded, plan.provider).usd == pytest.approx(8 * PER_ANSWER)
    assert costs.spent_at_most(failed, plan.provider).usd == 0


def test_nothing_listens():
    given = settings({"them": provider("http://127.0.0.1:9/v1")}, retries=0)
    assert refusal(given).startswith("them: no connection (ConnectError")


def test_an_endpoint_that_only_stalls():
    with misbehaving({"*": "stall"}) as endpoint:
        given = settings({"them": provider(endpoint.url)}, retries=0)
        assert refusal(given).startswith("them: no answer within 0.6 s")


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
    found = interpreted(reply)
    assert found["status"] == status
    assert (found["error"] is None) == (status in ("answered", "empty", "refused"))
    json.dumps(found)


# --- what it costs ----------------------------------------------------------------------------


def test_the_expected_cost_is_shown_before_anything_is_sent():
    given = settings({"them": provider("http://localhost:1/v1")})
    row = chat.overview(plans(given)).iloc[0]
    instruction = len(given.commercial.instruction.split())
    prompt_tokens = 8 * (instruction + 2 * costs.AROUND_MESSAGE + 2)
    assert (row["requests"], row["recorded"], row["prompts"]) == (8, 0, 8)
    assert (row["prompt tokens"], row["answer tokens"]) == (prompt_tokens, 16)
    assert float(row["US$ expected"]) == pytest.approx((prompt_tokens * 10 + 1600) / 1e6, abs=1e-4)
    sent = sum(len(given.commercial.instruction) + len(prompt) + 32 for prompt in PROMPTS)
    assert float(row["US$ at most"]) == pytest.approx((sent * 10 + 8 * 20 * 100) / 1e6, abs=1e-4)


@pytest.mark.parametrize(
    "limits, price, said",
    [
        ({"usd": 0.0, "tokens": None}, PRICE, "over the limit of 0.0. Raise commercial.limits.usd"),
        ({"usd": 0.001, "tokens": None}, PRICE, "over the limit of 0.001"),
        ({"usd": None, "tokens": 0}, PRICE, "over the limit of 0. Raise commercial.limits.tokens"),
        ({"usd": None, "tokens": 100}, PRICE, "tokens (earlier runs included)"),
        ({"usd": 9.0, "tokens": None}, None, "the price of them is not known"),
        ({"usd": 0.0, "tokens": 10_000}, None, "the price of them is not known"),
    ],
)
def test_a_limit_stops_the_run_before_anything_is_sent(limits, price, said):
    with misbehaving() as endpoint:
        given = settings({"them": provider(endpoint.url, price=price)}, limits=limits)
        message = refusal(given)
        assert message.startswith("Nothing was sent: ") and said in message
        assert endpoint.got == []


def test_an_unknown_price_is_held_by_a_limit_of_tokens():
    with misbehaving() as endpoint:
        given = settings(
            {"them": provider(endpoint.url, price=None)}, limits={"usd": 9.0, "tokens": 90_000}
        )
        asked(given)
    assert set(frame(given)["status"]) == {"answered"}
    plan = plans(given)[0]
    assert chat.account(plan, plan.recorded)["usd"] is None


def test_a_limit_of_zero_lets_go_what_costs_nothing():
    free = {"prompt": 0.0, "answer": 0.0}
    with misbehaving() as endpoint:
        given = settings(
            {"them": provider(endpoint.url, price=free)}, limits={"usd": 0.0, "tokens": None}
        )
        asked(given)
    assert set(frame(given)["status"]) == {"answered"}


def test_a_run_that_turns_out_dearer_is_stopped_within_its_limit():
    """The endpoint bills forty times what was expected."""
    dear = {"prompt_tokens": 1000, "completion_tokens": 400}
    faults = {"*": lambda *_: (200, completion("text", usage=dear))}
    each = (1000 * 10 + 400 * 100) / 1e6
    with misbehaving(faults) as endpoint:
        given = settings(
            {"them": provider(endpoint.url, parameters={"max_tokens": 400})},
            limits={"usd": 4.2 * each, "tokens": None},
        )
        assert "them: stopped before the limit in commercial.limits was passed" in refusal(given)
        assert 0 < len(endpoint.got) <= 4
        kept = answers.read(given.paths.answers("them"))
        assert costs.spent(kept, Price(**PRICE)).usd <= 4.2 * each
        # Another run does not get the limit once more.
        sent = len(endpoint.got)
        with pytest.raises(UserError):
            asked(given)
        assert len(endpoint.got) == sent
    assert len(kept) == sent


def test_cost_is_computed_from_the_usage_of_the_recorded_answers():
    with misbehaving() as endpoint:
        given = settings({"them": provider(endpoint.url)})
        asked(given)
    plan = plans(given)[0]
    found = chat.account(plan, plan.recorded)
    assert (found["prompt_tokens"], found["answer_tokens"]) == (8 * 40, 8 * 10)
    assert found["usd"] == pytest.approx(8 * PER_ANSWER)
    assert found["models"] == ["served-2026-11"] and found["fingerprints"] == ["fp_1"]
    assert found["statuses"] == {"answered": 8} and found["reason"] is None


def test_a_budget_waits_for_what_is_under_way():
    budget = costs.Budget(Limits(usd=None, tokens=10), costs.Cost())
    most = costs.Cost(0, 6)
    assert budget.reserve(most)
    budget.settle(most, costs.Cost(0, 4))
    assert budget.reserve(most) and budget.spent.tokens == 4
    budget.settle(most, costs.Cost(0, 5))
    assert not budget.reserve(most)


# --- recorded answers -------------------------------------------------------------------------

KILLED = """
import sys
from test_chat import chat, provider, settings, words
given = settings({"them": provider(sys.argv[1])}, parallel=2)
prompts = [f"prompt {number}" for number in range(40)]
chat.ask(given, chat.planned(given, prompts, ["two words"] * 40, words))
"""


def test_a_killed_run_asks_nothing_twice(output):
    def slow(_, body):
        time.sleep(0.05)
        return 200, completion(answer_to(body["messages"][-1]["content"]))

    prompts = [f"prompt {number}" for number in range(40)]
    truths = ["two words"] * 40
    with misbehaving({"*": slow}) as endpoint:
        given = settings({"them": provider(endpoint.url)}, parallel=2)
        path = given.paths.answers("them")
        search = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
        run = subprocess.Popen(
            [sys.executable, "-c", KILLED, endpoint.url],
            env={**os.environ, "PYTHONPATH": search, "FEYNTUNE_OUTPUT": str(output)},
        )
        while run.poll() is None and not (path.is_file() and path.read_bytes().count(b"\n") >= 5):
            time.sleep(0.01)
        run.send_signal(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
        kept = {each["key"]: each for each in answers.read(path)}
        assert 5 <= len(kept) < 40
        before = len(endpoint.got)
        with path.open("ab") as file:
            file.write(b'{"key": "cut off')  # what a kill within a write leaves
        chat.ask(given, chat.planned(given, prompts, truths, words))
        assert len(endpoint.got) - before == 40 - len(kept)
    recorded = answers.read(path)
    assert len(recorded) == len({each["key"] for each in recorded}) == 40
    assert all(each in recorded for each in kept.values()), "what was there is as it was"


def test_without_a_key_everything_is_computed_from_recorded_answers(monkeypatch):
    with misbehaving() as endpoint:
        given = settings({"them": provider(endpoint.url)})
        asked(given)
        before = frame(given)
    monkeypatch.delenv(VARIABLE)
    again = asked(given)  # nobody listens any more, and nobody is asked
    assert len(again["them"]) == 8
    assert frame(given).equals(before)
    plan = plans(given)[0]
    assert chat.account(plan, plan.recorded)["reason"] is None


def test_without_a_key_what_is_missing_is_said(monkeypatch):
    with misbehaving() as endpoint:
        given = settings({"them": provider(endpoint.url), "others": provider(endpoint.url)})
        asked(given, PROMPTS[:3])
        monkeypatch.delenv(VARIABLE)
        sent = len(endpoint.got)
        asked(given)
        assert len(endpoint.got) == sent
    found = frame(given)["status"].tolist()
    assert found == ["answered"] * 3 + ["not asked"] * 5
    plan = plans(given)[0]
    account = chat.account(plan, plan.recorded)
    assert account["reason"] == f"{VARIABLE} is not set" and account["waits_for"] == VARIABLE


def test_the_papers_providers_are_listed_and_none_is_asked_without_a_model(monkeypatch):
    paper = load.load("paper")
    found = {name: each.base_url for name, each in paper.commercial.present.items()}
    assert found == {
        "ChatGPT": "https://api.openai.com/v1",
        "Claude": "https://api.anthropic.com/v1/",
        "Gemini": "https://generativelanguage.googleapis.com/v1beta/openai/",
        "DeepSeek": "https://api.deepseek.com",
    }
    for each in paper.commercial.present.values():
        monkeypatch.setenv(each.key_variable, KEY)
    found = plans(paper)
    assert {plan.reason for plan in found} == {"no model is named in the experiment"}
    chat.ask(paper, found)


@pytest.mark.parametrize("line", ["{", "[]", '{"key": "a"}', "null", "\ufffd"])
def test_a_damaged_record_is_named(tmp_path, line):
    path = tmp_path / "them.jsonl"
    good = json.dumps({"key": "a", "status": "answered"})
    path.write_text(f"{good}\n{line}\n{good}\n")
    with pytest.raises(UserError, match="line 2 is no recorded answer"):
        answers.read(path)


def test_two_runs_at_once_do_not_write_one_file(tmp_path):
    path = tmp_path / "them.jsonl"
    with (
        answers.recording(path),
        pytest.raises(UserError, match="Another run is asking already"),
        answers.recording(path),
    ):
        pass


def test_a_key_that_came_makes_the_stage_stale(monkeypatch):
    given = settings({"them": provider("http://localhost:1/v1")})
    records.write(given.paths.asked, {"them": {"waits_for": VARIABLE}})
    assert STAGES[COMMERCIAL].waited(given) == f"{VARIABLE} is set now"
    monkeypatch.delenv(VARIABLE)
    assert STAGES[COMMERCIAL].waited(given) is None
    records.write(given.paths.asked, {"them": {"waits_for": None}})
    monkeypatch.setenv(VARIABLE, KEY)
    assert STAGES[COMMERCIAL].waited(given) is None
    assert Survey(given).state(COMMERCIAL, None)[0] != STALE


# --- keys -------------------------------------------------------------------------------------


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
    assert keys.scrubbed(given, {KEY}) == {
        "a": ["x[key]y", {"[key]": 1}], "b": "[key]", "c": "[key]"
    }  # fmt: skip
    assert keys.scrubbed([None, 1.5, True], {KEY}) == [None, 1.5, True]


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, said",
    [
        ({"base_url": "api.example.org"}, "must be an address like https://host/v1"),
        ({"base_url": "https://example.org/v1?key=sk-secret-1"}, "must hold no key"),
        ({"base_url": "https://me:sk-secret-1@example.org/v1"}, "must hold no key"),
        ({"base_url": "http://example.org/v1"}, "a key goes over https only"),
        ({"key_variable": "sk-secret-1"}, "the name of an environment variable, not a key"),
        ({"parameters": {}}, "must hold one of max_completion_tokens, max_tokens"),
        ({"parameters": {"max_tokens": 0}}, "a whole number above 0"),
        ({"parameters": {"max_tokens": 5, "max_completion_tokens": 5}}, "must hold one of"),
        ({"parameters": {"max_tokens": 5, "stream": True}}, "must not hold stream"),
        ({"price": {"prompt": -1.0, "answer": 1.0}}, "price.prompt"),
        ({"base_url": None, "model": "a/b", "key_variable": None}, "a plain name"),
        ({"base_url": None, "model": "x"}, "no one to give the key"),
    ],
)
def test_a_provider_that_cannot_be(change, said):
    with pytest.raises(UserError) as raised:
        settings({"them": provider("https://example.org/v1", **change)})
    assert said in str(raised.value) and "sk-secret-1" not in str(raised.value)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"limits": {"usd": None, "tokens": None}}, "usd or tokens must be set"),
        ({"limits": {"usd": -1.0, "tokens": None}}, "limits.usd"),
        ({"providers": {"../up": provider("https://example.org")}}, "providers"),
        ({"providers": {"base": provider("https://example.org")}}, "name of a model of ours"),
        ({"parallel": 0}, "parallel"),
    ],
)
def test_settings_that_cannot_be(change, said):
    given = {f"commercial.{key}": value for key, value in change.items()}
    with pytest.raises(UserError, match=said):
        load.load("smoke", given)


def test_a_provider_set_to_null_is_not_there():
    given = settings({"them": provider("https://example.org"), "stand-in": None})
    assert list(given.commercial.present) == ["them"]


# --- the table --------------------------------------------------------------------------------


def test_table_by_hand():
    def of(semscores, statuses=None):
        found = pd.DataFrame(
            {
                "id": ["a", "b", "c", "d"][: len(semscores)],
                "semscore": semscores,
                "semscore_with_prompt": [None if s is None else 0.9 for s in semscores],
                "tokens": [10] * len(semscores),
                "entropy_exp": [5.0] * len(semscores),
            }
        ).astype({"semscore": float, "semscore_with_prompt": float})
        return found.assign(status=statuses) if statuses else found

    answered = {"them": of([0.8, None, 0.6], ["answered", "refused", "answered"])}
    completed = {"base": of([0.1, 0.2, 0.3, 0.9]), "s1-LoRA-QKV": of([0.4, 0.6, 0.9])}
    completed["s1-LoRA-QKV"].loc[2, "tokens"] = 0
    asked = {
        "them": {"reason": None, "models": ["them-1", "them-2"]},
        "others": {"reason": "OTHERS_KEY is not set", "models": []},
    }
    sampled = Statistics(resamples=99, confidence=0.95, seed=1)
    table = scores.commercial(
        answered, completed, asked, ["base", "s1-LoRA-all", "s1-LoRA-QKV"], sampled
    )
    table = table.set_index("model")
    assert list(table.index) == ["them", "others", "base", "s1-LoRA-all", "s1-LoRA-QKV"]
    counts = ["prompts", "answers", "refused", "no_answer"]
    assert table.loc["them", counts].tolist() == [3, 2, 1, 0]
    assert table.loc["them", "semscore"] == pytest.approx(0.7)
    assert table.loc["them", "answered_as"] == "them-1, them-2"
    # Base is judged on the abstracts that the others were given, not on its fourth.
    assert table.loc["base", "prompts"] == 3
    assert table.loc["base", "semscore"] == pytest.approx(0.2)
    assert table.loc["others", "note"] == "not asked: OTHERS_KEY is not set"
    assert table.loc["others", counts].isna().all()
    assert table["note"].tolist() == ["", "not asked: OTHERS_KEY is not set", "", "not run", ""]
    # A completion without a token is no answer.
    assert table.loc["s1-LoRA-QKV", counts].tolist() == [3, 2, 0, 1]
    assert table.loc["s1-LoRA-QKV", "semscore"] == pytest.approx(0.5)
