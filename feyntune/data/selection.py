"""Selecting the abstracts of an experiment's fields from a snapshot, on all cores.

The rules are those of the released notebook ``get-arxiv-metadata``: five ids are kept out, the
primary category decides, withdrawn papers are dropped, and what is left is cleaned. Nothing is
dropped that is not counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from feyntune.data.abstracts import Abstracts, Piece, in_parallel, spill
from feyntune.data.snapshot import EXAMPLES, Block, Paper, Reading, blocks, clean, lines, parse
from feyntune.errors import UserError
from feyntune.experiment import load
from feyntune.experiment.files import read_yaml, remove
from feyntune.experiment.recipes import takes
from feyntune.experiment.schema import Experiment
from feyntune.experiment.sources import KaggleDataset
from feyntune.paths import expectations

# The archives of arXiv, those it has closed included.
ARCHIVES = {
    "acc-phys", "adap-org", "alg-geom", "ao-sci", "astro-ph", "atom-ph", "bayes-an", "chao-dyn",
    "chem-ph", "cmp-lg", "comp-gas", "cond-mat", "cs", "dg-ga", "econ", "eess", "funct-an",
    "gr-qc", "hep-ex", "hep-lat", "hep-ph", "hep-th", "math", "math-ph", "mtrl-th", "nlin",
    "nucl-ex", "nucl-th", "patt-sol", "physics", "plasm-ph", "q-alg", "q-bio", "q-fin",
    "quant-ph", "solv-int", "stat", "supr-con",
}  # fmt: skip


# Fields, each with its primary categories; see :func:`feyntune.experiment.recipes.takes`.
Fields = Mapping[str, list[str]]


class FieldOf(dict):
    """The field that has a primary category, or ``None``: looked up once for each."""

    def __init__(self, fields: Fields):
        super().__init__()
        self._fields = fields

    def __missing__(self, primary: str) -> str | None:
        having = (name for name, listed in self._fields.items() if takes(listed, primary))
        self[primary] = next(having, None)
        return self[primary]


@dataclass
class Selection:
    """What became of the lines of a block.

    Attributes
    ----------
    excluded
        Excluded ids, each as often as it was found.
    primaries
        Number of lines of every primary category, without the excluded ones.
    dropped
        Number of dropped lines, by field and reason.
    """

    reading: Reading = field(default_factory=Reading)
    excluded: list[str] = field(default_factory=list)
    primaries: Counter[str] = field(default_factory=Counter)
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, further: Selection) -> None:
        """Append what became of the lines that follow."""
        self.reading.add(further.reading)
        self.excluded += further.excluded
        self.primaries += further.primaries
        self.dropped += further.dropped


def select(
    path: Path,
    scratch: Path,
    *,
    fields: Fields,
    excluded_ids: list[str],
    bad_lines_allowed: float,
) -> tuple[Abstracts, dict[str, Any]]:
    """Read a snapshot once, on all cores, and keep the cleaned abstracts of the fields.

    Parameters
    ----------
    path, bad_lines_allowed
        As for :func:`feyntune.data.snapshot.papers`, errors included.
    scratch
        A folder for this function alone, on a disk with room for the kept abstracts (1 GB of the
        paper's snapshot). Its contents are removed; it is gone when the function returns, and the
        space is free again when the process ends.

    Returns
    -------
    abstracts
        In the snapshot's order.
    counts
        Lines, bad lines, excluded ids, and per field what was selected, dropped and kept: the
        beginning of ``curation.json``.
    """
    remove(scratch)
    scratch.mkdir(parents=True)
    work = partial(
        _select_block, fields=fields, excluded_ids=frozenset(excluded_ids), scratch=scratch
    )
    whole, pieces = Selection(), []
    try:
        cut = enumerate(blocks(path))
        # The first block alone shows whether the others are worth reading.
        first = map(work, islice(cut, 1))
        with closing(in_parallel(work, cut)) as others:
            for found, piece in chain(first, others):
                whole.add(found)
                pieces.append(piece)
                if whole.reading.hopeless:
                    break
        whole.reading.check(path, bad_lines_allowed)
    except BaseException:
        remove(scratch)
        raise
    abstracts = Abstracts(scratch, pieces)
    return abstracts, _counts(whole, abstracts, fields)


def _select_block(
    task: tuple[int, Block], *, fields: Fields, excluded_ids: frozenset[str], scratch: Path
) -> tuple[Selection, Piece]:
    """Select and clean the papers of one block, given with its place in the file."""
    number, block = task
    found = Selection()
    papers = parse(lines(block), found.reading, from_start=number == 0)
    return found, spill(_kept(papers, found, fields, excluded_ids), scratch)


def _kept(
    papers: Iterable[tuple[Paper, str, int]],
    found: Selection,
    fields: Fields,
    excluded_ids: frozenset[str],
) -> Iterator[tuple]:
    """Yield a row for each paper that is kept, and count every paper."""
    primaries, dropped, field_of = found.primaries, found.dropped, FieldOf(fields)
    for paper, primary, year in papers:
        if paper.id in excluded_ids:
            found.excluded.append(paper.id)
            continue
        primaries[primary] += 1
        name = field_of[primary]
        if name is None:
            continue
        abstract = clean(paper.abstract)
        if paper.withdrawn:
            dropped[name, "withdrawn"] += 1
        elif not abstract:
            dropped[name, "empty"] += 1
        else:
            yield paper.id, clean(paper.title), paper.categories, primary, year, abstract


def _counts(found: Selection, abstracts: Abstracts, fields: Fields) -> dict[str, Any]:
    field_of = FieldOf(fields)
    grouped, first = abstracts.grouped(field_of.__getitem__), abstracts.first_of_id()
    selected = Counter()
    for primary, papers in found.primaries.items():
        selected[field_of[primary]] += papers
    return {
        "lines": found.reading.lines,
        "bad_lines": found.reading.bad,
        "bad_line_examples": found.reading.examples,
        "excluded_ids": sorted(found.excluded),
        "other_categories": selected[None],
        "unknown_categories": {
            primary: papers
            for primary, papers in sorted(found.primaries.items())
            if primary.split(".", 1)[0] not in ARCHIVES
        },
        "duplicate_examples": abstracts.facts["id"].filter(~first)[:EXAMPLES].to_pylist(),
        "fields": {
            name: {
                "selected": selected[name],
                "withdrawn": found.dropped[name, "withdrawn"],
                "empty": found.dropped[name, "empty"],
                "duplicate": int(np.sum(~first & (grouped == name))),
                "kept": int(np.sum(first & (grouped == name))),
            }
            for name in fields
        },
    }


def rows_of_fields(abstracts: Abstracts, fields: Fields) -> dict[str, np.ndarray]:
    """Row numbers of each field, increasing; of several rows with one id the first is taken."""
    grouped = abstracts.grouped(FieldOf(fields).__getitem__)
    grouped = np.where(abstracts.first_of_id(), grouped, None)
    return {name: np.flatnonzero(grouped == name) for name in fields}


# --- counts of a known snapshot ---------------------------------------------------------------

CURATION = "data/curation.json"


def check_counts(experiment: Experiment, counts: Mapping[str, Any]) -> list[str]:
    """Compare counts with the claims of the experiment, or of one it extends, about a snapshot.

    Parameters
    ----------
    counts
        As :func:`select` gives them, and perhaps more of what becomes ``curation.json``.

    Returns
    -------
    list of str
        A line for every count that differs.

    Raises
    ------
    UserError
        If one differs although the snapshot is the very version that the claims are about.
    """
    files = [expectations(name) for name in load.ancestry(experiment.name)]
    claimed = [read_yaml(file) for file in files if file.is_file()]
    of = next((each for each in claimed if each.get("snapshot")), None)
    if of is None:
        return []
    differ = [
        f"{claim['claim']}: {found:,}, expected {claim['expected']:,}"
        for claim in of["claims"]
        if claim.get("file") == CURATION
        and (found := _count(counts, claim["key"])) is not None
        and abs(found - claim["expected"]) > claim.get("tolerance", 0)
    ]
    snapshot = of["snapshot"]
    if differ and _reads(experiment, snapshot):
        version = f"{snapshot['id']} version {snapshot['version']}"
        raise UserError(f"This snapshot has other counts than {version}: {'; '.join(differ)}.")
    return differ


def _count(counts: Any, key: str) -> int | None:
    """The count at a dotted place, if it is there yet."""
    for part in key.split("."):
        counts = counts.get(part) if isinstance(counts, Mapping) else None
    return counts


def _reads(experiment: Experiment, snapshot: Mapping[str, Any]) -> bool:
    """Whether an experiment is set to read this version."""
    return any(
        isinstance(source, KaggleDataset)
        and experiment.data.snapshot == source.id == snapshot["id"]
        and source.version == snapshot["version"]
        for source in experiment.fetch.values()
    )
