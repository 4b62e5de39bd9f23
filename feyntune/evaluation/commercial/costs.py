"""What asking costs: expected before anything is sent, and kept below a limit while asking.

Tokens are counted by the experiment's tokenizer; a provider's differs by some percent. The most
that a request may cost is therefore bounded by its bytes: no tokenizer makes more tokens than that.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass

from feyntune.errors import UserError
from feyntune.evaluation.commercial.answers import FAILED, REJECTED, Answer, Request
from feyntune.experiment.endpoints import Limits, Price, Provider

MILLION = 1_000_000
UNBILLED = (FAILED, REJECTED)
# Tokens around a message (its role, its end) that its text does not show.
AROUND_MESSAGE = 16
ROUNDING = 1e-9  # what adding and subtracting leaves of a zero


@dataclass(frozen=True)
class Cost:
    """Tokens sent and answered; US dollars of those with a price; how many have no price."""

    prompt: int = 0
    answer: int = 0
    usd: float = 0.0
    unpriced: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt + self.answer

    @property
    def shown(self) -> str:
        """The dollars for a table."""
        return "not known" if self.unpriced else f"{self.usd:.4f}"

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: Cost) -> Cost:
        return Cost(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))


def priced(prompt: int, answer: int, price: Price | None) -> Cost:
    """The cost of so many tokens."""
    if price is None:
        return Cost(prompt, answer, unpriced=prompt + answer)
    return Cost(prompt, answer, (prompt * price.prompt + answer * price.answer) / MILLION)


def at_most(request: Request, provider: Provider) -> Cost:
    """What one request may cost."""
    contents = [message["content"] for message in request.body["messages"]]
    prompt = sum(len(text.encode()) + AROUND_MESSAGE for text in contents)
    return priced(prompt, provider.answer_tokens, provider.price)


def total(costs: Iterable[Cost]) -> Cost:
    return sum(costs, Cost())


def spent(recorded: Sequence[Answer], price: Price | None) -> Cost:
    """What recorded answers cost, by the usage that came with them."""
    return total(priced(*usage(answer), price) for answer in recorded)


def spent_at_most(recorded: Sequence[Answer], provider: Provider) -> Cost:
    """The same, with the highest possible cost for answers that did not state their usage."""
    return total(_cost(answer, provider) for answer in recorded)


def _cost(answer: Answer, provider: Provider) -> Cost:
    told = priced(*usage(answer), provider.price)
    if told.tokens or answer["status"] in UNBILLED:
        return told
    return at_most(Request(answer["key"], answer["request"]["body"]), provider)


def usage(answer: Answer) -> tuple[int, int]:
    """Tokens sent and answered, as the provider counted them; zero where it did not say."""
    said = answer.get("usage") or {}
    counts = (said.get("prompt_tokens"), said.get("completion_tokens"))
    prompt, completion = (each if type(each) is int and each > 0 else 0 for each in counts)
    return prompt, completion


def check_limits(limits: Limits, before: Cost, expected: Mapping[str, Cost]) -> None:
    """Raise an error before anything is sent if the limits cannot be kept or would be passed.

    Parameters
    ----------
    before
        What earlier runs have cost.
    expected
        Expected cost of each provider that is to be asked.

    Raises
    ------
    UserError
        If a price is not known and there is no limit of tokens either, or if a limit is too low.
    """
    unknown = ", ".join(name for name, cost in expected.items() if cost.unpriced)
    if unknown and (limits.tokens is None or limits.usd == 0):
        raise UserError(
            f"Nothing was sent: the price of {unknown} is not known, so no limit in dollars can be "
            "held. Set commercial.providers.<name>.price, or commercial.limits.tokens."
        )
    if not expected:
        return
    whole = before + total(expected.values())
    for key, found, limit, shown in (
        ("usd", whole.usd, limits.usd, f"US$ {whole.usd:.4f}"),
        ("tokens", whole.tokens, limits.tokens, f"{whole.tokens:,} tokens"),
    ):
        if limit is not None and found > limit:
            raise UserError(
                f"Nothing was sent: it would come to about {shown} (earlier runs included), over "
                f"the limit of {limit:,}. Raise commercial.limits.{key}, ask for fewer "
                "commercial.abstracts, or set a provider to null."
            )


class Budget:
    """Allows a request only if it cannot pass the limits, whatever its answer costs.

    Parameters
    ----------
    before
        What earlier runs have cost.
    """

    def __init__(self, limits: Limits, before: Cost):
        self._limits, self._spent, self._reserved = limits, before, Cost()
        self._under_way = 0
        self._changed = threading.Condition()

    @property
    def spent(self) -> Cost:
        return self._spent

    def reserve(self, cost: Cost) -> bool:
        """Reserve what a request may cost at most; ``False`` if that passes a limit.

        Before that it waits for the requests under way, which may turn out cheaper.
        """
        with self._changed:
            while not self._fits(cost):
                if not self._under_way:
                    return False
                self._changed.wait()
            self._reserved += cost
            self._under_way += 1
            return True

    def settle(self, reserved: Cost, actual: Cost) -> None:
        """Replace what was reserved by the actual cost."""
        with self._changed:
            self._reserved -= reserved
            self._spent += actual
            self._under_way -= 1
            self._changed.notify_all()

    def _fits(self, cost: Cost) -> bool:
        whole = self._spent + self._reserved + cost
        within = [
            (whole.usd, self._limits.usd),
            (whole.tokens, self._limits.tokens),
        ]
        return all(limit is None or found <= limit + ROUNDING for found, limit in within)
