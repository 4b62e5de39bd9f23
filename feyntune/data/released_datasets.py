"""The authors' released datasets, read and checked: a row per abstract, nothing taken on trust."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from feyntune.errors import UserError
from feyntune.experiment.recipes import MODELS, released_name
from feyntune.experiment.schema import Experiment
from feyntune.paths import Paths

METADATA = ("id", "title", "categories", "versions", "abstract")
# What else the released datasets carry, of no use here.
KNOWN = {
    *METADATA, "submitter", "authors", "comments", "journal-ref", "doi", "report-no", "license",
    "orig_abstract", "update_date", "authors_parsed", "prompt", "y_true",
}  # fmt: skip
PREFIXES = ("perplexity_", "score_", "comp_", "preds_")


class Release:
    """The released datasets of scores, each checked against the first.

    Attributes
    ----------
    perplexities, semscores, completions
        Their rows, indexed by arXiv id.
    unexpected
        Columns that are neither metadata nor of one of the 21 models, by source.
    """

    def __init__(self, experiment: Experiment):
        self.models = experiment.models
        sources = ("perplexities", "semscores", "completions")
        frames = {name: read(experiment.paths, name) for name in sources}
        self.perplexities, self.semscores, self.completions = frames.values()
        for name, frame in frames.items():
            _check_same_abstracts("perplexities", self.perplexities, name, frame)
        expected = {prefix + released_name(model) for prefix in PREFIXES for model in MODELS}
        strange = {name: set(frame.columns) - expected - KNOWN for name, frame in frames.items()}
        self.unexpected = {name: sorted(columns) for name, columns in strange.items() if columns}


def read(paths: Paths, source: str) -> pd.DataFrame:
    """All rows of a released dataset, by id; every file of its one split."""
    folder = paths.fetched(source)
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise UserError(f"There is no Parquet file in {folder}: run feyntune fetch again.")
    frames = []
    for file in files:
        try:
            frames.append(pd.read_parquet(file))
        except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
            raise UserError(f"{source}: {file.name} is not whole Parquet ({error}).") from None
    frame = pd.concat(frames, ignore_index=True)
    lacking = [name for name in METADATA if name not in frame.columns]
    if lacking:
        raise UserError(f"{source} has no column {', '.join(lacking)}.")
    if frame.empty:
        raise UserError(f"{source} has no rows.")
    for column in ("id", "title", "categories", "abstract"):
        bad = [row for row, cell in enumerate(frame[column]) if not is_text(cell)]
        if bad:
            raise UserError(
                f"{source}: {column} is no text in {len(bad)} rows, row {bad[0]} first."
            )
    twice = frame["id"][frame["id"].duplicated()]
    if len(twice):
        raise UserError(f"{source} holds {len(twice)} abstracts twice, {twice.iloc[0]} first.")
    return frame.set_index("id")


def is_text(cell: Any) -> bool:
    """Whether a cell is text with anything in it."""
    return isinstance(cell, str) and bool(cell.strip())


def _check_same_abstracts(first: str, left: pd.DataFrame, second: str, right: pd.DataFrame) -> None:
    if len(left) != len(right):
        raise UserError(f"{first} has {len(left):,} abstracts, {second} has {len(right):,}.")
    strangers = right.index.difference(left.index)
    if len(strangers):
        raise UserError(
            f"{second} has {len(strangers)} abstracts that {first} has not: {strangers[0]} first."
        )
    differing = left.index[right["abstract"].reindex(left.index) != left["abstract"]]
    if len(differing):
        raise UserError(
            f"{second} has another text of {len(differing)} abstracts than {first}: "
            f"{differing[0]} first."
        )


def abstracts(frame: pd.DataFrame) -> pd.DataFrame:
    """The test abstracts in the columns of a curated dataset."""
    return pd.DataFrame(
        {
            "id": frame.index,
            "title": frame["title"].to_numpy(),
            "categories": frame["categories"].to_numpy(),
            "primary": [text.split()[0] for text in frame["categories"]],
            "year": [_year(versions) for versions in frame["versions"]],
            "abstract": frame["abstract"].to_numpy(),
        }
    )


def _year(versions: Iterable[Mapping[str, str]]) -> int:
    """Year of the first version, from ``Mon, 2 Apr 2007 19:18:42 GMT``."""
    try:
        return int(versions[0]["created"].split()[3])
    except (TypeError, KeyError, IndexError, AttributeError, ValueError):
        raise UserError(f"no date in versions: {str(versions)[:80]}.") from None
