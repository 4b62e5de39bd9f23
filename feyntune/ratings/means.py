"""Experts' ratings of completions: reading them, what is odd about them, and their means.

The schema is that of the authors' published file: one rating per line, of the completion by one
system (``model``) of one paper's abstract, by one rater.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from feyntune.errors import UserError
from feyntune.evaluation import statistics
from feyntune.experiment import recipes
from feyntune.experiment.sections import Statistics

COLUMNS = ("paper", "model", "rater", "score", "source", "category")
# ChatGPT-4 is what the authors asked; ChatGPT whatever model notebook 05 asks today.
COMMERCIAL = ("ChatGPT-4", "ChatGPT", "Claude", "Gemini", "DeepSeek")
# Name and category in the file of each system, by our name, in the order of the tables.
NAMES = {
    recipes.BASE: ("Base", "Base"),
    **{
        f"{dataset}-{flavour}": (f"{dataset}{ending}", flavour)
        for flavour, ending in zip(recipes.FLAVOURS, ("", "_qkv"), strict=True)
        for dataset in recipes.DATASETS
    },
    **{name: (name, "Commercial") for name in COMMERCIAL},
}
SYSTEMS = {name: ours for ours, (name, _) in NAMES.items()}
CATEGORIES = list(dict.fromkeys(category for _, category in NAMES.values()))
ARXIV_ID = re.compile(r"(\d{4}\.\d{4,5}|[a-z-]+(\.[A-Z]{2})?/\d{7})(v\d+)?")
# What a cell must be. The source is not checked here: see `defects`.
RULES = {
    "paper": (ARXIV_ID.fullmatch, "an arXiv id; spreadsheets drop zeros unless it is text"),
    "model": (SYSTEMS.get, f"one of {', '.join(SYSTEMS)}"),
    "rater": (str.strip, "a name or initials"),
    "score": (re.compile("[1-9]|10").fullmatch, "a whole number from 1 to 10"),
    "category": (CATEGORIES.__contains__, f"one of {', '.join(CATEGORIES)}"),
}
COMMON, INDIVIDUAL = "common", "individual"


def read(path: Path) -> pd.DataFrame:
    """Read ratings: comma-separated UTF-8 with the six columns of the published file.

    Parameters
    ----------
    path
        The file; its columns may stand in any order.

    Returns
    -------
    DataFrame
        A row per rating: ``line`` in the file, ``paper`` (arXiv id, text), ``model`` (our name of
        the system), ``rater``, ``score`` (1 to 10), ``source`` (as the file says) and
        ``category``.

    Raises
    ------
    UserError
        If the file cannot be read or is empty, a column is missing or unexpected, a cell is not
        what it must be, or a rater has rated one system's completion of one paper twice.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(_rows(csv.reader(file, strict=True), path))
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise UserError(
            f"{path} cannot be read as ratings: {problem}. Save it as comma-separated UTF-8."
        ) from None
    if not rows:
        raise UserError(f"{path} has no ratings below its first line.")
    ratings = pd.DataFrame(rows, columns=["line", *COLUMNS])
    _refuse_duplicates(ratings, path)
    return ratings.assign(
        model=ratings["model"].map(SYSTEMS), score=ratings["score"].astype("int64")
    )


def _rows(lines: Iterator[list[str]], path: Path) -> Iterator[dict[str, object]]:
    """Every rating as a checked row."""
    header = next(lines, [])
    if sorted(header) != sorted(COLUMNS):
        raise UserError(
            f"{path} must have the columns {', '.join(COLUMNS)}, separated by commas; its first "
            f"line is {','.join(header)!r}."
        )
    for cells in filter(None, lines):
        where = f"{path}, line {lines.line_num}"
        if len(cells) != len(header):
            raise UserError(f"{where} has {len(cells)} cells; {len(header)} are expected.")
        row = dict(zip(header, cells, strict=True))
        for column, (fits, expected) in RULES.items():
            if not fits(row[column]):
                raise UserError(f"{where}: {column} is {row[column]!r}, not {expected}.")
        category = NAMES[SYSTEMS[row["model"]]][1]
        if row["category"] != category:
            raise UserError(
                f"{where}: category of {row['model']} is {row['category']!r}, not {category!r}."
            )
        yield {"line": lines.line_num, **row}


def _refuse_duplicates(ratings: pd.DataFrame, path: Path) -> None:
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


def shared_papers(ratings: pd.DataFrame) -> list[str]:
    """The papers that every rater has rated, in the order of the file."""
    raters = ratings.groupby("paper", sort=False)["rater"].nunique()
    return list(raters.index[raters == ratings["rater"].nunique()])


def defects(ratings: pd.DataFrame) -> pd.DataFrame:
    """Ratings whose ``source`` is not what their paper makes it, as ``expected`` says.

    A paper that every rater has rated is ``common``, any other ``individual``. In the published
    file nine rows say otherwise; nothing here is computed from that column.
    """
    shared = ratings["paper"].isin(shared_papers(ratings))
    expected = shared.map({True: COMMON, False: INDIVIDUAL})
    listed = ratings.assign(expected=expected)[ratings["source"] != expected]
    return listed[["line", "paper", "rater", "model", "source", "expected"]].reset_index(drop=True)


def incomplete(ratings: pd.DataFrame) -> pd.DataFrame:
    """Papers of which a rater has not rated every system: ``paper``, ``rater``, ``missing``.

    The systems are those that anybody has rated; ``missing`` lists them.
    """
    systems = [name for name in NAMES if name in set(ratings["model"])]
    rows = []
    for (paper, rater), unit in ratings.groupby(["paper", "rater"], sort=False):
        missing = [name for name in systems if name not in set(unit["model"])]
        if missing:
            rows.append((paper, rater, ", ".join(missing)))
    return pd.DataFrame(rows, columns=["paper", "rater", "missing"])


def human_evaluation(ratings: pd.DataFrame, settings: Statistics) -> pd.DataFrame:
    """Mean score of every category and system, on all papers and on those that all raters share.

    Category means of the published file over all papers: Base 3.750 (36 ratings), LoRA-all 5.428
    (360), LoRA-QKV 4.922 (360), Commercial 7.500 (144).

    Parameters
    ----------
    ratings
        As :func:`read` gives them.
    settings
        Of the bootstrap. Whole papers are resampled, with all their ratings: those of one paper
        are of similar prompts and no independent draws.

    Returns
    -------
    DataFrame
        ``papers`` (``all`` or ``shared``), ``category``, ``system`` (``all``: the category's
        row), ``ratings`` (their number), ``mean``, ``low`` and ``high`` (percentile bootstrap
        interval of the mean; none for fewer than two papers), ``std`` (``n - 1``), and of each
        rater ``mean_<rater>``, ``std_<rater>`` and ``ratings_<rater>``.
    """
    shared = ratings["paper"].isin(shared_papers(ratings))
    parts = {"all": ratings, "shared": ratings[shared]}
    tables = [_means(part, settings).assign(papers=name) for name, part in parts.items()]
    table = pd.concat(tables, ignore_index=True)
    return table[["papers", *table.columns.drop("papers")]]


def _means(ratings: pd.DataFrame, settings: Statistics) -> pd.DataFrame:
    """A row per category, then one per system, each in the order of the tables."""
    keys = ["category", "system"]
    systems = ratings.rename(columns={"model": "system"})
    both = pd.concat([systems.assign(system="all"), systems])
    scores = both.groupby(keys)["score"]
    table = scores.agg(ratings="size", mean="mean")
    table = table.join(_intervals(both, keys, settings)).assign(std=scores.std())
    by_rater = both.groupby([*keys, "rater"])["score"]
    for name, values in (
        ("mean", by_rater.mean()),
        ("std", by_rater.std()),
        ("ratings", by_rater.size()),
    ):
        table = table.join(values.unstack("rater").add_prefix(f"{name}_"))
    table = table.reset_index()
    order = {name: place for place, name in enumerate(["all", *NAMES, *CATEGORIES])}
    return table.sort_values(["system", "category"], key=lambda names: names.map(order))


def _intervals(ratings: pd.DataFrame, keys: list[str], settings: Statistics) -> pd.DataFrame:
    """Interval of the mean score of each group, from resampled papers; none for one paper."""
    papers = ratings.pivot_table(
        index="paper", columns=keys, values="score", aggfunc=["sum", "count"], fill_value=0
    )
    ends = pd.DataFrame(index=papers["sum"].columns, columns=["low", "high"], dtype=float)
    if len(papers) > 1:
        means = statistics.resampled_ratios(
            papers["sum"], papers["count"], resamples=settings.resamples, seed=settings.seed
        )
        ends[:] = statistics.percentile_interval(means, settings.confidence).T
    return ends
