"""The stand-in snapshot: its format, its quirks, and the exactness of its likelihoods."""

import hashlib
import itertools
import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from random import Random

import pyarrow.parquet as pq
import pytest

from feyntune.data.stand_in import corpus, grammar, language
from feyntune.data.stand_in.language import Grammar, Source, flatten, terms

FIELDS = [
    "id", "submitter", "authors", "title", "comments", "journal-ref", "doi",
    "report-no", "categories", "license", "abstract", "versions", "update_date", "authors_parsed",
]  # fmt: skip
RECORDS = 3000


@pytest.fixture(scope="module")
def drawn() -> list[tuple[dict, language.Likelihood]]:
    return list(corpus.generate(RECORDS, seed=5))


def clean(text: str) -> str:
    return re.sub(r"\n\s*", " ", text).strip()


# --- the likelihood ---------------------------------------------------------------------------


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
    mixture = dict(corpus.lookup(grammar.SOURCES, category))
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
    everything = [r for kind in grammar.MOVES if kind != "start" for r in rules_of(kind)]
    flats = sorted({f for rule in everything for f in flatten(rule, 1.0, grammar.PHRASES)})
    sentences = [tuple(p for p in language.split_rule(f)) for f in flats]
    vocabulary = {
        slot: sorted({t for lexicon in grammar.LEXICA.values() for t in terms(lexicon[slot])})
        for slot in grammar.LEXICA["qft"]
    }
    assert not ambiguous(sentences, vocabulary)


def test_the_ambiguity_check_finds_ambiguity():
    vocabulary = {"x": ["a", "a b"], "y": ["b c", "c"]}
    assert ambiguous([("", "x", " ", "y", ".")], vocabulary)
    assert ambiguous([("A ", "x", "."), ("A a b.",)], vocabulary)
    assert not ambiguous([("", "x", "; ", "y", "."), ("A ", "x", ".")], vocabulary)


def rules_of(kind: str) -> list[str]:
    return [rule for rules in grammar.RULES.get(kind, {}).values() for rule in rules]


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


# --- the text ---------------------------------------------------------------------------------


def test_sentences_can_be_told_apart(drawn):
    lengths = Counter()
    for record, known in drawn:
        sentences = re.split(r"(?<=[.!?])\s+", clean(record["abstract"]))
        assert len(sentences) == known.sentences
        for sentence in sentences:
            assert re.fullmatch(r"[A-Z][^.?!]*[.?]", sentence)
            assert not re.search(r"\b(\w+) \1\b|  |\ba [aeio]", sentence)
        lengths[known.sentences] += 1
    assert 0.005 < lengths[1] / RECORDS < 0.04
    assert sum(n for k, n in lengths.items() if 3 <= k <= 9) > 0.8 * RECORDS


def test_nearer_categories_share_more_words_with_hep_th():
    def words(category: str) -> Counter:
        rng = Random(1)
        texts = (corpus.source(category).draw(rng)[0] for _ in range(300))
        return Counter(w for text in texts for w in text.split())

    home = words("hep-th")

    def overlap(category: str) -> float:
        other = words(category)
        return sum(min(home[w] / home.total(), n / other.total()) for w, n in other.items())

    near, far = min(overlap("hep-ph"), overlap("gr-qc")), max(overlap("q-bio"), overlap("cs.CL"))
    assert near > far + 0.05


# --- the snapshot -----------------------------------------------------------------------------


def test_records_have_the_fields_and_quirks_of_the_kaggle_file(drawn):
    ids = [record["id"] for record, _ in drawn]
    assert ids == sorted(set(ids)) and len(ids) == RECORDS
    assert set(corpus.EXCLUDED_IDS) <= set(ids)
    for record, _ in drawn:
        assert list(record) == FIELDS
        assert re.fullmatch(r"  \S[^\n]*(\n(  )?\S[^\n]*)*\n", record["abstract"])
        assert max(map(len, record["abstract"].split("\n"))) <= 80
        first = record["versions"][0]
        assert first["version"] == "v1"
        month = re.match(r"(?:[a-z-]+/)?(\d{4})", record["id"])[1]
        stamp = re.fullmatch(
            r"\w{3}, [1-9]\d? (\w{3}) (\d{4}) \d\d:\d\d:\d\d GMT", first["created"]
        )
        assert month[:2] == stamp[2][2:]
        assert month[2:] == f"{'JanFebMarAprMayJunJulAugSepOctNovDec'.index(stamp[1]) // 3 + 1:02d}"
        digits = "/" if "/" in record["id"] else len(record["id"].split(".")[1])
        date = int(stamp[2]) * 100 + int(month[2:])
        assert digits == ("/" if date < 200704 else 4 if date < 201501 else 5)
        assert "2007-05-23" <= record["update_date"] <= "2024-08-22"
        primary, *others = record["categories"].split()
        assert primary not in others
        if "/" in record["id"]:
            assert record["id"].startswith(primary.split(".")[0] + "/")
    column = {name: [record[name] for record, _ in drawn] for name in FIELDS}
    for name in ("comments", "journal-ref", "doi", "report-no", "license", "submitter"):
        assert 0 < column[name].count(None) < RECORDS
    assert any(len(v) > 2 for v in column["versions"])
    assert any("\n" in title for title in column["title"])
    assert any("$" in title for title in column["title"])
    assert any(not json.dumps(a, ensure_ascii=False).isascii() for a in column["authors_parsed"])
    assert any(" physics." in " " + c for c in column["categories"])


def test_primary_categories_come_in_arxivs_proportions(drawn):
    primaries = Counter(record["categories"].split()[0] for record, _ in drawn)
    for category, count in {"hep-th": 105_617, "hep-ph": 132_678, "gr-qc": 63_776}.items():
        assert abs(primaries[category] - RECORDS * count / 2_542_615) <= 1
    cs = sum(n for c, n in primaries.items() if c.startswith("cs."))
    assert cs / RECORDS == pytest.approx(534_243 / 2_542_615, rel=0.02)


def test_withdrawn_papers_have_no_likelihood_only_if_their_abstract_is_a_notice():
    notices = comments = 0
    for record, known in corpus.generate(6000, seed=1):
        notice = "withdrawn" in record["abstract"].lower()
        assert (known.loglik is None) == (known.loglik_end is None) == notice
        notices += notice
        comments += "withdrawn" in (record["comments"] or "").lower()
    assert 1 <= notices <= 15 and 6 <= comments <= 36


def test_files_are_whole_aligned_and_the_same_on_every_run(tmp_path):
    code = (
        "import sys; from pathlib import Path; from feyntune.demo import corpus; "
        "corpus.write(*map(Path, sys.argv[1:]), records=1200, seed=8)"
    )
    digests = set()
    for hash_seed in ("1", "2"):
        files = [tmp_path / hash_seed / "snapshot.jsonl", tmp_path / hash_seed / "known.parquet"]
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        root = Path(corpus.__file__).parents[2]
        subprocess.run([sys.executable, "-c", code, *files], check=True, env=environment, cwd=root)
        assert sorted(p.name for p in files[0].parent.iterdir()) == [
            "known.parquet",
            "snapshot.jsonl",
        ]
        digests.add(tuple(hashlib.sha256(p.read_bytes()).hexdigest() for p in files))
    assert len(digests) == 1
    records = [json.loads(line) for line in files[0].read_text(encoding="utf-8").splitlines()]
    expected = [record for record, _ in corpus.generate(1200, seed=8)]
    assert records == expected
    table = pq.read_table(files[1]).to_pydict()
    assert list(table) == ["id", "primary", "sentences", "loglik", "loglik_end"]
    assert table["id"] == [r["id"] for r in records]
    assert table["primary"] == [r["categories"].split()[0] for r in records]


def test_an_interrupted_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def broken(records, seed):
        yield next(corpus_generate(records, seed))
        raise KeyboardInterrupt

    corpus_generate = corpus.generate
    monkeypatch.setattr(corpus, "generate", broken)
    with pytest.raises(KeyboardInterrupt):
        corpus.write(tmp_path / "s.jsonl", tmp_path / "l.parquet", records=10, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_cleaning_gives_back_the_text_that_was_drawn():
    rng = Random(2)
    for _ in range(300):
        text, _ = corpus.source("hep-th").draw(rng)
        for line_break in ("\n", "\n  "):
            assert clean("  " + corpus.wrap(text, line_break) + "\n") == text


def test_too_few_records_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        list(corpus.generate(0, seed=0))
