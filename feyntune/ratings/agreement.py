"""What ratings say of systems, and how far the raters agree.

Ratings of one paper are no independent draws: the raters read the same prompt and, of shared
papers, the same completions. Everything below therefore resamples, flips or leaves out whole
papers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from feyntune.evaluation import statistics
from feyntune.experiment import recipes
from feyntune.experiment.sections import Statistics
from feyntune.ratings.means import CATEGORIES, NAMES, shared_papers

# krippendorff, pingouin and statsmodels are imported where they are used: they take seconds.

FEW = 3  # models below which a rank correlation says nothing
CATEGORY, WITH_BASE, FLAVOURS = "categories", "with base", "between flavours"


def differences(ratings: pd.DataFrame, settings: Statistics) -> pd.DataFrame:
    """Compare systems, and categories, within (paper, rater) units.

    Parameters
    ----------
    ratings
        As :func:`feyntune.ratings.means.read` gives them.
    settings
        Of the bootstrap; the permutation test uses as many resamples.

    Returns
    -------
    DataFrame
        A row per comparison: ``comparison``, ``system``, ``reference``, ``units`` and ``papers``
        (that have a score of both), ``difference`` (mean over units of system - reference, in
        points; of a category, its mean in the unit), ``low`` and ``high`` (percentile interval of
        resampled papers; none for fewer than two), ``p`` (two-sided, from flipping the sign of
        all units of a paper together) and ``p_holm`` (Holm's correction over all rows).
    """
    from statsmodels.stats.multitest import multipletests

    units = ratings.pivot(index=["paper", "rater"], columns="model", values="score")
    grouped = ratings.pivot_table(
        index=["paper", "rater"], columns="category", values="score", aggfunc="mean"
    )
    rows = []
    for comparison, system, reference in _pairs(set(units), set(grouped)):
        of = grouped if comparison == CATEGORY else units
        found = (of[system] - of[reference]).dropna()
        rows.append((comparison, system, reference, *_difference(found, settings)))
    columns = ["units", "papers", "difference", "low", "high", "p"]
    table = pd.DataFrame(rows, columns=["comparison", "system", "reference", *columns])
    tested = table["p"].notna()
    table["p_holm"] = np.nan
    if tested.any():
        table.loc[tested, "p_holm"] = multipletests(table.loc[tested, "p"], method="holm")[1]
    return table


def _pairs(systems: set[str], categories: set[str]) -> list[tuple[str, str, str]]:
    """Later categories with earlier ones, every system with base, flavour with flavour."""
    kinds = [kind for kind in CATEGORIES if kind in categories]
    others = [name for name in NAMES if name in systems and name != recipes.BASE]
    pairs = [(CATEGORY, later, earlier) for earlier, later in combinations(kinds, 2)]
    if recipes.BASE in systems:
        pairs += [(WITH_BASE, name, recipes.BASE) for name in others]
    flavours = [tuple(f"{d}-{flavour}" for flavour in recipes.FLAVOURS) for d in recipes.DATASETS]
    return pairs + [(FLAVOURS, *pair) for pair in flavours if set(pair) <= systems]


def _difference(units: pd.Series, settings: Statistics) -> tuple[float, ...]:
    """Units, papers, mean, its interval and p of differences by (paper, rater)."""
    papers = units.groupby("paper").agg(["sum", "count"]).to_numpy(dtype=float)
    if not len(papers):
        return 0, 0, np.nan, np.nan, np.nan, np.nan
    low = high = np.nan
    if len(papers) > 1:
        sums, counts = statistics.resampled_means(
            papers, resamples=settings.resamples, seed=settings.seed
        ).T
        ends = statistics.percentile_interval((sums / counts)[:, None], settings.confidence)
        low, high = ends.ravel()
    p = statistics.sign_flip_p_values(
        papers[:, :1], resamples=settings.resamples, seed=settings.seed
    )
    return len(units), len(papers), units.mean(), low, high, p[0]


def between_raters(ratings: pd.DataFrame) -> pd.DataFrame:
    """How far the raters agree.

    Returns
    -------
    DataFrame
        A row per measure: ``measure``, ``raters``, ``papers`` and ``completions`` it is of,
        ``value``, ``low`` and ``high`` (the extremes when any one paper is left out) and ``note``
        (why there is no value). Krippendorff's alpha takes every completion that two or more have
        rated, the intraclass correlations those of all; the rank correlation of two raters is of
        their mean scores of each system, on the papers both rated.
    """
    several = ratings.groupby(["paper", "model"])["rater"].transform("nunique") > 1
    complete = ratings["paper"].isin(shared_papers(ratings))
    raters = sorted(set(ratings["rater"]))
    rows = [
        _measured("Krippendorff's alpha, ordinal", ratings[several], _alpha("ordinal")),
        _measured("Krippendorff's alpha, interval", ratings[several], _alpha("interval")),
        _measured("ICC(2,1), one rater, absolute", ratings[complete], _icc("ICC(A,1)")),
        _measured("ICC(3,1), one rater, consistency", ratings[complete], _icc("ICC(C,1)")),
        _measured("ICC(2,k), mean of raters, absolute", ratings[complete], _icc("ICC(A,k)")),
    ]
    for one, other in combinations(raters, 2):
        pair = ratings[ratings["rater"].isin([one, other])]
        both = pair[pair["paper"].isin(shared_papers(pair))] if len({*pair["rater"]}) > 1 else pair
        rows.append(_measured(f"Spearman of systems, {one} and {other}", both, _ranks))
    return pd.DataFrame(rows)


def _measured(name: str, part: pd.DataFrame, measure: Callable[[pd.DataFrame], float]) -> dict:
    """A measure with its extremes when a paper is left out, or why there is none."""
    papers = sorted(set(part["paper"]))
    row = {
        "measure": name,
        "raters": part["rater"].nunique(),
        "papers": len(papers),
        "completions": len(part.drop_duplicates(["paper", "model"])),
        "value": np.nan, "low": np.nan, "high": np.nan, "note": "",
    }  # fmt: skip
    if row["raters"] < 2:
        return row | {"note": "no paper that two raters share"}
    row["value"] = measure(part)
    if np.isnan(row["value"]):
        return row | {"note": "too few completions, or scores that do not differ"}
    if len(papers) == 1:
        return row | {"note": "one paper only"}
    without = [measure(part[part["paper"] != paper]) for paper in papers]
    return row | {"low": min(without), "high": max(without)}


def _matrix(part: pd.DataFrame) -> pd.DataFrame:
    """Completions x raters."""
    return part.pivot(index=["paper", "model"], columns="rater", values="score")


def _alpha(level: str) -> Callable[[pd.DataFrame], float]:
    def measure(part: pd.DataFrame) -> float:
        import krippendorff

        scores = _matrix(part).to_numpy(dtype=float).T
        if len(np.unique(scores[~np.isnan(scores)])) < 2:
            return np.nan
        return float(krippendorff.alpha(scores, level_of_measurement=level))

    return measure


def _icc(kind: str) -> Callable[[pd.DataFrame], float]:
    def measure(part: pd.DataFrame) -> float:
        import pingouin

        scores = _matrix(part).dropna().reset_index(drop=True)
        if len(scores) < 5 or np.ptp(scores.to_numpy()) == 0:  # pingouin's own least
            return np.nan
        long = scores.rename_axis("completion").reset_index().melt("completion", value_name="score")
        # Perfect agreement divides by zero on the way to intervals that are not used.
        with warnings.catch_warnings(action="ignore"):
            table = pingouin.intraclass_corr(long, "completion", "rater", "score")
        return float(table.set_index("Type").loc[kind, "ICC"])

    return measure


def _ranks(part: pd.DataFrame) -> float:
    means = part.pivot_table(index="model", columns="rater", values="score").dropna()
    if len(means) < FEW or (means.nunique() < 2).any():
        return np.nan
    return float(stats.spearmanr(*means.to_numpy().T).statistic)
