"""Does training see the test set? Shared ids, identical texts, near-duplicates, and age.

Two abstracts are near-duplicates if their sets of shingles (some successive words each, without
case and punctuation) have a Jaccard similarity of at least a threshold: of all shingles of both,
that share is in both. Candidates are found with MinHash and locality-sensitive hashing (Broder,
1997; Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3) and then compared
exactly, so none is counted wrongly, and one at the threshold is missed with a probability of at
most `MISSED` (a closer pair with less, an identical one never).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from zlib import crc32

import numpy as np
import pandas as pd
from datasketch import LeanMinHash, MinHash, MinHashLSH

from feyntune.data.abstracts import Abstracts, in_parallel
from feyntune.experiment.sections import NearDuplicates

KINDS = ("ids", "texts", "near_duplicates")
MISSED = 1e-3
SCHEME = "affine32"


def normalised(text: str) -> str:
    """Text reduced to what two copies of one abstract share: its words, in small letters."""
    return re.sub(r"\W+", " ", text).strip().lower()


def shingles(text: str, words: int) -> set[bytes]:
    """Every run of so many successive words; a shorter text is one, one without words has none."""
    found = normalised(text).encode().split()
    return {b" ".join(found[i : i + words]) for i in range(max(1, len(found) - words + 1))} - {b""}


def jaccard(one: set, other: set) -> float:
    """Share of the elements of either set that are in both."""
    return len(one & other) / len(one | other)


def signatures(texts: Sequence[str], settings: NearDuplicates) -> np.ndarray:
    """MinHash of each text, (texts, permutations) of uint32: equal numbers estimate Jaccard."""
    signed = MinHash.generator(
        (shingles(text, settings.shingle_words) for text in texts),
        num_perm=settings.permutations,
        seed=settings.seed,
        hashfunc=crc32,
        scheme=SCHEME,
    )
    return np.array([minhash.hashvalues for minhash in signed])


class Index:
    """A few thousand texts in which to look up those that others are copies of."""

    def __init__(self, texts: Sequence[str], settings: NearDuplicates):
        self._settings = settings
        self._texts = [normalised(text) for text in texts]
        rows = rows_per_band(settings)
        bands = settings.permutations // rows
        self._lsh = MinHashLSH(num_perm=settings.permutations, params=(bands, rows))
        for place, signature in enumerate(signatures(texts, settings)):
            if self._texts[place]:
                self._lsh.insert(place, self._lean(signature))

    def like(self, text: str, signature: np.ndarray) -> Iterator[tuple[int, str]]:
        """Yield the place and the kind of every text in the index that is one of a pair."""
        candidates = self._lsh.query(self._lean(signature))
        if not candidates:
            return
        mine, words = normalised(text), self._settings.shingle_words
        own = shingles(mine, words)
        for place in sorted(candidates):
            other = self._texts[place]
            if mine == other:
                yield place, "texts"
            if jaccard(own, shingles(other, words)) >= self._settings.similarity:
                yield place, "near_duplicates"

    def _lean(self, signature: np.ndarray) -> LeanMinHash:
        return LeanMinHash(seed=self._settings.seed, hashvalues=signature, scheme=SCHEME)


def rows_per_band(settings: NearDuplicates) -> int:
    """The most rows per band (the fewest candidates) with which hardly any pair is missed.

    A pair of similarity s agrees in all r rows of none of b bands with probability (1 - s^r)^b.
    """
    s, n = settings.similarity, settings.permutations
    return max((r for r in range(1, n + 1) if (1 - s**r) ** (n // r) <= MISSED), default=1)


def partners(
    abstracts: Abstracts, training: np.ndarray, test: np.ndarray, settings: NearDuplicates
) -> pd.DataFrame:
    """Pairs of a training and a test abstract that are the same paper, or nearly the same text.

    Parameters
    ----------
    training, test
        Row numbers: of all training sets, so that an abstract in several of them is looked at
        once; and of the test set, which alone is held in memory.

    Returns
    -------
    pairs
        Columns ``training`` and ``test`` (row numbers) and ``kind``, one of `KINDS`. A pair of the
        same text is a near-duplicate too; one of the same id only if the texts are.
    """
    texts = tuple(abstracts.gather(test, ["abstract"])["abstract"].to_pylist())
    look_up = partial(_partners_of_batch, test=texts, settings=settings)
    found = _same_ids(abstracts, training, test)
    for pairs in in_parallel(look_up, _batches(abstracts, training)):
        found += [(row, test[place], kind) for row, place, kind in pairs]
    return pd.DataFrame(found, columns=["training", "test", "kind"])


def _partners_of_batch(
    batch: tuple[np.ndarray, list[str]], *, test: tuple[str, ...], settings: NearDuplicates
) -> list[tuple[int, int, str]]:
    """Row of a training text, place of a test text, and kind of every pair in a batch."""
    rows, texts = batch
    index = _index(test, settings)
    signed = zip(rows, texts, signatures(texts, settings), strict=True)
    return [
        (row, place, kind)
        for row, text, signature in signed
        for place, kind in index.like(text, signature)
    ]


@lru_cache(maxsize=1)
def _index(texts: tuple[str, ...], settings: NearDuplicates) -> Index:
    """Built once in each process."""
    return Index(texts, settings)


def _same_ids(abstracts: Abstracts, training: np.ndarray, test: np.ndarray) -> list[tuple]:
    ids = abstracts.facts["id"]
    mine, theirs = (
        pd.DataFrame({"id": ids.take(rows).to_pylist(), name: rows})
        for name, rows in (("training", np.unique(training)), ("test", test))
    )
    pairs = mine.merge(theirs, on="id")
    return [(*pair, "ids") for pair in zip(pairs["training"], pairs["test"], strict=True)]


def _batches(abstracts: Abstracts, rows: np.ndarray) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Rows and their texts, each once, some thousand at a time."""
    rows = np.unique(rows)
    for start, table in abstracts.pieces():
        here = rows[slice(*np.searchsorted(rows, (start, start + len(table))))]
        if len(here):
            yield here, table["abstract"].take(here - start).to_pylist()


def counted(pairs: pd.DataFrame, training: np.ndarray) -> dict[str, int]:
    """How many test abstracts have a partner in a training set, for each of `KINDS`.

    An abstract with several partners counts once. ``near_duplicates`` includes ``texts``; neither
    depends on ``ids``, as the text of a revised paper may be another one.
    """
    here = pairs[pairs["training"].isin(training)]
    return {kind: here.loc[here["kind"] == kind, "test"].nunique() for kind in KINDS}


def age(abstracts: Abstracts, test: np.ndarray, knowledge_until: int) -> dict[str, int]:
    """How many test abstracts were first submitted after the base model's last year of reading."""
    years = abstracts.facts["year"].to_numpy()[test]
    return {
        "abstracts": len(test),
        "knowledge_until": knowledge_until,
        "after_knowledge": int(np.sum(years > knowledge_until)),
    }
