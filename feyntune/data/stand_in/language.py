"""Texts from a probabilistic grammar, with their exact likelihood.

A text is drawn so: a topic from the source's mixture; a walk over kinds of sentences (`moves`, the
same for all topics) until it reaches "end"; for each sentence a rule of its kind; for each slot of
the rule a term. The grammar must be unambiguous (given the topic, no two derivations give the same
text); then the probability of a text is the sum over topics of its derivation's probability.
"""

import itertools
import math
import re
from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import NamedTuple

TOPIC_SHARE = 0.75  # of slot terms come from the text's topic, the rest from the whole mixture
SHARED_SHARE = 0.6  # of sentences follow a rule that all fields share
ZIPF_SHIFT = 4.0  # the weight of the i-th term (i = 0, 1, ...) is 1 / (i + ZIPF_SHIFT)


@dataclass(frozen=True)
class Grammar:
    """The tables of a grammar; `grammar.yaml` documents their forms."""

    lexica: Mapping[str, Mapping[str, str]]
    fields: Mapping[str, str]
    rules: Mapping[str, Mapping[str, Sequence[str]]]
    phrases: Mapping[str, Sequence[str]]
    moves: Mapping[str, Mapping[str, float]]


class Likelihood(NamedTuple):
    """How likely an abstract is under its category's source (natural logarithms).

    `loglik` is log P(text); `loglik_end` is log P(the text ends here | text so far), so their
    difference is the log-probability that a text begins with this one. None: not grammar text.
    """

    sentences: int
    loglik: float | None
    loglik_end: float | None


def terms(text: str) -> tuple[str, ...]:
    """Split a semicolon-separated list of terms."""
    return tuple(" ".join(term.split()) for term in text.split(";"))


def zipf(items: Sequence[str], share: float = 1.0) -> dict[str, float]:
    """Give the items Zipf-like probabilities that sum to `share`."""
    weights = [1 / (rank + ZIPF_SHIFT) for rank in range(len(items))]
    total = sum(weights)
    return {item: share * w / total for item, w in zip(items, weights, strict=True)}


def add(*tables: Mapping[str, float]) -> dict[str, float]:
    """Sum probabilities item by item, in order of first appearance."""
    total: dict[str, float] = {}
    for item, p in itertools.chain.from_iterable(table.items() for table in tables):
        total[item] = total.get(item, 0.0) + p
    return total


class Choice:
    """One draw from items whose probabilities depend on the topic."""

    def __init__(self, by_topic: Sequence[Mapping[str, float]]) -> None:
        self.items = tuple(add(*by_topic))
        rows = [[table.get(item, 0.0) for item in self.items] for table in by_topic]
        self.cumulative = [list(itertools.accumulate(row)) for row in rows]
        self.logs = [
            [math.log(p) if p else -math.inf for p in row] for row in zip(*rows, strict=True)
        ]

    def draw(self, rng: Random, topic: int) -> tuple[str, list[float]]:
        """Return an item and its log-probability under each topic."""
        cumulative = self.cumulative[topic]
        i = bisect(cumulative, rng.random() * cumulative[-1])
        return self.items[i], self.logs[i]


class Source:
    """Texts of one category: a mixture of topics over a grammar."""

    def __init__(self, language: Grammar, mixture: Mapping[str, float]) -> None:
        self.prior = Choice([mixture])
        self.moves = language.moves
        own = [
            {slot: zipf(terms(text)) for slot, text in language.lexica[t].items()} for t in mixture
        ]
        self.slots = {slot: self._slot(slot, own, mixture) for slot in own[0]}
        self.rules = {
            kind: Choice([self._rules(language, by_field, language.fields[t]) for t in mixture])
            for kind, by_field in language.rules.items()
        }

    @staticmethod
    def _slot(slot: str, own: Sequence[Mapping], mixture: Mapping[str, float]) -> Choice:
        def scaled(lexicon: Mapping, share: float) -> dict[str, float]:
            return {term: share * p for term, p in lexicon[slot].items()}

        parts = zip(own, mixture.values(), strict=True)
        common = add(*(scaled(lexicon, (1 - TOPIC_SHARE) * share) for lexicon, share in parts))
        return Choice([add(scaled(lexicon, TOPIC_SHARE), common) for lexicon in own])

    @staticmethod
    def _rules(language: Grammar, by_field: Mapping, field: str) -> dict[str, float]:
        particular = by_field.get(field, ())
        share = SHARED_SHARE if particular else 1.0
        rules = add(zipf(by_field["shared"], share), zipf(particular, 1 - share))
        return add(*(flatten(rule, p, language.phrases) for rule, p in rules.items()))

    def fill(self, rule: str, rng: Random, topic: int) -> tuple[str, list[list[float]]]:
        """Put terms into a rule's slots; return the sentence and the terms' log-probabilities."""
        pieces, logs = list(split_rule(rule)), []
        for i in range(1, len(pieces), 2):
            pieces[i], log = self.slots[pieces[i]].draw(rng, topic)
            logs.append(log)
        return "".join(pieces), logs

    def draw(self, rng: Random) -> tuple[str, Likelihood]:
        """Draw a text and compute its exact log-likelihood, summed over topics."""
        topic_name, _ = self.prior.draw(rng, 0)
        topic = self.prior.items.index(topic_name)
        sentences: list[str] = []
        logs = [[log for (log,) in self.prior.logs]]
        walk, kind = 0.0, "start"
        while True:
            step = self.moves[kind]
            (kind,) = rng.choices(list(step), list(step.values()))
            ending = math.log(step[kind])
            walk += ending
            if kind == "end":
                break
            rule, log = self.rules[kind].draw(rng, topic)
            sentence, slot_logs = self.fill(rule, rng, topic)
            sentences.append(sentence)
            logs += [log, *slot_logs]
        by_topic = [math.fsum(column) for column in zip(*logs, strict=True)]
        top = max(by_topic)
        loglik = walk + top + math.log(sum(math.exp(x - top) for x in by_topic))
        return " ".join(sentences), Likelihood(len(sentences), loglik, ending)

    def title(self, rng: Random) -> str:
        """Draw a title: a sentence without an end (titles carry no likelihood)."""
        topic = self.prior.items.index(self.prior.draw(rng, 0)[0])
        text, _ = self.fill(self.rules["title"].draw(rng, topic)[0], rng, topic)
        return text[0].upper() + text[1:]


@cache
def split_rule(rule: str) -> tuple[str, ...]:
    """Split a rule into literal text (even places) and slot names (odd places)."""
    return tuple(re.split(r"\{(\w+)\}", rule))


def flatten(rule: str, p: float, phrases: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Replace phrases by their alternatives until only slots are left."""
    for name, alternatives in phrases.items():
        if f"{{{name}}}" in rule:
            options = zipf(alternatives, p).items()
            parts = [flatten(rule.replace(f"{{{name}}}", alt, 1), q, phrases) for alt, q in options]
            return add(*parts)
    return {rule: p}
