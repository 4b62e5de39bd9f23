"""What asking costs: shown before, kept below a limit, computed from the answers."""

from __future__ import annotations

import pytest
from commercial_runs import (
    PER_ANSWER,
    PRICE,
    PROMPTS,
    asked,
    frame,
    plans,
    provider,
    refusal,
    settings,
)
from misbehaving import completion, misbehaving

from feyntune.errors import UserError
from feyntune.evaluation.commercial import answers, chat, costs
from feyntune.experiment.endpoints import Limits, Price

pytestmark = pytest.mark.usefixtures("output")


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


def test_a_budget_waits_for_what_is_under_way():
    budget = costs.Budget(Limits(usd=None, tokens=10), costs.Cost())
    most = costs.Cost(0, 6)
    assert budget.reserve(most)
    budget.settle(most, costs.Cost(0, 4))
    assert budget.reserve(most) and budget.spent.tokens == 4
    budget.settle(most, costs.Cost(0, 5))
    assert not budget.reserve(most)


def test_thoughts_beside_the_answer_are_billed_and_stop_the_run():
    """100 and 20 tokens are named, 1,920 in all are billed: the third answer passes the limit."""
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 1920}
    with misbehaving({"*": lambda *_: (200, completion("text", usage=usage))}) as endpoint:
        given = settings(
            {"them": provider(endpoint.url, price={"prompt": 1.0, "answer": 10.0})},
            limits={"usd": 0.05, "tokens": None},
            parallel=1,
        )
        assert "stopped before the limit" in refusal(given)
        assert len(endpoint.got) == 3
    plan = plans(given)[0]
    assert chat.account(plan, plan.recorded)["usd"] == pytest.approx(3 * 0.0183)


def test_a_usage_that_is_not_stated_is_unknown_and_not_zero():
    with misbehaving({"prompt 3": [lambda *_: (200, completion("text", usage=None))]}) as endpoint:
        given = settings({"them": provider(endpoint.url)})
        asked(given)
    plan = plans(given)[0]
    found = chat.account(plan, plan.recorded)
    assert (found["usd"], found["prompt_tokens"], found["answer_tokens"]) == (None, None, None)
    assert found["usage_untold"] == 1
    assert frame(given)["billed_answer_tokens"].isna().tolist() == [n == 3 for n in range(8)]


def test_a_reply_that_was_no_answer_is_paid_for_too():
    broken = (200, completion("We show", finish_reason="error"))
    with misbehaving({"prompt 3": [lambda *_: broken]}) as endpoint:
        given = settings({"them": provider(endpoint.url)})
        asked(given)
    plan = plans(given)[0]
    assert chat.account(plan, plan.recorded)["usd"] == pytest.approx(9 * PER_ANSWER)
