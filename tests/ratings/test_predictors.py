"""Rank correlations of ratings with cheap metrics, against scipy and known truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from drawn_figures import of
from invented_ratings import SETTINGS, drawn
from scipy import stats

from feyntune.experiment import load
from feyntune.experiment.recipes import BASE, VARIANTS
from feyntune.ratings import predictors


def predicted(some: pd.DataFrame, metric: pd.Series) -> pd.DataFrame:
    return predictors.predictions(some, {"m": metric}, of(VARIANTS), SETTINGS).set_index("over")


def test_rank_correlations_are_scipys():
    some = drawn([BASE, *VARIANTS], seed=4)
    metric = pd.Series(np.random.default_rng(1).normal(size=21), [BASE, *VARIANTS])
    found = predicted(some, metric)
    for over, models in (("variants", list(VARIANTS)), ("variants and base", [BASE, *VARIANTS])):
        means = some.groupby("model")["score"].mean()[models]
        assert found.loc[over, "spearman"] == pytest.approx(
            stats.spearmanr(means, metric[models]).statistic
        )
        assert found.loc[over, "kendall"] == pytest.approx(
            stats.kendalltau(means, metric[models]).statistic
        )
        assert found.loc[over, "p"] == pytest.approx(
            stats.spearmanr(means, metric[models]).pvalue, abs=0.08
        )
        assert found.loc[over, "models"] == len(models)


def test_a_metric_that_predicts_is_found():
    systems = list(VARIANTS[:8])
    level = {system: 2 + 0.8 * at for at, system in enumerate(systems)}
    some = drawn(systems, papers=9, noise=0.5, level=level)
    found = predicted(some, -pd.Series(range(8), systems, dtype=float)).loc["variants"]
    assert found["spearman"] < -0.9 and found["p"] < 0.05 and found["high"] < -0.8


def test_intervals_of_rank_correlations_resample_papers():
    systems = list(VARIANTS[:8])
    some = drawn(systems, papers=9, noise=2, seed=9)
    metric = pd.Series(range(8), systems, dtype=float)
    found = predicted(some, metric).loc["variants"]
    by = some.groupby(["paper", "model"])["score"].mean().unstack()[systems].to_numpy()
    draws = np.random.RandomState(SETTINGS.seed).randint(0, 9, (SETTINGS.resamples, 9))
    each = [stats.spearmanr(by[draw].mean(axis=0), metric).statistic for draw in draws]
    assert np.ptp(each) > 0.3
    expected = np.quantile(each, [0.025, 0.975])
    assert [found["low"], found["high"]] == pytest.approx(expected, abs=0.02)  # ties by rounding


def test_models_without_both_are_left_out_and_too_few_are_said():
    some = drawn([BASE, *VARIANTS[:5], "Claude"])
    metric = pd.Series([1.0, 2.0, 5.0, np.nan], [*VARIANTS[:3], VARIANTS[3]])
    assert predicted(some, metric).loc["variants", "models"] == 3
    found = predicted(some, metric[:2])
    assert found["spearman"].isna().all() and found["p_holm"].isna().all()
    assert set(found["note"]) == {"fewer than 3 models that differ"}
    assert predicted(some, metric * 0 + 1).loc["variants", "note"]


def test_metrics_are_means_by_model():
    perplexity = {BASE: pd.DataFrame({"perplexity": [2.0, 4.0]})}
    scored = {BASE: pd.DataFrame({"semscore": [np.nan], "semscore_with_prompt": [0.5]})}
    found = predictors.mean_metrics(perplexity, scored)
    assert found["perplexity"][BASE] == 3 and found["SemScore, with prompt"][BASE] == 0.5
    assert np.isnan(found["SemScore, continuation"][BASE])


def test_ratings_of_other_models_are_not_compared_and_it_is_said_why():
    """The authors' ratings of real models, beside scores of stand-ins of the same names."""
    some = drawn([BASE, *VARIANTS])
    metric = pd.Series(np.arange(21.0), [BASE, *VARIANTS])
    demo = load.with_settings("demo", {"human_evaluation.ratings": ["theirs.csv"]})
    apart = demo.ratings_of_others
    assert apart == "not computed: ratings of real models, scores of a stand-in corpus and model"
    found = predictors.predictions(some, {"m": metric}, of(VARIANTS), SETTINGS, apart=apart)
    assert found["spearman"].isna().all() and set(found["note"]) == {apart}
    with_key = {"human_evaluation.ratings": ["ours.csv"], "human_evaluation.key": "key.csv"}
    assert load.with_settings("demo", with_key).ratings_of_others is None
    assert load.load("published").ratings_of_others is None
