"""Copies of test abstracts in training sets: planted ones are found, and nothing else is."""

from random import Random

import joblib
import numpy as np
import pytest
from snapshots import FIELDS, paper

from feyntune.data import overlap, selection, snapshot
from feyntune.data.stand_in import corpus
from feyntune.experiment import load

SETTINGS = load.load("demo").data.near_duplicates
WORDS = SETTINGS.shingle_words


def sentences(number: int, seed: int) -> list[str]:
    """Sentences of twelve words drawn from two thousand: unrelated texts share no shingle."""
    random = Random(seed)
    return [
        " ".join(f"w{random.randrange(2000)}" for _ in range(12)).capitalize() + "."
        for _ in range(number)
    ]


def text(seed: int, number: int = 10) -> str:
    return " ".join(sentences(number, seed))


@pytest.fixture
def stored(file, tmp_path):
    """Abstracts with the given texts (and ids) in this order."""

    def store(texts: list[str], ids: list[str] | None = None):
        named = zip(ids or range(len(texts)), texts, strict=True)
        path = file(*(paper(str(name), abstract=abstract) for name, abstract in named))
        return selection.select(
            path, tmp_path / "scratch", fields=FIELDS, excluded_ids=[], bad_lines_allowed=0.0
        )[0]  # fmt: skip

    return store


def found(stored, training: list[str], test: list[str], **settings):
    """Pairs of places in both lists, by kind."""
    abstracts = stored([*training, *test])
    mine = np.arange(len(training))
    theirs = np.arange(len(training), len(abstracts))
    pairs = overlap.partners(abstracts, mine, theirs, SETTINGS.model_copy(update=settings))
    places = {kind: [] for kind in overlap.KINDS}
    for row, place, kind in pairs.itertuples(index=False):
        places[kind].append((row, place - len(training)))
    counts = overlap.counted(pairs, mine)
    assert counts == {kind: len({b for _, b in some}) for kind, some in places.items()}
    return {kind: sorted(some) for kind, some in places.items() if some}


# --- definitions ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("We study strings.", "we  STUDY\nstrings"),
        ("Branes, in ADS!", "Branes in AdS"),
        (" (A) model ", "a -- model."),
    ],
)
def test_normalised_texts_of_copies_are_equal(one, other):
    assert overlap.normalised(one) == overlap.normalised(other)


def test_shingles_by_hand():
    assert overlap.shingles("A b, C\nd.", 3) == {b"a b c", b"b c d"}
    assert overlap.shingles("A b c", 3) == {b"a b c"}
    assert overlap.shingles("A b", 3) == {b"a b"}, "a shorter text is one shingle"
    assert overlap.shingles("a a a a a", 2) == {b"a a"}
    assert overlap.shingles(" ... ", 3) == set()


def test_jaccard_by_hand():
    assert overlap.jaccard({1, 2, 3}, {2, 3, 4}) == 0.5


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.7, 0.8, 0.9, 0.95])
def test_hardly_a_pair_at_the_threshold_is_missed(similarity):
    settings = SETTINGS.model_copy(update={"similarity": similarity})
    rows = overlap.rows_per_band(settings)
    assert (1 - similarity**rows) ** (settings.permutations // rows) <= overlap.MISSED
    more = rows + 1
    assert (1 - similarity**more) ** (settings.permutations // more) > overlap.MISSED


# --- planted copies ---------------------------------------------------------------------------


def one_word_changed(whole: str) -> str:
    words = whole.split()
    words[len(words) // 2] = "another"
    return " ".join(words)


def truncated(whole: str) -> str:
    return whole[: int(0.9 * len(whole))]


def reordered(whole: str) -> str:
    """The last of ten sentences comes first: two of 116 shingles go, and four come."""
    *some, last = whole.removesuffix(".").split(". ")
    return ". ".join([last, *some]) + "."


@pytest.mark.parametrize("change", [one_word_changed, truncated, reordered])
def test_a_near_duplicate_is_found(stored, change):
    texts = [text(seed) for seed in range(30)]
    test = [text(100), change(texts[7]), text(101), change(texts[20])]
    assert found(stored, texts, test) == {"near_duplicates": [(7, 1), (20, 3)]}


def test_a_copy_is_of_both_kinds(stored):
    texts = [text(seed) for seed in range(20)]
    test = [text(100), texts[4].upper().replace(".", " !\n")]
    assert found(stored, texts, test) == {"texts": [(4, 1)], "near_duplicates": [(4, 1)]}


def test_half_a_text_in_common_is_no_copy(stored):
    halves = sentences(5, seed=1)
    mine = " ".join(halves + sentences(5, seed=2))
    theirs = " ".join(halves + sentences(5, seed=3))
    assert found(stored, [mine], [theirs]) == {}
    assert found(stored, [mine], [theirs], similarity=0.3) == {"near_duplicates": [(0, 0)]}


def test_the_threshold_is_exact(stored):
    """Candidates are compared shingle by shingle, not estimated."""
    whole = text(1)
    similarity = overlap.jaccard(
        overlap.shingles(whole, WORDS), overlap.shingles(one_word_changed(whole), WORDS)
    )
    pair = [whole], [one_word_changed(whole)]
    assert found(stored, *pair, similarity=similarity) != {}
    assert found(stored, *pair, similarity=similarity + 1e-9) == {}


def test_nothing_is_found_across_unrelated_texts(stored):
    drawn = [record["abstract"] for record, _ in corpus.generate(600, seed=1)]
    drawn = [x for x in drawn if "withdrawn" not in x.lower()]
    assert found(stored, drawn[:400], drawn[400:]) == {}


def test_short_abstracts_are_copies_only_if_equal(stored):
    assert WORDS == 5
    training = ["Too short.", "One two three four.", "One two three four five."]
    test = ["too short", "One two three.", "One two three four", "two three four five"]
    expected = [(0, 0), (1, 2)]
    assert found(stored, training, test) == {"texts": expected, "near_duplicates": expected}


def test_abstracts_without_a_word_are_copies_of_nothing(stored):
    assert found(stored, ["...", "$$", text(1)], ["...", "-- !", text(2)]) == {}


def test_every_pair_near_the_threshold_is_found(stored):
    """A hundred pairs at 0.8 or a little more: fewer than one in a thousand may be missed."""
    training, test = [], []
    for seed in range(100):
        words = text(seed, 12).split()
        training.append(" ".join(words))
        for place in (20, 70, 120):
            words[place] = "another"
        test.append(" ".join(words))
    similar = overlap.jaccard(*(overlap.shingles(x[0], WORDS) for x in (training, test)))
    assert 0.8 <= similar < 0.84
    assert found(stored, training, test)["near_duplicates"] == [(i, i) for i in range(100)]


# --- counting ---------------------------------------------------------------------------------


def test_test_abstracts_are_counted_once_and_for_each_training_set(stored):
    texts = [text(seed) for seed in range(4)]
    copies = [texts[0], one_word_changed(texts[0]), texts[1], text(50)]
    abstracts = stored([*copies, *texts])
    pairs = overlap.partners(abstracts, np.arange(4), np.arange(4, 8), SETTINGS)
    assert overlap.counted(pairs, np.array([0, 1, 2, 3])) == {
        "ids": 0, "texts": 2, "near_duplicates": 2,
    }  # fmt: skip
    assert overlap.counted(pairs, np.array([1, 3])) == {
        "ids": 0, "texts": 0, "near_duplicates": 1,
    }  # fmt: skip
    assert overlap.counted(pairs, np.array([3])) == {"ids": 0, "texts": 0, "near_duplicates": 0}


def test_a_row_in_both_sets_is_found_by_id_and_text(stored):
    abstracts = stored([text(seed) for seed in range(4)])
    pairs = overlap.partners(abstracts, np.array([2, 0, 2]), np.array([2, 3]), SETTINGS)
    assert sorted(map(tuple, pairs.itertuples(index=False))) == [
        (2, 2, "ids"), (2, 2, "near_duplicates"), (2, 2, "texts"),
    ]  # fmt: skip


def test_a_shared_id_does_not_need_the_text(stored):
    """Ids are those that selection left out as duplicates: the first has another text."""
    abstracts = stored([text(1), text(2)], ids=["same", "same"])
    pairs = overlap.partners(abstracts, np.array([0]), np.array([1]), SETTINGS)
    assert overlap.counted(pairs, np.array([0])) == {"ids": 1, "texts": 0, "near_duplicates": 0}


def test_batches_and_processes_do_not_matter(stored, monkeypatch):
    texts = [text(seed, 3) for seed in range(200)]
    test = [one_word_changed(text(seed, 12)) for seed in range(0, 100, 3)]
    training = [text(seed, 12) for seed in range(100)]
    expected = found(stored, training + texts, test)
    assert len(expected["near_duplicates"]) == 34
    monkeypatch.setattr(snapshot, "BLOCK", 20_000)
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    assert found(stored, training + texts, test) == expected


def test_age_counts_what_is_younger_than_the_models_knowledge(tmp_path):
    path = tmp_path / "snapshot.json"
    corpus.write(path, tmp_path / "likelihood.parquet", records=600, seed=1)
    abstracts, _ = selection.select(
        path, tmp_path / "scratch", fields=FIELDS, excluded_ids=[], bad_lines_allowed=0.0
    )
    years = abstracts.facts["year"].to_pylist()
    test = np.arange(0, len(abstracts), 2)
    expected = sum(year > 2020 for year in years[::2])
    assert 0 < expected < len(test)
    assert overlap.age(abstracts, test, 2020) == {
        "abstracts": len(test), "knowledge_until": 2020, "after_knowledge": expected,
    }  # fmt: skip
