"""Texts of a grammar: their likelihood is exact, and no text has two derivations."""

import itertools
import math
import re
from collections import Counter
from functools import cache
from random import Random

import pytest

from feyntune.data.stand_in import corpus, language
from feyntune.data.stand_in.language import Grammar, Source, flatten, terms


def zipf_weights(items: list[str]) -> list[tuple[str, float]]:
    norm = sum(1 / (i + language.ZIPF_SHIFT) for i in range(len(items)))
    return [(item, 1 / (i + language.ZIPF_SHIFT) / norm) for i, item in enumerate(items)]


def inside(text: str, g: Grammar, mixture: dict[str, float]) -> float:
    """Sum the probability of all derivations of a text by a chart over its characters.

    It reads only the tables of the grammar and expands phrases while it parses, so it shares
    nothing with the generator but the definition of the source.
    """

    def under(topic: str) -> float:
        @cache
        def expand(name: str, start: int) -> Counter:
            if name in g.phrases:
                ends = Counter()
                for alternative, p in zipf_weights(g.phrases[name]):
                    for end, q in sequence(alternative, start).items():
                        ends[end] += p * q
                return ends
            ends = Counter()
            shares = [(topic, language.TOPIC_SHARE)]
            shares += [(t, (1 - language.TOPIC_SHARE) * w) for t, w in mixture.items()]
            for t, share in shares:
                for term, p in zipf_weights(terms(g.lexica[t][name])):
                    if text.startswith(term, start):
                        ends[start + len(term)] += share * p
            return ends

        def sequence(rule: str, start: int) -> Counter:
            ends = Counter({start: 1.0})
            for i, piece in enumerate(re.split(r"\{(\w+)\}", rule)):
                after = Counter()
                for position, p in ends.items():
                    if i % 2 == 0 and text.startswith(piece, position):
                        after[position + len(piece)] += p
                    elif i % 2:
                        for end, q in expand(piece, position).items():
                            after[end] += p * q
                ends = after
            return ends

        @cache
        def rest(kind: str, start: int) -> float:
            total = 0.0
            for following, move in g.moves[kind].items():
                if following == "end":
                    total += move * (start == len(text))
                    continue
                begin = start + (kind != "start")
                if kind != "start" and text[start : start + 1] != " ":
                    continue
                by_field = g.rules[following]
                own = by_field.get(g.fields[topic], ())
                share = language.SHARED_SHARE if own else 1.0
                weighted = [(r, share * p) for r, p in zipf_weights(by_field["shared"])]
                weighted += [(r, (1 - share) * p) for r, p in zipf_weights(own)]
                for rule, p in weighted:
                    for end, q in sequence(rule, begin).items():
                        total += move * p * q * rest(following, end)
            return total

        return rest("start", 0)

    return math.fsum(weight * under(topic) for topic, weight in mixture.items())


@pytest.mark.parametrize("category", ["hep-th", "hep-ph", "gr-qc", "q-bio.NC", "cs.LG", "math.QA"])
def test_likelihood_equals_a_chart_that_sums_over_all_derivations(category):
    rng = Random(11)
    mixture = dict(corpus.lookup(corpus.TABLES["sources"], category))
    for _ in range(8):
        text, known = corpus.source(category).draw(rng)
        assert math.log(inside(text, corpus.ENGLISH, mixture)) == pytest.approx(
            known.loglik, rel=1e-9
        )


TOY = Grammar(
    lexica={
        "a": {"objects": "branes; strings", "methods": "duality; flux; a trick"},
        "b": {"objects": "strings; cells", "methods": "flux"},
    },
    fields={"a": "theory", "b": "life"},
    rules={
        "aim": {"shared": ("We study {np}.",), "theory": ("We derive {objects} from {methods}.",)},
        "closing": {"shared": ("So much for {objects}.", "{methods} is next."), "life": ("End.",)},
    },
    phrases={"np": ("{objects}", "old {objects}")},
    moves={
        "start": {"aim": 0.7, "closing": 0.3},
        "aim": {"closing": 0.6, "end": 0.4},
        "closing": {"end": 1.0},
    },
)
TOY_MIXTURE = {"a": 0.8, "b": 0.2}


def toy_texts() -> dict[str, float]:
    """Every text of the toy grammar, with its probability by the independent chart."""

    def sentences(kind: str) -> set[str]:
        out = set()
        for rule in itertools.chain.from_iterable(TOY.rules[kind].values()):
            for flat in flatten(rule, 1.0, TOY.phrases):
                pieces = re.split(r"\{(\w+)\}", flat)
                slots = [
                    {t for lexicon in TOY.lexica.values() for t in terms(lexicon[name])}
                    for name in pieces[1::2]
                ]
                for chosen in itertools.product(*slots):
                    words = iter(chosen)
                    out.add("".join(next(words) if i % 2 else p for i, p in enumerate(pieces)))
        return out

    def continuations(kind: str) -> set[str]:
        out = set()
        for following in TOY.moves[kind]:
            if following == "end":
                out.add("")
                continue
            pairs = itertools.product(sentences(following), continuations(following))
            out |= {f" {sentence}{tail}" for sentence, tail in pairs}
        return out

    texts = {text[1:]: inside(text[1:], TOY, TOY_MIXTURE) for text in continuations("start")}
    return {text: p for text, p in texts.items() if p}  # some mix the rules of two topics


def test_probabilities_of_all_texts_of_a_small_grammar_sum_to_one():
    texts = toy_texts()
    assert math.fsum(texts.values()) == pytest.approx(1, rel=1e-12)
    source, rng = Source(TOY, TOY_MIXTURE), Random(3)
    drawn = [source.draw(rng) for _ in range(4000)]
    for text, known in drawn[:400]:
        assert math.exp(known.loglik) == pytest.approx(texts[text], rel=1e-9)
        begins = math.fsum(p for other, p in texts.items() if other.startswith(text))
        assert math.exp(known.loglik - known.loglik_end) == pytest.approx(begins, rel=1e-9)
    counts = Counter(text for text, _ in drawn)  # and texts do occur as often as they should
    chi2 = sum((counts[t] - 4000 * p) ** 2 / (4000 * p) for t, p in texts.items())
    assert chi2 < len(texts) + 5 * math.sqrt(2 * len(texts))


def test_no_two_derivations_give_the_same_sentence():
    """Sardinas and Patterson's construction over all rules and all terms at once."""
    grammar = corpus.ENGLISH
    everything = [r for kind in grammar.moves if kind != "start" for r in rules_of(kind)]
    flats = sorted({f for rule in everything for f in flatten(rule, 1.0, grammar.phrases)})
    sentences = [tuple(p for p in language.split_rule(f)) for f in flats]
    vocabulary = {
        slot: sorted({t for lexicon in grammar.lexica.values() for t in terms(lexicon[slot])})
        for slot in grammar.lexica["qft"]
    }
    assert not ambiguous(sentences, vocabulary)


def test_the_ambiguity_check_finds_ambiguity():
    vocabulary = {"x": ["a", "a b"], "y": ["b c", "c"]}
    assert ambiguous([("", "x", " ", "y", ".")], vocabulary)
    assert ambiguous([("A ", "x", "."), ("A a b.",)], vocabulary)
    assert not ambiguous([("", "x", "; ", "y", "."), ("A ", "x", ".")], vocabulary)


def rules_of(kind: str) -> list[str]:
    return [rule for rules in corpus.ENGLISH.rules.get(kind, {}).values() for rule in rules]


def ambiguous(sentences: list[tuple[str, ...]], vocabulary: dict[str, list[str]]) -> list:
    """Find two different derivations of one text. A sentence alternates text and slot names."""
    ahead = {
        (s, t): [
            (x, y)
            for x in vocabulary[s]
            for y in vocabulary[t]
            if x != y and (x.startswith(y) or y.startswith(x))
        ]
        for s in vocabulary
        for t in vocabulary
    }
    common = {
        (s, t): set(vocabulary[s]) & set(vocabulary[t]) for s in vocabulary for t in vocabulary
    }
    seen = set()

    def clash(a: tuple, b: tuple, owed: str) -> bool:
        """Can b yield `owed` followed by what a yields? Both are (is_slot, value) sequences."""
        if (a, b, owed) in seen:
            return False
        seen.add((a, b, owed))
        if not b:
            return not a and not owed
        (is_slot, value), rest = b[0], b[1:]
        if owed:
            for option in vocabulary[value] if is_slot else [value]:
                if option.startswith(owed):
                    if clash(rest, a, option[len(owed) :]):
                        return True
                elif owed.startswith(option) and clash(a, rest, owed[len(option) :]):
                    return True
            return False
        if a and a[0][0] and is_slot:  # two slots at the same place
            s, t = a[0][1], value
            return (bool(common[s, t]) and clash(a[1:], rest, "")) or any(
                clash(a[1:], rest, x[len(y) :])
                if len(x) > len(y)
                else clash(rest, a[1:], y[len(x) :])
                for x, y in ahead[s, t]
            )
        if not is_slot:
            return clash(rest, a, value) if value else clash(a, rest, "")
        return bool(a) and clash(b, a, "")

    def symbols(sentence: tuple[str, ...]) -> tuple:
        return tuple((i % 2 == 1, p) for i, p in enumerate(sentence) if p)

    found = []
    for one in map(symbols, sentences):
        for i, (is_slot, value) in enumerate(one):
            for x, y in ahead[value, value] if is_slot else ():
                if len(x) > len(y) and clash(one[i + 1 :], one[i + 1 :], x[len(y) :]):
                    found.append((one, x, y))
    for one, other in itertools.combinations(sentences, 2):
        compatible = one[0].startswith(other[0]) or other[0].startswith(one[0])
        if compatible and clash(symbols(one), symbols(other), ""):
            found.append((one, other))
    return found
