"""Choose the abstracts of an experiment that lists them by id, from a snapshot.

    python workflow/choose_abstracts.py --experiment small --snapshot FILE

writes the list that the experiment names (experiments/small.ids.txt). The method is described in
docs/small.md; the same snapshot gives the same list. Afterwards `feyntune fetch --update` renews
the hashes of the abstracts.
"""

from __future__ import annotations

import argparse
import random
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from feyntune.data import snapshot
from feyntune.data.overlap import normalised
from feyntune.data.selection import FieldOf
from feyntune.experiment import load
from feyntune.experiment.files import writing
from feyntune.experiment.schema import Experiment

SEED = 42
# Abstracts of each field; docs/small.md says why so many.
SIZES = {"hep-th": 480, "hep-ph": 340, "gr-qc": 164, "q-bio": 130, "cs": 400}
# arXiv's snapshots write an accent as TeX, its API as one character: the hashes would differ.
TEX_ACCENT = re.compile(r"\\(['\"`^~=.]|[cvuHkrb]\b|(?:ae|oe|aa|AE|OE|AA|ss|o|O|l|L|i|j)\b)")
HEADER = """\
# Abstracts of arXiv, by id: {count} of {years}, {sizes}.
# Chosen by workflow/choose_abstracts.py; docs/small.md says how. Ids are facts; abstracts are
# fetched by whoever runs the experiment.
"""


def candidates(experiment: Experiment, file: Path) -> Iterator[tuple[str, str]]:
    """Field and id of every paper that may be chosen, in the snapshot's order."""
    field_of, seen = FieldOf(experiment.fields), set()
    reading = snapshot.Reading()
    for paper, primary, year in snapshot.papers(file, reading, bad_lines_allowed=0.001):
        text = normalised(paper.abstract)
        first = not seen & {paper.id, text}
        seen |= {paper.id, text}
        new = year > experiment.base.knowledge_until
        usable = text and not paper.withdrawn and not TEX_ACCENT.search(paper.abstract)
        chosen = paper.id not in experiment.data.excluded_ids
        if first and new and usable and chosen and (name := field_of[primary]):
            yield name, paper.id


def choose(experiment: Experiment, file: Path) -> list[str]:
    """A seeded sample of each field, by id."""
    by_field = defaultdict(list)
    for name, identifier in candidates(experiment, file):
        by_field[name].append(identifier)
    generator = random.Random(SEED)
    for name, size in SIZES.items():
        print(f"{name}: {size} of {len(by_field[name])}")
    return sorted(
        identifier
        for name, size in SIZES.items()
        for identifier in generator.sample(sorted(by_field[name]), size)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiment", required=True)
    parser.add_argument("--snapshot", required=True, type=Path)
    given = parser.parse_args()
    experiment = load.load(given.experiment)
    ids = choose(experiment, given.snapshot)
    sizes = ", ".join(f"{size} {name}" for name, size in SIZES.items())
    years = f"the years after {experiment.base.knowledge_until}"
    header = HEADER.format(count=f"{len(ids):,}", years=years, sizes=sizes)
    with writing(load.beside(experiment.data.snapshot)) as partial:
        partial.write_text(header + "\n".join(ids) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
