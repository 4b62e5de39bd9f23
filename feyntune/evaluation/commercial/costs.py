"""What asking costs: expected before anything is sent, and kept below a limit while asking.

Tokens are counted by the experiment's tokenizer; a provider's differs by some percent. The most
that a request may cost is therefore bounded by its bytes: no tokenizer makes more tokens than that.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass

from feyntune.errors import UserError
from feyntune.evaluation.commercial.answers import NOT_ASKED, Answer, Request
from feyntune.evaluation.commercial.replies import FAILED, REJECTED, usage
from feyntune.experiment.endpoints import Limits, Price, Provider

MILLION = 1_000_000
UNBILLED = (FAILED, REJECTED, NOT_ASKED)
# Tokens around a message (its role, its end) that its text does not show.
AROUND_MESSAGE = 16
ROUNDING = 1e-9  # what adding and subtracting leaves of a zero


@dataclass(frozen=True)
class Cost:
    """Tokens sent and answered, and US dollars of those with a price.

    Attributes
    ----------
    unpriced
        Tokens without a price.
    untold
        Answers that did not say how many tokens they cost.
    """

    prompt: int = 0
    answer: int = 0
    usd: float = 0.0
    unpriced: int = 0
    untold: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt + self.answer

    @property
    def known(self) -> bool:
        return not (self.unpriced or self.untold)

    @property
    def shown(self) -> str:
        """The dollars for a table."""
        return f"{self.usd:.4f}" if self.known else "not known"

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
    told = map(billed, recorded)
    return total(priced(*each, price) if each else Cost(untold=1) for each in told)


def spent_at_most(recorded: Sequence[Answer], provider: Provider) -> Cost:
    """The same, with the highest possible cost for answers that did not state their usage."""
    return total(of_answer_at_most(answer, provider) for answer in recorded)


def of_answer_at_most(answer: Answer, provider: Provider) -> Cost:
    """What an answer cost, or may have cost if it did not say."""
    told = billed(answer)
    if told is None:
        return at_most(Request(answer["key"], answer["request"]["body"]), provider)
    return priced(*told, provider.price)


def billed(answer: Answer) -> tuple[int, int] | None:
    """Tokens sent and answered, as the provider counted them; ``None`` where it did not say."""
    told = usage(answer)
    refused = answer["status"] in UNBILLED or (answer.get("http_status") or 0) >= 400
    return (0, 0) if told is None and refused else told


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
