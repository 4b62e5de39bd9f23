"""Rating sheets that came back: with their key they become ratings in the published schema."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from feyntune.errors import UserError
from feyntune.experiment.files import writing
from feyntune.ratings import means
from feyntune.ratings.means import ARXIV_ID, COLUMNS, NAMES, RULES, SYSTEMS
from feyntune.ratings.sheets import KEY_COLUMNS, TEXTS

Row = dict[str, str]


def unblind(files: Sequence[Path], key: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read sheets that raters sent back, and say whose each completion is.

    Parameters
    ----------
    files
        Exports of the page, or the CSV with its scores filled in.
    key
        ``key.csv`` of these sheets.

    Returns
    -------
    ratings : DataFrame
        In the published schema, in the order of the key.
    missing : DataFrame
        Completions without a score: ``rater``, ``paper``, ``systems`` (names, in a row).

    Raises
    ------
    UserError
        If a file cannot be read, a cell is not what it must be, a completion is rated twice, a
        row is not the key's, or there is no score at all.
    """
    opened = _key(key)
    scores: dict[str, str] = {}
    seen: dict[str, str] = {}
    for file in files:
        for number, row in _table(file, COLUMNS, "a rating sheet", optional=TEXTS):
            where = f"{file}, line {number}"
            _check(row, opened, where, key)
            if row["model"] in seen:
                raise UserError(f"{where}: {row['model']} stands in {seen[row['model']]} too.")
            seen[row["model"]] = where
            scores[row["model"]] = row["score"].strip()
    frame = pd.DataFrame(list(opened.values()))
    frame["score"] = frame["code"].map(scores).fillna("")
    rated = frame["score"] != ""
    if not rated.any():
        raise UserError(f"No completion has a score in {', '.join(map(str, files))}.")
    units = frame[~rated].groupby(["rater", "paper"], sort=False)["model"]
    missing = units.agg(lambda names: ", ".join(sorted(names, key=list(SYSTEMS).index)))
    return frame.loc[rated, list(COLUMNS)], missing.rename("systems").reset_index()


def _key(path: Path) -> dict[str, Row]:
    """The rows of a key by code, each checked."""
    found: dict[str, Row] = {}
    checked = {name: rule for name, rule in RULES.items() if name in KEY_COLUMNS}
    for number, row in _table(path, KEY_COLUMNS, "the key of rating sheets"):
        where = f"{path}, line {number}"
        for column, (fits, expected) in checked.items():
            if not fits(row[column]):
                raise UserError(f"{where}: {column} is {row[column]!r}, not {expected}.")
        if row["category"] != NAMES[SYSTEMS[row["model"]]][1]:
            raise UserError(f"{where}: {row['model']} is not of category {row['category']!r}.")
        if row["code"] in found:
            raise UserError(f"{where}: {row['code']} stands in the key twice.")
        found[row["code"]] = row
    return found


def _check(row: Row, key: dict[str, Row], where: str, file: Path) -> None:
    """A row of a sheet must be the key's, and its score a score or nothing."""
    known = key.get(row["model"])
    if known is None:
        raise UserError(
            f"{where}: the code {row['model']!r} is not in {file}: that is not this sheet's key."
        )
    if row["rater"] != known["rater"]:
        raise UserError(f"{where}: the rater is {row['rater']!r}, in the key {known['rater']!r}.")
    if not _same_paper(row["paper"], known["paper"]):
        raise UserError(f"{where}: the paper is {row['paper']!r}, in the key {known['paper']!r}.")
    fits, expected = RULES["score"]
    if row["score"].strip() and not fits(row["score"].strip()):
        raise UserError(f"{where}: score is {row['score']!r}, not {expected}.")


def _same_paper(cell: str, paper: str) -> bool:
    """Also where a spreadsheet took the id for a number and dropped its outer zeros."""
    if cell == paper:
        return True
    new_style = "." in paper and "/" not in paper and ARXIV_ID.fullmatch(paper)
    return bool(new_style) and cell == paper.strip("0")


def _table(path: Path, columns: Sequence[str], what: str, optional: Sequence[str] = ()):
    """Number and cells of every line of a comma-separated file with these columns."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            header = next(lines, [])
            rows = [(lines.line_num, cells) for cells in lines if cells]
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise UserError(
            f"{path} cannot be read as {what}: {problem}. Save it as comma-separated UTF-8."
        ) from None
    if sorted({*header} - {*optional}) != sorted(columns) or len({*header}) != len(header):
        raise UserError(
            f"{path} is not {what}: it must have the columns {', '.join(columns)}, separated by "
            f"commas; its first line is {','.join(header)[:80]!r}."
        )
    for number, cells in rows:
        if len(cells) != len(header):
            raise UserError(
                f"{path}, line {number} has {len(cells)} cells; {len(header)} are expected."
            )
        yield number, dict(zip(header, cells, strict=True))


def collect(
    files: Sequence[Path], key: Path | None, released: Path | None, target: Path
) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """The ratings of an experiment: the files given, else the released ones, else none.

    Parameters
    ----------
    files, key
        A file in the published schema without a key; sheets sent back with theirs.
    released
        The authors' file, where there is one.
    target
        Where sheets that were opened are written, in the published schema.

    Returns
    -------
    tuple or None
        Ratings as :func:`~.means.read` gives them, and units of which some system has no
        score (``rater``, ``paper``, ``systems``); ``None`` if there are no ratings.
    """
    if key is not None:
        opened, missing = unblind(files, key)
        with writing(target) as partial:
            opened.to_csv(partial, index=False)
        return means.read(target), missing
    file = files[0] if files else released
    if file is None:
        return None
    found = means.read(file)
    missing = means.incomplete(found).rename(columns={"missing": "systems"})
    return found, missing[["rater", "paper", "systems"]]
