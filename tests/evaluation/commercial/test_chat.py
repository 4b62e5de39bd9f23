"""What is asked and what is not: recorded answers, killed runs, missing keys."""

from __future__ import annotations

import pytest
from commercial_runs import (
    KEY,
    PROMPTS,
    VARIABLE,
    asked,
    frame,
    plans,
    provider,
    settings,
    words,
)
from misbehaving import answer_to, completion, misbehaving

from feyntune.evaluation.commercial import answers, chat
from feyntune.experiment import load
from feyntune.runs import records
from feyntune.runs.freshness import STALE, Freshness
from feyntune.runs.stages import COMMERCIAL, STAGES, Run

pytestmark = pytest.mark.usefixtures("output")


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


def test_a_killed_run_asks_nothing_twice():
    """The file as it is while requests are under way is what a kill at that moment leaves."""
    at_requests = []

    def watched(_, body):
        if path.is_file():
            at_requests.append(path.read_bytes())
        return 200, completion(answer_to(body["messages"][-1]["content"]))

    prompts = [f"prompt {number}" for number in range(40)]
    truths = ["two words"] * 40
    with misbehaving({"*": watched}) as endpoint:
        given = settings({"them": provider(endpoint.url)}, parallel=2)
        path = given.paths.answers("them")
        chat.ask(given, chat.plan_requests(given, prompts, truths, words))
        found = next(content for content in at_requests if content.count(b"\n") >= 5)
        path.write_bytes(found)
        kept = {each["key"]: each for each in answers.read(path)}
        assert 5 <= len(kept) < 40
        before = len(endpoint.got)
        with path.open("ab") as file:
            file.write(b'{"key": "cut off')  # what a kill within a write leaves
        chat.ask(given, chat.plan_requests(given, prompts, truths, words))
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


def test_a_key_that_came_makes_the_stage_stale(monkeypatch):
    given = settings({"them": provider("http://localhost:1/v1")})
    records.write(given.paths.asked, {"them": {"waits_for": VARIABLE}})
    assert STAGES[COMMERCIAL].waited(given) == f"{VARIABLE} is set now"
    monkeypatch.delenv(VARIABLE)
    assert STAGES[COMMERCIAL].waited(given) is None
    records.write(given.paths.asked, {"them": {"waits_for": None}})
    monkeypatch.setenv(VARIABLE, KEY)
    assert STAGES[COMMERCIAL].waited(given) is None
    assert Freshness(given).status(Run(given, STAGES[COMMERCIAL])).state != STALE
