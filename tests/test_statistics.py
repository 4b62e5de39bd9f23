"""Expectations by hand, by scipy's own defaults and by exhaustive enumeration."""

from itertools import product
from math import exp, isnan, log

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from feyntune import statistics

SETTINGS = {"resamples": 999, "confidence": 0.95, "seed": 1}


@pytest.fixture
def values() -> pd.DataFrame:
    draws = np.random.default_rng(7).lognormal(2, 0.5, (60, 3))
    return pd.DataFrame(draws, columns=["base", "s1-LoRA-all", "s1-LoRA-QKV"])


@pytest.mark.parametrize("elements", [4_000_000, 150])  # all at once, and two resamples at a time
def test_bootstrap_is_scipys_default_call(values, elements, monkeypatch):
    monkeypatch.setattr(statistics, "BATCH_ELEMENTS", elements)
    found = statistics.bootstrap_means(values, **SETTINGS)
    for model in values:
        expected = stats.bootstrap(
            (values[model],), np.mean, method="percentile", n_resamples=999, random_state=1
        )
        row = found.loc[model]
        assert row["low"] == expected.confidence_interval.low
        assert row["high"] == expected.confidence_interval.high
        assert row["bootstrap_mean"] == expected.bootstrap_distribution.mean()
        assert row["mean"] == pytest.approx(values[model].mean(), rel=1e-14)


def test_models_share_the_resampled_abstracts(values):
    shifted = values.assign(shifted=values["base"] + 100)
    found = statistics.bootstrap_means(shifted, **SETTINGS)
    gap = found.loc["shifted"] - found.loc["base"]
    assert gap.to_numpy() == pytest.approx(100)


def test_one_abstract_has_a_mean_and_no_interval():
    found = statistics.bootstrap_means(pd.DataFrame({"base": [3.0]}), **SETTINGS)
    assert found.loc["base", "mean"] == 3
    assert isnan(found.loc["base", "low"])


def test_sign_flip_equals_exhaustive_enumeration():
    differences = np.array([[0.5, -1.0], [1.5, 2.0], [-0.25, 0.5], [2.0, -0.75], [1.0, 0.1]])
    found = statistics.sign_flip_p_values(differences, resamples=9999, seed=0)
    for column, p in zip(differences.T, found, strict=True):
        means = [np.dot(signs, column) / 5 for signs in product((1, -1), repeat=5)]
        as_large = sum(abs(mean) >= abs(column.mean()) - 1e-12 for mean in means)
        assert p == pytest.approx(as_large / 32)


def test_sign_flip_equals_scipys_plain_call(values):
    differences = (values["s1-LoRA-all"] - values["base"]).to_numpy()
    expected = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        n_resamples=999,
        rng=np.random.default_rng(5),
    )
    found = statistics.sign_flip_p_values(differences[:, None], resamples=999, seed=5)
    assert found[0] == pytest.approx(expected.pvalue, abs=1e-12)


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


def test_exponentiated_entropy():
    assert statistics.exponentiated_entropy([5, 5, 5]) == pytest.approx(1)
    assert statistics.exponentiated_entropy([1, 2, 3, 4]) == pytest.approx(4)
    halves = exp(0.5 * log(2) + 2 * 0.25 * log(4))
    assert statistics.exponentiated_entropy([7, 7, 8, 9]) == pytest.approx(halves)
    assert isnan(statistics.exponentiated_entropy([]))


def test_summary_is_the_published_form():
    found = statistics.summary(pd.DataFrame({"base": [1.0, 2.0, 3.0, 6.0]}))
    assert list(found.columns) == ["mean", "std", "min", "25%", "50%", "75%", "max"]
    expected = [3, np.sqrt(14 / 3), 1, 1.75, 2.5, 3.75, 6]
    assert found.loc["base"].to_numpy() == pytest.approx(expected)


def test_corpus_perplexity_and_bits_per_byte_pool_all_abstracts():
    nll = [10 * log(2), 2 * log(8)]
    assert statistics.corpus_perplexity(nll, [10, 6]) == pytest.approx(2)
    assert statistics.bits_per_byte(nll, [30, 2]) == pytest.approx(0.5)
