"""Ratings that experts sent back: files in the published schema, or sheets and their key."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from unicodedata import normalize

import pandas as pd

from feyntune.data.snapshot import ARXIV_ID
from feyntune.errors import UserError
from feyntune.experiment.files import writing
from feyntune.ratings import means
from feyntune.ratings.means import COLUMNS, NAMES, Names
from feyntune.ratings.sheets import KEY_COLUMNS, TEXTS

# Characters that no one sees: of width zero, marks of order, soft hyphens, byte order marks.
INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"))
ADDRESS = (
    r"arxiv:|(?:https?://)?(?:www\.)?arxiv\.org/(?:abs|pdf)/"
    r"|(?:https?://(?:dx\.)?doi\.org/)?10\.48550/arxiv\."
)
# What spreadsheets and people make of a cell, and what it certainly means: a number with a point,
# an id with its address or version; see also `_spelled`.
MEANT = {
    "score": (re.compile(r"(\d+)[.,]0+"), r"\1"),
    "paper": (re.compile(rf"(?i)(?:{ADDRESS})?(.+?)(?:v\d+)?(?:\.pdf)?"), r"\1"),
}
# What a cell of a column must then be. `source` is not checked: see `means.wrong_sources`.
RULES = {
    "paper": (ARXIV_ID.fullmatch, "an arXiv id; spreadsheets drop zeros unless it is text"),
    "rater": (str.strip, "a name or initials"),
    "score": (re.compile("[1-9]|10").fullmatch, "a whole number from 1 to 10"),
}

Row = dict[str, str]


def collect(
    files: Sequence[Path],
    key: Path | None,
    released: Path | None,
    target: Path,
    names: Names = NAMES,
) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """The ratings of an experiment: the files given, else the released ones, else none.

    Parameters
    ----------
    files, key
        A file in the published schema without a key; returned sheets with theirs.
    released
        The authors' file, where there is one.
    target
        Where ratings from sheets are written, in the published schema.
    names
        Name and category in files of each system, by our name.

    Returns
    -------
    tuple or None
        Ratings as :func:`read_ratings` gives them, and the units in which some system has no
        score (``rater``, ``paper``, ``systems``); ``None`` if there are no ratings.
    """
    if key is not None:
        opened, missing = unblind(files, key, names)
        with writing(target) as partial:
            opened.to_csv(partial, index=False)
        return read_ratings(target, names), missing
    file = files[0] if files else released
    if file is None:
        return None
    found = read_ratings(file, names)
    missing = means.incomplete(found).rename(columns={"missing": "systems"})
    return found, missing[["rater", "paper", "systems"]]


def read_ratings(path: Path, names: Names = NAMES) -> pd.DataFrame:
    """Read ratings: comma-separated UTF-8 with the six columns of the published file.

    Parameters
    ----------
    path
        The file; its columns may stand in any order.
    names
        As for :func:`collect`.

    Returns
    -------
    DataFrame
        A row per rating: ``line`` in the file, ``paper`` (arXiv id, text), ``model`` (our name of
        the system), ``rater``, ``score`` (1 to 10), ``source`` (as the file says) and
        ``category``.

    Raises
    ------
    UserError
        If the file cannot be read or is empty, a column is missing or unexpected, a cell is
        wrong, or a rater has rated one system's completion of one paper twice.
    """
    rows = []
    for line, row in _rows(path, COLUMNS, "a file of ratings", names):
        _check(row, COLUMNS, f"{path}, line {line}", names)
        rows.append({"line": line, **row})
    if not rows:
        raise UserError(f"{path} has no ratings below its first line.")
    ratings = pd.DataFrame(rows, columns=["line", *COLUMNS])
    _check_raters(ratings, path)
    _check_duplicates(ratings, path)
    return ratings.assign(
        model=ratings["model"].map(_ours(names)), score=ratings["score"].astype("int64")
    )


def _check_raters(ratings: pd.DataFrame, path: Path) -> None:
    """Raise a UserError if one rater may be written in two ways."""
    first = ratings.drop_duplicates("rater").set_index("rater")["line"]
    spelled: dict[str, str] = {}
    for name, line in first.items():
        other = spelled.setdefault(name.casefold(), name)
        if other != name:
            raise UserError(
                f"{path}, line {line}: the rater is {name!r}, in line {first[other]} {other!r}. "
                "Write one rater in one way, and two in two."
            )


def _check_duplicates(ratings: pd.DataFrame, path: Path) -> None:
    unit = ["paper", "rater", "model"]
    again = ratings[ratings.duplicated(unit)]
    if again.empty:
        return
    row = again.iloc[0]
    first = ratings.loc[(ratings[unit] == row[unit]).all(axis=1), "line"].iloc[0]
    raise UserError(
        f"{path}, line {row['line']}: {row['rater']} has rated {row['model']} on {row['paper']} "
        f"before, in line {first}. Keep one of the two."
    )


def unblind(
    files: Sequence[Path], key: Path, names: Names = NAMES
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read returned sheets, and look up the system of each completion in their key.

    Parameters
    ----------
    files
        Exports of the page, or the CSV with its scores filled in.
    key
        ``key.csv`` of these sheets.
    names
        As for :func:`collect`.

    Returns
    -------
    ratings : DataFrame
        In the published schema, in the order of the key.
    missing : DataFrame
        Completions without a score: ``rater``, ``paper``, ``systems`` (names, in a row).

    Raises
    ------
    UserError
        If a file cannot be read, a cell is wrong, a completion is rated twice, a row is not in
        the key, or there is no score at all.
    """
    by_code = _read_key(key, names)
    scores: dict[str, str] = {}
    seen: dict[str, str] = {}
    for file in files:
        for line, row in _rows(file, COLUMNS, "a rating sheet", names, optional=TEXTS):
            where = f"{file}, line {line}"
            _check_against_key(row, by_code, where, key)
            code = row["model"].lower()
            if code in seen:
                raise UserError(f"{where}: {code} stands in {seen[code]} too.")
            seen[code] = where
            scores[code] = row["score"]
    frame = pd.DataFrame(list(by_code.values()))
    frame["score"] = frame["code"].map(scores).fillna("")
    rated = frame["score"] != ""
    if not rated.any():
        raise UserError(f"No completion has a score in {', '.join(map(str, files))}.")
    units = frame[~rated].groupby(["rater", "paper"], sort=False)["model"]
    missing = units.agg(lambda some: ", ".join(sorted(some, key=list(_ours(names)).index)))
    return frame.loc[rated, list(COLUMNS)], missing.rename("systems").reset_index()


def _read_key(path: Path, names: Names) -> dict[str, Row]:
    """The rows of a key by code, each checked."""
    found: dict[str, Row] = {}
    for line, row in _rows(path, KEY_COLUMNS, "the key of rating sheets", names):
        where = f"{path}, line {line}"
        _check(row, KEY_COLUMNS, where, names)
        if row["code"] in found:
            raise UserError(f"{where}: {row['code']} stands in the key twice.")
        found[row["code"]] = row
    return found


def _check_against_key(row: Row, key: dict[str, Row], where: str, file: Path) -> None:
    """A row of a sheet must be in the key, and its score a score or empty."""
    known = key.get(row["model"].lower())  # spreadsheets begin a word with a capital
    if known is None:
        raise UserError(
            f"{where}: the code {row['model']!r} is not in {file}: that is not this sheet's key."
        )
    if row["rater"].casefold() != known["rater"].casefold():
        raise UserError(f"{where}: the rater is {row['rater']!r}, in the key {known['rater']!r}.")
    if not _same_paper(row["paper"], known["paper"]):
        raise UserError(f"{where}: the paper is {row['paper']!r}, in the key {known['paper']!r}.")
    if row["score"]:
        _check(row, ["score"], where)


def _same_paper(cell: str, paper: str) -> bool:
    """Also if a spreadsheet took the id for a number and dropped its outer zeros."""
    if cell == paper:
        return True
    new_style = "." in paper and "/" not in paper and ARXIV_ID.fullmatch(paper)
    return bool(new_style) and cell == paper.strip("0")


def _ours(names: Names) -> dict[str, str]:
    """Our name of each system, by its name in files."""
    return {name: ours for ours, (name, _) in names.items()}


def _check(row: Row, columns: Iterable[str], where: str, names: Names = NAMES) -> None:
    """Raise a UserError for the first cell that is not what its column must be."""
    systems, kinds = _ours(names), dict.fromkeys(kind for _, kind in names.values())
    rules = RULES | {
        "model": (systems.__contains__, f"one of {', '.join(systems)}"),
        "category": (kinds.__contains__, f"one of {', '.join(kinds)}"),
    }
    for column in (name for name in COLUMNS if name in rules and name in columns):
        fits, expected = rules[column]
        if not fits(row[column]):
            raise UserError(f"{where}: {column} is {row[column]!r}, not {expected}.")
    if "category" in columns:
        category = names[systems[row["model"]]][1]
        if row["category"] != category:
            raise UserError(
                f"{where}: category of {row['model']} is {row['category']!r}, not {category!r}."
            )


def _rows(
    path: Path, columns: Sequence[str], what: str, names: Names, optional: Sequence[str] = ()
) -> Iterator[tuple[int, Row]]:
    """Line number and cells, as they are meant, of every row of a comma-separated file.

    Empty rows, and columns at the end without a name, are what a spreadsheet adds.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            header = [name.lower() for name in _trimmed(next(lines, []), 0)]
            rows = [(lines.line_num, _trimmed(cells, len(header))) for cells in lines]
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise UserError(
            f"{path} cannot be read as {what}: {problem}. Save it as comma-separated UTF-8."
        ) from None
    if sorted({*header} - {*optional}) != sorted(columns) or len({*header}) != len(header):
        raise UserError(
            f"{path} is not {what}: it must have the columns {', '.join(columns)}, separated by "
            f"commas; its first line is {','.join(header)[:80]!r}."
        )
    spelled = _spelled(names)
    for number, cells in rows:
        if not any(cells):
            continue
        if len(cells) != len(header):
            raise UserError(
                f"{path}, line {number} has {len(cells)} cells; {len(header)} are expected."
            )
        named = zip(header, cells, strict=True)
        yield number, {name: _meant(name, cell, spelled) for name, cell in named}


def _trimmed(cells: Sequence[str], least: int) -> list[str]:
    """Cells without the blanks around them, and without empty ones after the first ``least``.

    Characters that look alike become one, as accents that a Mac writes apart, or digits of Asian
    keyboards; else one rater would be two.
    """
    found = [normalize("NFKC", cell).translate(INVISIBLE).strip() for cell in cells]
    while len(found) > least and not found[-1]:
        found.pop()
    return found


def _meant(column: str, cell: str, spelled: dict[str, dict[str, str]]) -> str:
    pattern, replacement = MEANT.get(column, (None, None))
    if pattern and (found := pattern.fullmatch(cell)):
        cell = found.expand(replacement)
    return spelled.get(column, {}).get(cell.casefold(), cell)


def _spelled(names: Names) -> dict[str, dict[str, str]]:
    """By column, names in any case and as they are written."""
    systems, kinds = zip(*names.values(), strict=True)
    columns = {"model": systems, "category": kinds, "source": (means.COMMON, means.INDIVIDUAL)}
    return {column: {name.casefold(): name for name in of} for column, of in columns.items()}
