"""Do cheap metrics predict the experts? Rank correlations with perplexity and SemScore."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from feyntune.evaluation import statistics
from feyntune.evaluation.grouping import Models
from feyntune.experiment.sections import Statistics
from feyntune.ratings.means import resampled_means

FEWEST_MODELS = 3  # below which a rank correlation says nothing
PERPLEXITY, SEMSCORE, WITH_PROMPT = "perplexity", "SemScore, continuation", "SemScore, with prompt"
VALUES = dict.fromkeys(["spearman", "low", "high", "p", "kendall"], np.nan)


def mean_metrics(
    perplexity: Mapping[str, pd.DataFrame], completions: Mapping[str, pd.DataFrame]
) -> dict[str, pd.Series]:
    """Mean of each cheap metric over the test abstracts, by model.

    ``perplexity`` and ``completions`` are results by model. The mean of a score that no abstract
    has is NaN, as for the released SemScores of the continuation alone.
    """
    columns = {
        PERPLEXITY: (perplexity, "perplexity"),
        SEMSCORE: (completions, "semscore"),
        WITH_PROMPT: (completions, "semscore_with_prompt"),
    }
    return {
        name: pd.Series({m: frame[column].mean() for m, frame in frames.items()}, dtype=float)
        for name, (frames, column) in columns.items()
    }


def predictions(
    ratings: pd.DataFrame,
    metrics: Mapping[str, pd.Series],
    models: Models,
    settings: Statistics,
) -> pd.DataFrame:
    """Rank correlation of the experts' mean scores with cheap metrics, over models.

    Parameters
    ----------
    metrics
        Mean of each metric by model.
    models
        The base model and the variants to correlate over.
    settings
        Of the bootstrap, which resamples the papers that were rated; the metrics stay as they are.

    Returns
    -------
    DataFrame
        A row per metric and set of models: ``metric``, ``over`` (``variants`` or ``variants and
        base``), ``models`` (with both), ``spearman``, ``low``, ``high``, ``p`` (two-sided
        permutation test), ``p_holm`` (over all rows), ``kendall``, ``note``.
    """
    rows = [
        {"metric": name, "over": over, **_prediction(ratings, values.dropna(), wanted, settings)}
        for name, values in metrics.items()
        for over, wanted in (
            ("variants", set(models.variants)),
            ("variants and base", set(models.names)),
        )
    ]
    table = pd.DataFrame(rows, columns=["metric", "over", "models", *VALUES, "note"])
    table.insert(table.columns.get_loc("p") + 1, "p_holm", statistics.holm(table["p"]))
    return table


def _prediction(
    ratings: pd.DataFrame, metric: pd.Series, wanted: set[str], settings: Statistics
) -> dict[str, float | str]:
    scores = ratings[ratings["model"].isin(wanted & set(metric.index))]
    means = scores.groupby("model")["score"].mean()
    metric = metric.reindex(means.index)
    if len(means) < FEWEST_MODELS or means.nunique() < 2 or metric.nunique() < 2:
        return {
            "models": len(means),
            **VALUES,
            "note": f"fewer than {FEWEST_MODELS} models that differ",
        }
    tested = stats.permutation_test(
        (stats.rankdata(means),), lambda ranks, axis: _correlation(ranks, metric.to_numpy()),
        permutation_type="pairings", vectorized=True, n_resamples=settings.resamples,
        rng=np.random.default_rng(settings.seed),
    )  # fmt: skip
    low, high = _ends(scores, metric, settings)
    return {
        "models": len(means), "spearman": tested.statistic, "low": low, "high": high,
        "p": tested.pvalue, "kendall": stats.kendalltau(means, metric).statistic, "note": "",
    }  # fmt: skip


def _correlation(ranks: np.ndarray, metric: np.ndarray) -> np.ndarray:
    """Spearman's of every row of ranks with the metric; NaN where all ranks are equal."""
    other = stats.rankdata(metric)
    ranks, other = ranks - ranks.mean(axis=-1, keepdims=True), other - other.mean()
    with np.errstate(invalid="ignore"):
        return ranks @ other / np.sqrt((ranks**2).sum(axis=-1) * (other**2).sum())


def _ends(scores: pd.DataFrame, metric: pd.Series, settings: Statistics) -> tuple[float, float]:
    """Percentile interval from resampled papers; none for fewer than two."""
    means = resampled_means(scores, "model", settings).to_numpy()
    if not len(means):
        return np.nan, np.nan
    found = _correlation(stats.rankdata(means, axis=1, nan_policy="propagate"), metric.to_numpy())
    tail = (1 - settings.confidence) / 2
    low, high = np.nanquantile(found, [tail, 1 - tail])
    return float(low), float(high)
