"""Expectations by hand, by scipy's own defaults and by exhaustive enumeration."""

from itertools import product
from math import log

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from feyntune.evaluation import statistics

SETTINGS = {"resamples": 999, "confidence": 0.95, "seed": 1}


@pytest.fixture
def values() -> pd.DataFrame:
    draws = np.random.default_rng(7).lognormal(2, 0.5, (60, 3))
    return pd.DataFrame(draws, columns=["base", "s1-LoRA-all", "s1-LoRA-QKV"])


def scipys_bootstrap(scores, resamples: int = 999, seed: int = 1):
    return stats.bootstrap(
        (scores,), np.mean, method="percentile", n_resamples=resamples, random_state=seed
    )


@pytest.mark.parametrize("elements", [1, 150, 4_000_000])  # resamples drawn: singly, few, all
@pytest.mark.parametrize("abstracts", [2, 3, 33, 60])
def test_bootstrap_is_scipys_default_call(values, abstracts, elements, monkeypatch):
    monkeypatch.setattr(statistics, "BATCH_ELEMENTS", elements)
    some = values.head(abstracts)
    found = statistics.bootstrap_means(some, **SETTINGS)
    for model in some:
        expected = scipys_bootstrap(some[model])
        row = found.loc[model]
        assert row["low"] == pytest.approx(expected.confidence_interval.low, rel=1e-12)
        assert row["high"] == pytest.approx(expected.confidence_interval.high, rel=1e-12)
        middle = expected.bootstrap_distribution.mean()
        assert row["bootstrap_mean"] == pytest.approx(middle, rel=1e-12)
        assert row["mean"] == pytest.approx(some[model].mean(), rel=1e-14)


@pytest.mark.parametrize(("resamples", "seed"), [(10, 1), (257, 2**32 - 1)])
def test_resampled_means_are_scipys_distribution(values, resamples, seed, monkeypatch):
    monkeypatch.setattr(statistics, "BATCH_ELEMENTS", 200)  # which divides neither
    found = statistics.resampled_means(values.to_numpy(), resamples=resamples, seed=seed)
    for column, model in zip(found.T, values, strict=True):
        expected = scipys_bootstrap(values[model], resamples, seed).bootstrap_distribution
        assert column == pytest.approx(expected, rel=1e-12)


def test_resampled_ratios_pool_the_values_of_the_rows():
    """Three rows of 1, 3 and 2 values, and a group of which the last two rows hold none."""
    values = [[(2.0,), (1.0, 4.0, 4.0), (6.0, 8.0)], [(5.0,), (), ()]]
    sums = np.array([[sum(row) for row in group] for group in values]).T
    counts = np.array([[len(row) for row in group] for group in values]).T
    found = statistics.resampled_ratios(sums, counts, resamples=50, seed=3)
    draws = np.random.RandomState(3).randint(0, 3, (50, 3))
    for draw, means in zip(draws, found, strict=True):
        for group, mean in zip(values, means, strict=True):
            drawn = [value for at in draw for value in group[at]]
            expected = np.mean(drawn) if drawn else np.nan
            assert mean == pytest.approx(expected, nan_ok=True)
    assert np.isnan(found[:, 1]).any() and not np.isnan(found[:, 0]).any()


def test_other_coverage_cuts_other_tails():
    means = np.arange(101.0)[:, None] * [1, 10]
    found = statistics.percentile_interval(means, 0.8)
    assert found == pytest.approx(np.array([[10, 100], [90, 900]]))


def test_missing_scores_are_refused(values):
    values.iloc[3, 1] = np.nan
    with pytest.raises(ValueError, match="missing"):
        statistics.bootstrap_means(values, **SETTINGS)


def test_models_share_the_resampled_abstracts(values):
    shifted = values.assign(shifted=values["base"] + 100)
    found = statistics.bootstrap_means(shifted, **SETTINGS)
    gap = found.loc["shifted"] - found.loc["base"]
    assert gap.to_numpy() == pytest.approx(100)


def test_one_abstract_has_a_mean_and_no_interval():
    found = statistics.bootstrap_means(pd.DataFrame({"base": [3.0]}), **SETTINGS)
    assert found.loc["base", "mean"] == 3
    assert found.loc["base", ["bootstrap_mean", "low", "high"]].isna().all()


def test_sign_flip_equals_exhaustive_enumeration():
    differences = np.array([[0.5, -1.0], [1.5, 2.0], [-0.25, 0.5], [2.0, -0.75], [1.0, 0.1]])
    found = statistics.sign_flip_p_values(differences, resamples=9999, seed=0)
    for column, p in zip(differences.T, found, strict=True):
        means = [np.dot(signs, column) / 5 for signs in product((1, -1), repeat=5)]
        as_large = sum(abs(mean) >= abs(column.mean()) - 1e-12 for mean in means)
        assert p == pytest.approx(as_large / 32)


def test_sign_flip_of_no_difference_is_certain_at_most():
    # Means over the four flips: 1, 0, 0, -1. Three are as low as the observed 0, three as high.
    assert statistics.sign_flip_p_values(np.array([[1.0], [-1.0]]), resamples=99, seed=0) == [1]


@pytest.mark.parametrize("elements", [1, 1000, 4_000_000])
@pytest.mark.parametrize("abstracts", [2, 5, 9, 10, 37, 60])  # every flip is taken up to 9
def test_sign_flip_equals_scipys_plain_call(values, abstracts, elements, monkeypatch):
    monkeypatch.setattr(statistics, "BATCH_ELEMENTS", elements)
    some = values.head(abstracts).to_numpy()
    # A clear, an unclear and a negative difference, and one of many equal means.
    differences = np.column_stack(
        [some[:, 1], some[:, 1] - some[:, 0], some[:, 2] - 9, np.sign(some[:, 2] - 7)]
    )
    found = statistics.sign_flip_p_values(differences, resamples=999, seed=5)
    for column, p in zip(differences.T, found, strict=True):
        expected = stats.permutation_test(
            (column,),
            lambda x, axis: np.mean(x, axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=999,
            rng=np.random.default_rng(5),
        )
        assert p == expected.pvalue


def test_paired_differences(values):
    values["worse"] = values["base"] + 2
    pairs = [("worse", "base"), ("s1-LoRA-all", "base"), ("s1-LoRA-all", "s1-LoRA-QKV")]
    found = statistics.paired_differences(values, pairs, **SETTINGS)
    assert list(zip(found["model"], found["reference"], strict=True)) == pairs
    constant = found.iloc[0]
    assert constant[["difference", "low", "high"]].to_numpy(float) == pytest.approx(2)
    assert constant["relative_percent"] == pytest.approx(200 / values["base"].mean())
    assert constant["p"] == pytest.approx(2 / 1000)  # no flip is as large: (0 + 1) / (999 + 1)
    expected = stats.bootstrap(
        ((values["s1-LoRA-all"] - values["base"]).to_numpy(),),
        np.mean,
        method="percentile",
        n_resamples=999,
        random_state=1,
    )
    assert found.loc[1, "low"] == pytest.approx(expected.confidence_interval.low)
    # Holm: the k-th smallest of m values times (m - k + 1), never falling, at most 1.
    order = found.sort_values("p")
    by_hand = np.minimum(np.maximum.accumulate(order["p"].to_numpy() * [3, 2, 1]), 1)
    assert order["p_holm"].to_numpy() == pytest.approx(by_hand)


def test_no_pairs_is_an_empty_table(values):
    found = statistics.paired_differences(values, [], **SETTINGS)
    assert found.empty
    assert "p_holm" in found


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (1, [9, 3, 6, 0, 3]),
        (3, [9, 6, 3, 3, 3]),
        (4, [9, 6, 3, 3, 3]),
        (5, [9, 6, 4.2, 3, 3]),
        (99, [9, 6, 4.2, 3, 3]),
    ],
)
def test_moving_average_shrinks_at_the_ends(window, expected):
    found = statistics.moving_average([9, 3, 6, 0, 3], window)
    assert found == pytest.approx(expected)


def test_holm_by_hand_over_the_known_p_values():
    found = statistics.holm([0.04, np.nan, 0.01, 0.03])
    assert found == pytest.approx([0.06, np.nan, 0.03, 0.06], nan_ok=True)
    assert np.isnan(statistics.holm([np.nan])).all() and len(statistics.holm([])) == 0


def test_summary_is_the_published_form():
    found = statistics.summary(pd.DataFrame({"base": [1.0, 2.0, 3.0, 6.0]}))
    assert list(found.columns) == ["mean", "std", "min", "25%", "50%", "75%", "max"]
    expected = [3, np.sqrt(14 / 3), 1, 1.75, 2.5, 3.75, 6]
    assert found.loc["base"].to_numpy() == pytest.approx(expected)


def test_corpus_perplexity_and_bits_per_byte_pool_all_abstracts():
    nll = [10 * log(2), 2 * log(8)]
    assert statistics.corpus_perplexity(nll, [10, 6]) == pytest.approx(2)
    assert statistics.bits_per_byte(nll, [30, 2]) == pytest.approx(0.5)
