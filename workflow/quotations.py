"""Authors' words in what is committed: found, named by paper, and left out of copies.

Abstracts are their authors'. Ids, links and what our models write may be committed; a run of
eight successive words of an abstract may not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import pandas as pd
from pyarrow import parquet

from feyntune.data.overlap import normalised, shingles
from feyntune.errors import UserError
from feyntune.experiment.schema import Experiment
from feyntune.runs.dependencies import every_split

WORDS = 8
LABEL = re.compile(r"^[A-Z]+ +")


class Quotations:
    """Finds runs of eight words of some abstracts in other texts.

    Parameters
    ----------
    abstracts
        Texts by id. One of fewer than eight words is not looked for.
    """

    def __init__(self, abstracts: Mapping[str, str]):
        self._abstracts = {paper: normalised(text) for paper, text in abstracts.items()}
        self._paper = {
            run: paper
            for paper, text in self._abstracts.items()
            if len(text.split()) >= WORDS
            for run in shingles(text, WORDS)
        }

    def papers(self, text: str) -> list[str]:
        """Ids of the abstracts that a text quotes, each once."""
        found = (self._paper.get(run) for run in shingles(text, WORDS))
        return sorted({paper for paper in found if paper})

    def left_out(self, text: str) -> str:
        """A text in whose lines a quotation is replaced by the id of its paper and a link.

        A label in front, such as ``PROMPT``, stays. The lines that an abstract goes on in go with
        the first of them, down to the fragment of a line at its end.
        """
        kept, quoted = [], None
        for line in text.splitlines():
            papers, label = self.papers(line), LABEL.match(line)
            fragment = quoted and normalised(line) and normalised(line) in self._abstracts[quoted]
            if papers and (label or papers[0] != quoted):
                kept.append(f"{label[0] if label else ''}({_reference(papers[0])})")
            elif not papers and not fragment:
                kept.append(line)
            quoted = papers[0] if papers else quoted if fragment else None
        return "\n".join(kept) + "\n" * text.endswith("\n")


def _reference(paper: str) -> str:
    return f"the authors' text, not kept here: https://arxiv.org/abs/{paper}"


def of_experiment(experiment: Experiment) -> Quotations:
    """Those of every abstract that the experiment trains, validates or tests on.

    Raises
    ------
    UserError
        If no abstract is here: then nothing could be found, and everything would pass.
    """
    paths = [path for path in every_split(experiment).values() if path.exists()]
    # One that is committed with the experiment has no texts.
    files = [path for path in paths if "abstract" in parquet.read_schema(path).names]
    if not files:
        raise UserError(
            f"No abstract of {experiment.name} is here, so that authors' words could not be found."
        )
    frames = [pd.read_parquet(path, columns=["id", "abstract"]) for path in files]
    every = pd.concat(frames).drop_duplicates("id")
    return Quotations(dict(zip(every["id"], every["abstract"], strict=True)))
