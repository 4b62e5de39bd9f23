"""Experiments with commercial providers, for tests that ask them."""

from __future__ import annotations

import pytest
from misbehaving import USAGE

from feyntune.errors import UserError
from feyntune.evaluation.commercial import answers, chat
from feyntune.experiment import load

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
    return load.with_settings("smoke", given | {f"commercial.{k}": v for k, v in changes.items()})


def plans(given, prompts=PROMPTS):
    return chat.plan_requests(given, prompts, TRUTHS[: len(prompts)], words)


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
