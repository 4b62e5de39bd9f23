"""Commercial and other OpenAI-compatible endpoints: what to ask them, and asking it.

Answers are recorded (`answers`), so a run asks only for those that are missing, and needs no key if
none is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from feyntune.errors import UserError
from feyntune.evaluation.commercial import answers, costs, replies, serving
from feyntune.evaluation.commercial.answers import Answer, Request
from feyntune.evaluation.commercial.asking import (
    ProviderClient,
    ProviderStopped,
    known_keys,
    missing_variable,
)
from feyntune.experiment.endpoints import Commercial, Provider
from feyntune.experiment.files import fingerprint
from feyntune.experiment.schema import Experiment


@dataclass(frozen=True)
class Plan:
    """What to ask one provider.

    Attributes
    ----------
    requests
        One per prompt; equal prompts have equal requests.
    recorded
        Every answer of this provider that earlier runs recorded, also to other requests.
    reason
        Why it cannot be asked now; ``None`` if it can.
    expected
        What asking for the missing answers should cost.
    """

    name: str
    provider: Provider
    requests: Sequence[Request]
    recorded: Sequence[Answer]
    reason: str | None
    expected: costs.Cost

    @property
    def todo(self) -> list[Request]:
        """The requests without an answer that counts, each once."""
        return _missing(self.requests, self.recorded)


def _missing(requests: Sequence[Request], recorded: Sequence[Answer]) -> list[Request]:
    """Without an answer that counts; first those that were tried least.

    Otherwise one that the endpoint never answers would be asked first, and stop every run.
    """
    done = answers.final(recorded)
    tried = Counter(answer["key"] for answer in recorded)
    missing = {each.key: each for each in requests if each.key not in done}
    return sorted(missing.values(), key=lambda each: tried[each.key])


def request(
    commercial: Commercial, provider: Provider, prompt: str, served: str | None = None
) -> Request:
    """The request for one prompt.

    Parameters
    ----------
    served
        Identifies the model that is served for a provider without an address.
    """
    messages = [
        {"role": "system", "content": commercial.instruction},
        {"role": "user", "content": prompt},
    ]
    body = {"model": provider.model, "messages": messages, **provider.parameters}
    return Request(fingerprint({"to": provider.base_url or served, "body": body}), body)


def plan_requests(
    experiment: Experiment,
    prompts: Sequence[str],
    truths: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
) -> list[Plan]:
    """What to ask each provider of the experiment. Nothing is sent.

    Parameters
    ----------
    truths
        The authors' continuations: answers are expected to be as long.
    """
    commercial = experiment.commercial
    sent = [len(ids) for ids in _ids(tokenizer, prompts)]
    around = len(_ids(tokenizer, [commercial.instruction])[0]) + 2 * costs.AROUND_MESSAGE
    expected = [len(ids) for ids in _ids(tokenizer, truths)]
    plans = []
    for name, provider in commercial.present.items():
        served = None if provider.base_url else serving.model_hash(experiment)
        requests = [request(commercial, provider, prompt, served) for prompt in prompts]
        recorded = answers.read(experiment.paths.answers(name))
        todo = {each.key for each in _missing(requests, recorded)}
        tokens = {each.key: n for each, *n in zip(requests, sent, expected, strict=True)}
        cost = costs.total(
            costs.priced(around + n, min(m, provider.answer_tokens), provider.price)
            for key, (n, m) in tokens.items()
            if key in todo
        )
        plans.append(Plan(name, provider, requests, recorded, _why_not(provider), cost))
    return plans


def _ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    return tokenizer(list(texts), add_special_tokens=False)["input_ids"]


def _why_not(provider: Provider) -> str | None:
    if provider.model is None:
        return "no model is named in the experiment"
    variable = missing_variable(provider)
    return f"{variable} is not set" if variable else None


def overview(plans: Sequence[Plan]) -> pd.DataFrame:
    """What is to be asked, what that should cost, and what it can cost at most."""
    rows = []
    for plan in plans:
        todo = [] if plan.reason else plan.todo
        expected = plan.expected if todo else costs.Cost()
        most = costs.total(costs.at_most(each, plan.provider) for each in todo)
        rows.append(
            {
                "provider": plan.name,
                "model": plan.provider.model or "",
                "prompts": len(plan.requests),
                "recorded": len({r.key for r in plan.requests} & {*answers.final(plan.recorded)}),
                "requests": len(todo),
                "prompt tokens": expected.prompt,
                "answer tokens": expected.answer,
                "US$ expected": expected.shown,
                "US$ at most": most.shown,
                "not asked": plan.reason or "",
            }
        )
    return pd.DataFrame(rows)


def ask(experiment: Experiment, plans: Sequence[Plan]) -> None:
    """Ask every provider that can be asked for the answers that are missing.

    Raises
    ------
    UserError
        Before anything is sent, if the limits cannot be held or would be passed; after every
        provider was asked, if one of them stopped or did not answer all. Answers are recorded in
        any case.
    """
    limits = experiment.commercial.limits
    before = costs.total(costs.spent_at_most(plan.recorded, plan.provider) for plan in plans)
    open_to = [plan for plan in plans if plan.todo and not plan.reason]
    costs.check_limits(limits, before, {plan.name: plan.expected for plan in open_to})
    budget = costs.Budget(limits, before)
    problems = [found for plan in open_to if (found := _ask(experiment, plan, budget))]
    if problems:
        raise UserError(" ".join(problems))


def _ask(experiment: Experiment, plan: Plan, budget: costs.Budget) -> str | None:
    """Ask one provider; return what went wrong."""
    commercial = experiment.commercial
    secrets = known_keys(commercial.present.values())
    path = experiment.paths.answers(plan.name)
    with answers.open_log(path) as log, _address(experiment, plan) as base_url:
        proven = any(answer["status"] in replies.SPOKEN for answer in plan.recorded)
        client = ProviderClient(
            plan.name, plan.provider, commercial, base_url, log, budget, secrets, proven=proven
        )
        try:
            _in_parallel(client, plan.todo, commercial.parallel)
        except ProviderStopped as stopped:
            return str(stopped)
    recorded = answers.read(path)
    last = {answer["key"]: answer["status"] for answer in recorded}
    # A rejected request is counted as such in the results, and is not an error here.
    left = sum(last[r.key] != replies.REJECTED for r in _missing(plan.requests, recorded))
    return f"{plan.name}: {left} requests failed; run again to ask for them." if left else None


@contextmanager
def _address(experiment: Experiment, plan: Plan) -> Iterator[str]:
    if plan.provider.base_url:
        yield plan.provider.base_url
        return
    with serving.serving(experiment, plan.provider.model) as address:
        yield address


def _in_parallel(client: ProviderClient, requests: Sequence[Request], parallel: int) -> None:
    """The first alone, to see whether key, model and dialect are right; then several at a time."""
    with tqdm(total=len(requests), desc=client.name, unit="answer") as progress:
        client.ask(requests[0])
        progress.update()
        pool = ThreadPoolExecutor(parallel)
        try:
            for done in as_completed([pool.submit(client.ask, each) for each in requests[1:]]):
                done.result()
                progress.update()
        finally:
            # Requests under way end and are recorded; the others are not sent.
            pool.shutdown(cancel_futures=True)


def answered(plan: Plan, recorded: Sequence[Answer]) -> pd.DataFrame:
    """The answer to every request of a plan: ``completion, status, model`` and tokens as billed.

    ``completion`` is empty where there is no answer, and ``status`` says why. Tokens are missing
    where the provider did not say them.
    """
    last = {answer["key"]: answer for answer in recorded} | answers.final(recorded)
    rows = []
    for each in plan.requests:
        found = last.get(each.key, {"status": answers.NOT_ASKED})
        text = found["answer"] if found["status"] == replies.ANSWERED else ""
        # Half a surrogate pair is valid JSON but cannot be written as UTF-8.
        text = text.encode("utf-8", "replace").decode().strip()
        sent, said = costs.billed(found) or (None, None)
        rows.append(
            {"completion": text, "status": found["status"], "model": found.get("model")}
            | {"billed_prompt_tokens": sent, "billed_answer_tokens": said}
        )
    return pd.DataFrame(rows)


def account(plan: Plan, recorded: Sequence[Answer]) -> dict[str, Any]:
    """What a provider was asked and answered: counts, models, days, tokens, cost.

    Tokens and cost are of every reply to these requests, also of those that were no answer, and
    ``None`` if one of them (``usage_untold`` of them) does not say what it cost.
    """
    done = answers.final(recorded)
    counted = [done[key] for key in {each.key: None for each in plan.requests} if key in done]
    states = Counter(answered(plan, recorded)["status"])
    keys = {each.key for each in plan.requests}
    cost = costs.spent([a for a in recorded if a["key"] in keys], plan.provider.price)
    lacking = bool(_missing(plan.requests, recorded))
    return {
        "prompts": len(plan.requests),
        "statuses": dict(sorted(states.items())),
        "reason": plan.reason if lacking else None,
        "waits_for": missing_variable(plan.provider) if lacking and plan.provider.model else None,
        "asked_for": plan.provider.model,
        "models": sorted({str(answer["model"]) for answer in counted if answer["model"]}),
        "fingerprints": sorted(
            {str(a["system_fingerprint"]) for a in counted if a["system_fingerprint"]}
        ),
        "first": min((answer["asked"] for answer in counted), default=None),
        "last": max((answer["asked"] for answer in counted), default=None),
        "cut_off": sum(answer["finish_reason"] in replies.CUT for answer in counted),
        "prompt_tokens": None if cost.untold else cost.prompt,
        "answer_tokens": None if cost.untold else cost.answer,
        "usage_untold": cost.untold,
        "usd": cost.usd if cost.known else None,
    }
