"""Differences, agreement and prediction against numbers by hand, other code and known truth."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_tables import SETTINGS

from feyntune.experiment.recipes import BASE, VARIANTS
from feyntune.ratings import agreement, predictors
from feyntune.ratings import means as ratings

CATEGORY = {ours: kind for ours, (_, kind) in ratings.NAMES.items()}


def rated(scores: dict[tuple[str, str, str], int]) -> pd.DataFrame:
    """Ratings as they are read, from scores by (paper, rater, system)."""
    rows = [(*unit, score, CATEGORY[unit[2]]) for unit, score in scores.items()]
    return pd.DataFrame(rows, columns=["paper", "rater", "model", "score", "category"])


def drawn(systems, papers=8, raters=("A", "B"), seed=0, noise=1.0, level=None) -> pd.DataFrame:
    """Invented: a level per system, a shift per paper, noise per rating."""
    rng = np.random.default_rng(seed)
    shift = rng.normal(0, 1, papers)
    level = level or {system: 3 + 0.2 * at for at, system in enumerate(systems)}
    scores = {
        (f"2401.{p:05}", r, s): level[s] + shift[p] + rng.normal(0, noise)
        for p, r, s in product(range(papers), raters, systems)
    }
    return rated({unit: int(np.clip(round(score), 1, 10)) for unit, score in scores.items()})


# --- differences --------------------------------------------------------------------------------

PAIR = {
    ("p", "A"): (2, 6), ("p", "B"): (3, 5), ("q", "A"): (4, 5), ("r", "B"): (5, 4),
}  # (paper, rater): scores of base, Claude  # fmt: skip


def pair() -> pd.DataFrame:
    return rated({(*unit, s): v for unit, two in PAIR.items()
                  for s, v in zip((BASE, "Claude"), two, strict=True)})  # fmt: skip


def row(table: pd.DataFrame, **wanted: str) -> pd.Series:
    (found,) = table.query(" and ".join(f"{k} == {v!r}" for k, v in wanted.items())).to_dict(
        "records"
    )
    return pd.Series(found)


def test_a_difference_by_hand():
    """Units differ by 4, 2, 1, -1; papers by 6 of two units, 1, -1."""
    found = row(agreement.differences(pair(), SETTINGS), comparison="with base")
    assert (found["system"], found["reference"]) == ("Claude", BASE)
    assert (found["units"], found["papers"], found["difference"]) == (4, 3, 1.5)
    # Of the 8 ways to flip three papers, |6|+... : sums >= 6 are +6+1-1, +6+1+1, +6-1+1: three.
    sums = [a * 6 + b + c for a, b, c in product((1, -1), repeat=3)]
    assert found["p"] == pytest.approx(min(1, 2 * np.mean(np.array(sums) >= 6)))
    draws = np.random.RandomState(SETTINGS.seed).randint(0, 3, (SETTINGS.resamples, 3))
    total, count = np.array([6, 1, -1]), np.array([2, 1, 1])
    means = total[draws].sum(axis=1) / count[draws].sum(axis=1)
    assert [found["low"], found["high"]] == pytest.approx(np.quantile(means, [0.025, 0.975]))


def test_categories_are_compared_by_their_means_in_the_unit():
    scores = {("p", "A", BASE): 4, ("p", "A", "s1-LoRA-all"): 5, ("p", "A", "s2-LoRA-all"): 8,
              ("q", "A", BASE): 1, ("q", "A", "s1-LoRA-all"): 3}  # fmt: skip
    found = row(agreement.differences(rated(scores), SETTINGS), comparison="categories")
    assert (found["system"], found["reference"]) == ("LoRA-all", "Base")
    assert (found["units"], found["difference"]) == (2, (2.5 + 2) / 2)


def test_units_without_one_of_the_two_are_left_out_of_that_comparison_alone():
    scores = {("p", "A", BASE): 4, ("p", "A", "s1-LoRA-all"): 5, ("p", "A", "s1-LoRA-QKV"): 8,
              ("q", "A", BASE): 1, ("q", "A", "s1-LoRA-all"): 3}  # fmt: skip
    table = agreement.differences(rated(scores), SETTINGS)
    assert row(table, comparison="with base", system="s1-LoRA-all")["units"] == 2
    lone = row(table, comparison="between flavours")
    assert lone["units"] == lone["papers"] == 1 and np.isnan(lone["low"]) and lone["p"] == 1


def test_all_comparisons_and_holm_over_all():
    table = agreement.differences(drawn(list(ratings.NAMES), seed=3), SETTINGS)
    assert table["comparison"].value_counts().to_dict() == {
        "with base": len(ratings.NAMES) - 1, "between flavours": 10, "categories": 6,
    }  # fmt: skip
    order = table["p"].sort_values().index
    steps = table.loc[order, "p"].to_numpy() * np.arange(len(table), 0, -1)
    holm = np.minimum(np.maximum.accumulate(steps), 1)
    np.testing.assert_allclose(table.loc[order, "p_holm"], holm)


def test_raters_of_one_paper_are_no_independent_witnesses():
    """Twenty raters of the same three papers are three papers: no p can be below 2 / 2^3."""
    scores = {(p, f"R{r}", s): v for p in "pqr" for r in range(20)
              for s, v in ((BASE, 2), ("Claude", 9))}  # fmt: skip
    found = row(agreement.differences(rated(scores), SETTINGS), comparison="with base")
    assert (found["units"], found["p"]) == (60, 0.25)


def test_without_base_nothing_is_compared_with_it():
    table = agreement.differences(drawn(["s1-LoRA-all", "s1-LoRA-QKV"]), SETTINGS)
    assert set(table["comparison"]) == {"categories", "between flavours"}
    assert agreement.differences(drawn(["s1-LoRA-all"]), SETTINGS).empty


# --- agreement ----------------------------------------------------------------------------------


def measures(some: pd.DataFrame) -> pd.DataFrame:
    return agreement.between_raters(some).set_index("measure")


def test_interval_alpha_from_its_definition():
    """1 - observed / expected disagreement, over pairs of ratings of the same completion."""
    some = drawn([BASE, "s1-LoRA-all", "Claude"], papers=4, raters=("A", "B", "C"), seed=1)
    some = some[~((some["rater"] == "C") & (some["paper"] == "2401.00001"))]  # a gap
    values = [own["score"].to_numpy(float) for _, own in some.groupby(["paper", "model"])]
    total = np.concatenate(values)
    observed = sum(((v[:, None] - v) ** 2).sum() / (len(v) - 1) for v in values) / len(total)
    expected = ((total[:, None] - total) ** 2).sum() / (len(total) * (len(total) - 1))
    found = measures(some).loc["Krippendorff's alpha, interval"]
    assert found["value"] == pytest.approx(1 - observed / expected)
    assert (found["papers"], found["completions"], found["raters"]) == (4, 12, 3)


def test_intraclass_correlations_from_mean_squares():
    """Shrout and Fleiss' formulas (1979) from a two-way analysis of variance."""
    some = drawn([BASE, "s1-LoRA-all", "Claude"], papers=5, raters=("A", "B", "C"), seed=2)
    x = some.pivot(index=["paper", "model"], columns="rater", values="score").to_numpy(float)
    n, k = x.shape
    rows, columns = x.mean(axis=1), x.mean(axis=0)
    between = k * ((rows - x.mean()) ** 2).sum() / (n - 1)
    raters = n * ((columns - x.mean()) ** 2).sum() / (k - 1)
    rest = ((x - rows[:, None] - columns + x.mean()) ** 2).sum() / ((n - 1) * (k - 1))
    expected = {
        "ICC(2,1)": (between - rest) / (between + (k - 1) * rest + k * (raters - rest) / n),
        "ICC(3,1)": (between - rest) / (between + (k - 1) * rest),
        "ICC(2,k)": (between - rest) / (between + (raters - rest) / n),
    }
    found = agreement.between_raters(some)
    for kind, value in expected.items():
        (row,) = found[found["measure"].str.startswith(kind)].to_dict("records")
        assert row["value"] == pytest.approx(value, abs=1e-6)


def test_a_strict_rater_lowers_absolute_agreement_alone():
    some = drawn([BASE, "s1-LoRA-all", "Claude"], seed=5)
    twin = some[some["rater"] == "A"].assign(score=lambda own: own["score"].clip(upper=9))
    strict = pd.concat([twin, twin.assign(rater="B", score=twin["score"] + 1)])
    found = measures(strict)["value"]
    assert found["ICC(3,1), one rater, consistency"] == pytest.approx(1)
    assert found["ICC(2,1), one rater, absolute"] < 0.98
    assert found["Spearman of systems, A and B"] == pytest.approx(1)


def test_chance_and_perfect_agreement():
    rng = np.random.default_rng(0)
    systems = list(ratings.NAMES)
    some = drawn(systems, papers=10)
    alike = some.assign(score=some.groupby(["paper", "model"])["score"].transform("first"))
    assert np.allclose(measures(alike)["value"], 1)
    chance = some.assign(score=rng.integers(1, 11, len(some)))
    assert (
        measures(chance)["value"].drop(index="ICC(2,k), mean of raters, absolute").abs().max()
        < 0.35
    )


def test_extremes_when_a_paper_is_left_out():
    some = drawn([BASE, "s1-LoRA-all", "s2-LoRA-all"], papers=4)
    found = measures(some).loc["Krippendorff's alpha, ordinal"]
    without = [
        measures(some[some["paper"] != p]).loc["Krippendorff's alpha, ordinal", "value"]
        for p in sorted(set(some["paper"]))
    ]
    assert [found["low"], found["high"]] == pytest.approx([min(without), max(without)])


def test_too_little_to_agree_on_is_said():
    alone = drawn([BASE, "Claude"], raters=("A",))
    assert set(agreement.between_raters(alone)["note"]) == {"no paper that two raters share"}
    parted = pd.concat([alone, alone.assign(rater="B", paper="2402.00001").head(2)])
    assert set(agreement.between_raters(parted)["note"]) == {"no paper that two raters share"}
    one = drawn([BASE, "Claude", *VARIANTS[:6]], papers=1)
    found = agreement.between_raters(one)
    assert set(found["note"]) == {"one paper only"} and found["low"].isna().all()
    same = drawn([BASE, "Claude"]).assign(score=5)
    notes = set(agreement.between_raters(same)["note"])
    assert notes == {"too few completions, or scores that do not differ"}


# --- prediction ---------------------------------------------------------------------------------


def predicted(some: pd.DataFrame, metric: pd.Series) -> pd.DataFrame:
    return predictors.predictions(some, {"m": metric}, SETTINGS).set_index("over")


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
    found = predictors.metrics(perplexity, scored)
    assert found["perplexity"][BASE] == 3 and found["SemScore, with prompt"][BASE] == 0.5
    assert np.isnan(found["SemScore, continuation"][BASE])
