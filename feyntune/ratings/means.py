"""Experts' ratings of completions: who rated what, what is wrong with a file, and means.

The schema is that of the authors' published file: one rating per line, of the completion by one
system (``model``) of one paper's abstract, by one rater.
"""

from __future__ import annotations

import pandas as pd

from feyntune.evaluation import statistics
from feyntune.evaluation.grouping import Models
from feyntune.experiment import recipes
from feyntune.experiment.sections import Statistics

COLUMNS = ("paper", "model", "rater", "score", "source", "category")
# The authors asked ChatGPT-4; ChatGPT is the model that notebook 05 asks today.
COMMERCIAL = ("ChatGPT-4", "ChatGPT", "Claude", "Gemini", "DeepSeek")
Names = dict[str, tuple[str, str]]
# Name and category of each system in the published file, by our name, in the order of the tables.
NAMES: Names = {
    recipes.BASE: ("Base", "Base"),
    **{
        f"{dataset}-{flavour}": (f"{dataset}{ending}", flavour)
        for flavour, ending in zip(recipes.FLAVOURS, ("", "_qkv"), strict=True)
        for dataset in recipes.DATASETS
    },
    **{name: (name, "Commercial") for name in COMMERCIAL},
}
COMMON, INDIVIDUAL = "common", "individual"


def names_with(models: Models) -> Names:
    """The systems of a file of ratings: those that were published, and an experiment's variants.

    A variant that the authors did not have is written by its own name, its category is its flavour;
    a published system whose name in files a variant bears is left out.
    """
    ours = {name: (name, its.flavour) for name, its in models.variants.items()}
    commercial = {name: NAMES[name] for name in COMMERCIAL}
    published = {
        name: given
        for name, given in NAMES.items()
        if name not in commercial and given[0] not in ours
    }
    return published | {n: g for n, g in ours.items() if n not in published} | commercial


def in_order(ratings: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Categories and systems that ratings are of, in the order of the tables.

    Base first, commercial models last, what the published file lacks before them as it comes.
    """
    found = ratings[["category", "model"]].drop_duplicates()
    places = {name: at for at, name in enumerate(NAMES)}
    before = places[COMMERCIAL[0]] - 0.5
    systems = sorted(found["model"].unique(), key=lambda name: places.get(name, before))
    kinds = dict.fromkeys(category for _, category in NAMES.values())
    kinds = {name: at for at, name in enumerate(kinds)}
    last = kinds["Commercial"] - 0.5
    return sorted(found["category"].unique(), key=lambda name: kinds.get(name, last)), systems


def shared_papers(ratings: pd.DataFrame) -> list[str]:
    """The papers that every rater has rated, in the order of the file."""
    raters = ratings.groupby("paper", sort=False)["rater"].nunique()
    return list(raters.index[raters == ratings["rater"].nunique()])


def wrong_sources(ratings: pd.DataFrame) -> pd.DataFrame:
    """Ratings whose ``source`` does not fit their paper; ``expected`` is the one that does.

    A paper that every rater has rated is ``common``, any other ``individual``. In the published
    file nine rows say otherwise; nothing is computed from that column.
    """
    shared = ratings["paper"].isin(shared_papers(ratings))
    expected = shared.map({True: COMMON, False: INDIVIDUAL})
    listed = ratings.assign(expected=expected)[ratings["source"] != expected]
    return listed[["line", "paper", "rater", "model", "source", "expected"]].reset_index(drop=True)


def incomplete(ratings: pd.DataFrame) -> pd.DataFrame:
    """Papers of which a rater has not rated every system: ``paper``, ``rater``, ``missing``.

    The systems are those that anybody has rated; ``missing`` lists them.
    """
    _, systems = in_order(ratings)
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
        As :func:`feyntune.ratings.returned.read_ratings` gives them.
    settings
        Of the bootstrap. Whole papers are resampled with all their ratings, because ratings of
        one paper are not independent.

    Returns
    -------
    DataFrame
        ``papers`` (``all``, or ``shared`` if there are such), ``category``, ``system`` (``all``:
        the category's row), ``ratings`` (their number), ``mean``, ``low`` and ``high`` (percentile
        bootstrap interval of the mean; none for fewer than two papers), ``std`` (``n - 1``), and
        of each rater ``mean_<rater>``, ``std_<rater>`` and ``ratings_<rater>``.
    """
    shared = ratings["paper"].isin(shared_papers(ratings))
    parts = {"all": ratings, "shared": ratings[shared]}
    tables = [
        _means(part, settings).assign(papers=name) for name, part in parts.items() if len(part)
    ]
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
    categories, names = in_order(ratings)
    order = {name: place for place, name in enumerate(["all", *names, *categories])}
    return table.sort_values(["system", "category"], key=lambda names: names.map(order))


def _intervals(ratings: pd.DataFrame, groups: list[str], settings: Statistics) -> pd.DataFrame:
    """Interval of the mean score of each group, from resampled papers; none for one paper."""
    means = resampled_means(ratings, groups, settings)
    ends = pd.DataFrame(index=means.columns, columns=["low", "high"], dtype=float)
    if len(means):
        ends[:] = statistics.percentile_interval(means.to_numpy(), settings.confidence).T
    return ends


def resampled_means(
    ratings: pd.DataFrame, groups: str | list[str], settings: Statistics
) -> pd.DataFrame:
    """Mean score of each group over bootstrap resamples of the papers: resamples x groups.

    Empty if there are fewer than two papers. NaN where a resample has no rating of the group.
    """
    papers = ratings.pivot_table(
        index="paper", columns=groups, values="score", aggfunc=["sum", "count"], fill_value=0
    )
    sums, counts = papers["sum"], papers["count"]
    if len(papers) < 2:
        return pd.DataFrame(columns=sums.columns, dtype=float)
    means = statistics.resampled_ratios(
        sums, counts, resamples=settings.resamples, seed=settings.seed
    )
    return pd.DataFrame(means, columns=sums.columns)
