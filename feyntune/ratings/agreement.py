"""Differences between systems by their ratings, and how far the raters agree.

Ratings of one paper are not independent: the raters read the same prompt and, for shared papers,
the same completions. Everything below therefore resamples, flips or leaves out whole papers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from feyntune.evaluation import statistics
from feyntune.evaluation.grouping import WITH_BASE, Models
from feyntune.experiment.recipes import BASE
from feyntune.experiment.sections import Statistics
from feyntune.ratings.means import in_order, shared_papers
from feyntune.ratings.predictors import FEWEST_MODELS

# nltk and statsmodels are imported where they are used: they take seconds.

FEWEST_COMPLETIONS = 5  # below which an intraclass correlation says nothing
ICC = {
    "ICC(2,1)": "one rater, absolute",
    "ICC(3,1)": "one rater, consistency",
    "ICC(2,k)": "mean of raters, absolute",
}
CATEGORY = "categories"


def differences(ratings: pd.DataFrame, models: Models, settings: Statistics) -> pd.DataFrame:
    """Compare systems, and categories, within (paper, rater) units.

    Parameters
    ----------
    ratings
        As :func:`feyntune.ratings.returned.read_ratings` gives them.
    models
        The variants, of which those of a dataset are compared with each other.
    settings
        Of the bootstrap; the permutation test uses as many resamples.

    Returns
    -------
    DataFrame
        A row per comparison: ``comparison``, ``system``, ``reference``, ``units`` and ``papers``
        (with a score of both), ``difference`` (mean over units of system - reference, in
        points; of a category, its mean in the unit), ``low`` and ``high`` (percentile interval of
        resampled papers; none for fewer than two), ``p`` (two-sided, from flipping the sign of
        all units of a paper together) and ``p_holm`` (Holm's correction over all rows).
    """
    units = ratings.pivot(index=["paper", "rater"], columns="model", values="score")
    grouped = ratings.pivot_table(
        index=["paper", "rater"], columns="category", values="score", aggfunc="mean"
    )
    rows = []
    for comparison, system, reference in _pairs(ratings, models):
        of = grouped if comparison == CATEGORY else units
        found = (of[system] - of[reference]).dropna()
        rows.append((comparison, system, reference, *_difference(found, settings)))
    columns = ["units", "papers", "difference", "low", "high", "p"]
    table = pd.DataFrame(rows, columns=["comparison", "system", "reference", *columns])
    return table.assign(p_holm=statistics.holm(table["p"]))


def _pairs(ratings: pd.DataFrame, models: Models) -> list[tuple[str, str, str]]:
    """Later categories with earlier ones, every system with base, variants of a dataset."""
    categories, systems = in_order(ratings)
    pairs = [(CATEGORY, later, earlier) for earlier, later in combinations(categories, 2)]
    if BASE in systems:
        pairs += [(WITH_BASE, name, BASE) for name in systems if name != BASE]
    return pairs + [
        (kind, *pair)
        for pair, kind in models.pairs.items()
        if kind != WITH_BASE and set(pair) <= set(systems)
    ]


def _difference(units: pd.Series, settings: Statistics) -> tuple[float, ...]:
    """Units, papers, mean, its interval and p of differences by (paper, rater)."""
    papers = units.groupby("paper")
    sums, counts = (column.to_numpy(float)[:, None] for column in (papers.sum(), papers.count()))
    if not len(sums):
        return 0, 0, np.nan, np.nan, np.nan, np.nan
    drawn = {"resamples": settings.resamples, "seed": settings.seed}
    low = high = np.nan
    if len(sums) > 1:
        means = statistics.resampled_ratios(sums, counts, **drawn)
        low, high = statistics.percentile_interval(means, settings.confidence).ravel()
    (p,) = statistics.sign_flip_p_values(sums, **drawn)
    return len(units), len(sums), units.mean(), low, high, p


def between_raters(ratings: pd.DataFrame) -> pd.DataFrame:
    """How far the raters agree.

    Returns
    -------
    DataFrame
        A row per measure: ``measure``, ``raters``, ``papers`` and ``completions`` it is of,
        ``value``, ``low`` and ``high`` (the extremes when any one paper is left out; none if there
        is no value without one of them) and ``note`` (why there is no value or no extremes).
        Krippendorff's alpha uses every completion with two or more ratings, the intraclass
        correlations those that all raters have rated; the rank correlation of two raters is of
        their mean scores of each system, on the papers both rated.
    """
    several = ratings.groupby(["paper", "model"])["rater"].transform("nunique") > 1
    complete = ratings["paper"].isin(shared_papers(ratings))
    rows = []
    for level in ("ordinal", "interval"):
        alpha = partial(_alpha, level=level)
        rows += _rows([f"Krippendorff's alpha, {level}"], ratings[several], alpha)
    rows += _rows([f"{kind}, {what}" for kind, what in ICC.items()], ratings[complete], _icc)
    for one, other in combinations(sorted(set(ratings["rater"])), 2):
        pair = ratings[ratings["rater"].isin([one, other])]
        both = pair[pair["paper"].isin(shared_papers(pair))] if len({*pair["rater"]}) > 1 else pair
        rows += _rows([f"Spearman of systems, {one} and {other}"], both, _spearman)
    return pd.DataFrame(rows)


def _rows(
    names: Sequence[str], part: pd.DataFrame, measure: Callable[[pd.DataFrame], Sequence[float]]
) -> list[dict]:
    """Measures with their extremes when a paper is left out, or why there are none."""
    papers = sorted(set(part["paper"]))
    about = {
        "raters": part["rater"].nunique(),
        "papers": len(papers),
        "completions": len(part.drop_duplicates(["paper", "model"])),
        "value": np.nan, "low": np.nan, "high": np.nan, "note": "",
    }  # fmt: skip
    if about["raters"] < 2:
        return [
            {"measure": name, **about, "note": "no paper that two raters share"} for name in names
        ]
    samples = [part[part["paper"] != paper] for paper in papers] if len(papers) > 1 else []
    without = [measure(sample) for sample in samples]
    rows = []
    for name, value, *others in zip(names, measure(part), *without, strict=True):
        found = {"value": value}
        if np.isnan(value):
            found["note"] = "too few completions, or scores that do not differ"
        elif not others:
            found["note"] = "one paper only"
        elif np.isnan(others).any():
            found["note"] = "no extremes: without one of the papers there is no value"
        else:
            found |= {"low": min(others), "high": max(others)}
        rows.append({"measure": name, **about, **found})
    return rows


def _matrix(part: pd.DataFrame) -> pd.DataFrame:
    """Scores, completions x raters; NaN where a rater has not rated a completion."""
    return part.pivot(index=["paper", "model"], columns="rater", values="score")


def _alpha(part: pd.DataFrame, level: str) -> list[float]:
    scores = _matrix(part)
    return [krippendorff_alpha(scores, level) if scores.stack().nunique() > 1 else np.nan]


def krippendorff_alpha(scores: pd.DataFrame, level: str) -> float:
    """Krippendorff's alpha, 1 - observed / expected disagreement.

    The ordinal distance of two scores is the squared number of ratings from the one to the other,
    counting half of those that equal either (Krippendorff 2011, "Computing Krippendorff's
    Alpha-Reliability"). That is the interval distance of their ranks, ties sharing the mean rank.

    Parameters
    ----------
    scores
        Units x raters; NaN where a rater has not rated a unit.
    level
        ``ordinal`` or ``interval``.
    """
    from nltk.metrics.agreement import AnnotationTask
    from nltk.metrics.distance import interval_distance

    # A unit with one rating has no pair to compare, and counts in no frequency.
    values = scores[scores.count(axis=1) > 1].reset_index(drop=True).stack().dropna()
    if level == "ordinal":
        values = values.rank()
    triples = [(rater, unit, value) for (unit, rater), value in values.items()]
    return AnnotationTask(triples, distance=interval_distance).alpha()


def _icc(part: pd.DataFrame) -> list[float]:
    scores = _matrix(part).dropna()
    if len(scores) < FEWEST_COMPLETIONS or np.ptp(scores.to_numpy()) == 0:
        return [np.nan] * len(ICC)
    found = intraclass_correlations(scores)
    return [found[kind] for kind in ICC]


def intraclass_correlations(scores: pd.DataFrame) -> dict[str, float]:
    """Intraclass correlations of a two-way analysis of variance (Shrout and Fleiss 1979).

    Parameters
    ----------
    scores
        Targets x raters, nothing missing.

    Returns
    -------
    dict
        ``ICC(2,1)``: absolute agreement of single raters, drawn at random; ``ICC(3,1)``: their
        consistency, whatever the mean of each; ``ICC(2,k)``: absolute agreement of the mean of
        all raters.
    """
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    n, k = scores.shape
    long = scores.set_axis(range(k), axis=1).reset_index(drop=True).rename_axis("target")
    long = long.reset_index().melt("target", var_name="rater", value_name="score")
    # Perfect agreement leaves no residual: F, which is not used, divides by zero.
    with np.errstate(divide="ignore", invalid="ignore"):
        table = anova_lm(ols("score ~ C(target) + C(rater)", long).fit())
    targets, raters, residual = table["mean_sq"]
    return {
        "ICC(2,1)": (targets - residual)
        / (targets + (k - 1) * residual + k * (raters - residual) / n),
        "ICC(3,1)": (targets - residual) / (targets + (k - 1) * residual),
        "ICC(2,k)": (targets - residual) / (targets + (raters - residual) / n),
    }


def _spearman(part: pd.DataFrame) -> list[float]:
    """Rank correlation of two raters' mean scores of the systems."""
    means = part.pivot_table(index="model", columns="rater", values="score").dropna()
    if len(means) < FEWEST_MODELS or (means.nunique() < 2).any():
        return [np.nan]
    return [stats.spearmanr(*means.to_numpy().T).statistic]
