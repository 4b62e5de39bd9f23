"""Which of the abstracts that are listed by id are not as the lock has them."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from feyntune.data.fetch import pins
from feyntune.errors import UserError
from feyntune.experiment.schema import Experiment

FILE = "abstracts.jsonl"
# Up to this share of abstracts that changed or are gone, results are compared with recorded ones.
TOLERATED = 0.02
_DIGITS = 16  # of a SHA-256, in hexadecimal
_SHOWN = 10


@dataclass(frozen=True)
class Changes:
    """The listed abstracts that are not as the lock has them."""

    listed: int
    changed: tuple[str, ...]
    gone: tuple[str, ...]

    @property
    def too_many(self) -> bool:
        """Whether results can no longer be expected to be the recorded ones."""
        return len(self.changed) + len(self.gone) > TOLERATED * self.listed

    def __str__(self) -> str:
        """How many, and the first of them."""
        parts = [
            f"{len(ids)} {what} ({', '.join(ids[:_SHOWN])}{', ...' if len(ids) > _SHOWN else ''})"
            for ids, what in ((self.changed, "changed since"), (self.gone, "gone"))
            if ids
        ]
        return f"{self.listed:,} abstracts, {' and '.join(parts) or 'each as in the lock'}"


def changes(experiment: Experiment) -> Changes | None:
    """How the fetched abstracts differ from the lock; ``None`` if there are none or no lock."""
    name = experiment.listed
    entry = pins.read(experiment).get(name) if name else None
    if entry is None or not in_place(experiment.paths.fetched(name)):
        return None
    return compare(entry.abstracts, hashes(experiment.paths.fetched(name)))


def in_place(folder: Path) -> bool:
    """Whether the abstracts are here; they were written whole, and have no pinned bytes."""
    return (folder / FILE).is_file()


def hash_of(abstract: str) -> str:
    """A hash that line breaks, other blanks and the composition of accents do not change."""
    text = " ".join(unicodedata.normalize("NFC", abstract).split())
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def hashes(folder: Path) -> dict[str, str]:
    """The hash of every fetched abstract, by id."""
    try:
        papers = map(json.loads, (folder / FILE).read_bytes().splitlines())
        return {paper["id"]: hash_of(paper["abstract"]) for paper in papers}
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{folder / FILE} is damaged: remove its folder and fetch again.") from None


def compare(locked: Mapping[str, str], now: Mapping[str, str]) -> Changes:
    """How abstracts differ from the lock's, both as hashes by id."""
    changed = [each for each, known in locked.items() if now.get(each, known) != known]
    gone = [each for each in locked if each not in now]
    return Changes(len(locked), tuple(changed), tuple(gone))
