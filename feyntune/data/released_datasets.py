"""The authors' released datasets, read and checked: a row per abstract, nothing taken on trust."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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
# The sources of scores, each with the metadata of its abstracts.
DATASETS = ("perplexities", "semscores", "completions")
PREFIXES = ("perplexity_", "score_", "comp_", "preds_")


class Release:
    """The released datasets of scores that there are, of the abstracts that all of them have.

    Attributes
    ----------
    test
        Metadata of the abstracts, by arXiv id, in the order of the first source; without rows if
        there is no source.
    perplexities, semscores, completions
        Their rows of these abstracts; ``None`` where the source cannot be used.
    missing
        By source that cannot be used, why.
    left_out
        By what is wrong with them, ids of the abstracts that are left out.
    unexpected
        Columns that are neither metadata nor of one of the 21 models, by source.
    """

    def __init__(self, experiment: Experiment):
        self.models = experiment.models
        self.missing: dict[str, str] = {}
        self.left_out: dict[str, list[str]] = {}
        frames = {}
        for name in DATASETS:
            try:
                frames[name] = self._usable(name, _whole(experiment, name))
            except UserError as error:
                self.missing[name] = str(error)
        self.test = self._common(frames)
        found = {name: frame.loc[self.test.index] for name, frame in frames.items()}
        self.perplexities, self.semscores, self.completions = map(found.get, DATASETS)
        expected = {prefix + released_name(model) for prefix in PREFIXES for model in MODELS}
        strange = {name: set(frame.columns) - expected - KNOWN for name, frame in frames.items()}
        self.unexpected = {name: sorted(columns) for name, columns in strange.items() if columns}

    def _usable(self, source: str, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows whose metadata are whole and whose id is no other row's, by id."""
        for said, bad in _bad_rows(frame):
            self._leave_out(f"{source}: {said}", frame["id"][bad])
            frame = frame[~bad]
        if frame.empty:
            raise UserError(f"{source} has no row that can be used.")
        return frame.set_index("id")

    def _common(self, frames: dict[str, pd.DataFrame]) -> pd.DataFrame:
        """The abstracts that every source has, with the same text; sources with none are dropped.

        What the first source says of an abstract holds.
        """
        common = next(iter(frames.values()), pd.DataFrame(columns=METADATA).set_index("id"))
        for name, frame in list(frames.items()):
            there = common.index.isin(frame.index)
            same = there & (frame["abstract"].reindex(common.index) == common["abstract"])
            if not same.any():
                self.missing[name] = f"has no abstract in common with {next(iter(frames))}"
                del frames[name]
                continue
            self._leave_out(f"not in {name}", common.index[~there])
            self._leave_out(f"another text in {name}", common.index[there & ~same])
            common = common[same]
        for name, frame in frames.items():
            left = {i for ids in self.left_out.values() for i in ids}
            strange = frame.index.difference(common.index)
            self._leave_out(f"in {name}, not in others", [i for i in strange if i not in left])
        return common

    def _leave_out(self, why: str, ids: Iterable[Any]) -> None:
        if ids := [str(each) for each in ids]:
            self.left_out[why] = ids


def read(paths: Paths, source: str) -> pd.DataFrame:
    """All rows of a released dataset, by id; every file of its one split."""
    frame = _rows(paths, source)
    for said, bad in _bad_rows(frame):
        ids = frame["id"][bad]
        raise UserError(f"{source}: {said}: {len(ids)} rows, {ids.iloc[0]} first.")
    return frame.set_index("id")


def _whole(experiment: Experiment, source: str) -> pd.DataFrame:
    """The rows of a source, if the experiment has it and it was to be had."""
    if source not in experiment.outside:
        raise UserError("null in this experiment")
    if not experiment.paths.fetched(source).is_dir():
        raise UserError("could not be had when they were fetched")
    return _rows(experiment.paths, source)


def _rows(paths: Paths, source: str) -> pd.DataFrame:
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
    return frame


def _bad_rows(frame: pd.DataFrame) -> Iterator[tuple[str, pd.Series]]:
    """What keeps rows from being an abstract's, and which these are; each row once."""
    seen = pd.Series(False, frame.index)
    for column in ("id", "title", "categories", "abstract"):
        bad = ~frame[column].map(is_text).astype(bool) & ~seen
        seen |= bad
        if bad.any():
            yield f"{column} is no text", bad
    bad = frame["versions"].map(_year).isna() & ~seen
    seen |= bad
    if bad.any():
        yield "there is no date in versions", bad
    twice = frame["id"].duplicated(keep=False) & ~seen
    if twice.any():
        yield "the abstract is there twice", twice


def is_text(cell: Any) -> bool:
    """Whether a cell is text with anything in it."""
    return isinstance(cell, str) and bool(cell.strip())


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


def _year(versions: Iterable[Mapping[str, str]]) -> int | None:
    """Year of the first version, from ``Mon, 2 Apr 2007 19:18:42 GMT``; ``None`` without one."""
    try:
        return int(versions[0]["created"].split()[3])
    except (TypeError, KeyError, IndexError, AttributeError, ValueError):
        return None
