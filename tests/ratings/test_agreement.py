"""Differences and agreement against numbers by hand, published examples and known truth."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from drawn_figures import MIXED, of
from invented_ratings import SETTINGS, drawn, published_shape, rated

from feyntune.experiment.recipes import BASE, VARIANTS
from feyntune.ratings import agreement, means

PAPER = of(VARIANTS)
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
    found = row(agreement.differences(pair(), PAPER, SETTINGS), comparison="with base")
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
    found = row(agreement.differences(rated(scores), PAPER, SETTINGS), comparison="categories")
    assert (found["system"], found["reference"]) == ("LoRA-all", "Base")
    assert (found["units"], found["difference"]) == (2, (2.5 + 2) / 2)


def test_units_without_one_of_the_two_are_left_out_of_that_comparison_alone():
    scores = {("p", "A", BASE): 4, ("p", "A", "s1-LoRA-all"): 5, ("p", "A", "s1-LoRA-QKV"): 8,
              ("q", "A", BASE): 1, ("q", "A", "s1-LoRA-all"): 3}  # fmt: skip
    table = agreement.differences(rated(scores), PAPER, SETTINGS)
    assert row(table, comparison="with base", system="s1-LoRA-all")["units"] == 2
    lone = row(table, comparison="between flavours")
    assert lone["units"] == lone["papers"] == 1 and np.isnan(lone["low"]) and lone["p"] == 1


def test_all_comparisons_and_holm_over_all():
    table = agreement.differences(drawn(list(means.NAMES), seed=3), PAPER, SETTINGS)
    assert table["comparison"].value_counts().to_dict() == {
        "with base": len(means.NAMES) - 1, "between flavours": 10, "categories": 6,
    }  # fmt: skip
    order = table["p"].sort_values().index
    steps = table.loc[order, "p"].to_numpy() * np.arange(len(table), 0, -1)
    holm = np.minimum(np.maximum.accumulate(steps), 1)
    np.testing.assert_allclose(table.loc[order, "p_holm"], holm)


def test_raters_of_one_paper_are_no_independent_witnesses():
    """Twenty raters of the same three papers are three papers: no p can be below 2 / 2^3."""
    scores = {(p, f"R{r}", s): v for p in "pqr" for r in range(20)
              for s, v in ((BASE, 2), ("Claude", 9))}  # fmt: skip
    found = row(agreement.differences(rated(scores), PAPER, SETTINGS), comparison="with base")
    assert (found["units"], found["p"]) == (60, 0.25)


def test_without_base_nothing_is_compared_with_it():
    table = agreement.differences(drawn(["s1-LoRA-all", "s1-LoRA-QKV"]), PAPER, SETTINGS)
    assert set(table["comparison"]) == {"categories", "between flavours"}
    assert agreement.differences(drawn(["s1-LoRA-all"]), PAPER, SETTINGS).empty


def test_variants_of_an_experiments_own_are_compared_by_what_they_are():
    scores = {("p", "A", name): 5 for name in ("s1-LoRA-all", "s1-hot", "s11-DoRA")}
    rows = [(*unit, score, "DoRA" if "DoRA" in unit[2] else "LoRA-all")
            for unit, score in scores.items()]  # fmt: skip
    some = pd.DataFrame(rows, columns=["paper", "rater", "model", "score", "category"])
    table = agreement.differences(some, MIXED, SETTINGS)
    assert table[["comparison", "system", "reference"]].to_numpy().tolist() == [
        ["categories", "DoRA", "LoRA-all"], ["between settings", "s1-hot", "s1-LoRA-all"],
    ]  # fmt: skip


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


KRIPPENDORFF_2011 = """
    1 2 3 3 2 1 4 1 2 . . .
    1 2 3 3 2 2 4 1 2 5 . 3
    . 3 3 3 2 3 4 2 2 5 1 .
    1 2 3 3 2 4 4 1 2 5 1 .
"""  # four observers, twelve units


@pytest.mark.parametrize(("level", "expected"), [("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_krippendorffs_own_example(level, expected):
    """Computing Krippendorff's Alpha-Reliability (2011), section E: values missing, a lone one."""
    rows = [line.split() for line in KRIPPENDORFF_2011.strip().splitlines()]
    scores = pd.DataFrame(rows).T.replace(".", np.nan).astype(float)
    assert scores.shape == (12, 4)
    assert agreement.krippendorff_alpha(scores, level) == pytest.approx(expected, abs=5e-4)


def test_ordinal_alpha_from_its_definition():
    """Distance: squared number of ratings between two scores, half of those at either counted."""
    some = drawn([BASE, "s1-LoRA-all", "Claude"], papers=4, raters=("A", "B", "C"), seed=1)
    values = [own["score"].to_numpy() for _, own in some.groupby(["paper", "model"])]
    total = np.concatenate(values)

    def distance(one, other):
        low, high = sorted((one, other))
        between = ((total >= low) & (total <= high)).sum()
        return (between - ((total == low).sum() + (total == high).sum()) / 2) ** 2

    observed = sum(sum(distance(a, b) for a in v for b in v) / (len(v) - 1) for v in values)
    expected = sum(distance(a, b) for a in total for b in total) / (len(total) - 1)
    found = measures(some).loc["Krippendorff's alpha, ordinal", "value"]
    assert found == pytest.approx(1 - observed / expected)


def test_intraclass_correlations_of_shrout_and_fleiss():
    """Their table 2 (1979), six targets by four judges, and their results in table 4."""
    scores = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    found = agreement.intraclass_correlations(pd.DataFrame(scores))
    assert {kind: round(value, 2) for kind, value in found.items()} == {
        "ICC(2,1)": 0.29, "ICC(3,1)": 0.71, "ICC(2,k)": 0.62,
    }  # fmt: skip


# What krippendorff 0.9 and pingouin 0.7 gave: value, low and high.
FORMERLY = {
    False: {
        "Krippendorff's alpha, ordinal": (0.67195859046, 0.63145872522, 0.69813823955),
        "Krippendorff's alpha, interval": (0.68481995679, 0.63782863186, 0.71046508699),
        "ICC(2,1), one rater, absolute": (0.66483466979, 0.63607058025, 0.68336886994),
        "ICC(3,1), one rater, consistency": (0.84604003101, 0.83301855349, 0.85560697008),
        "ICC(2,k), mean of raters, absolute": (0.85613180183, 0.83982974910, 0.86621621622),
    },
    True: {
        "Krippendorff's alpha, ordinal": (0.65312833205, 0.62564005438, 0.68454873417),
        "Krippendorff's alpha, interval": (0.66724145321, 0.63566239954, 0.69741939471),
        "ICC(2,1), one rater, absolute": (0.65212233061, 0.62657182777, 0.67518330168),
        "ICC(3,1), one rater, consistency": (0.85134576995, 0.84093803644, 0.86054146884),
        "ICC(2,k), mean of raters, absolute": (0.84902745995, 0.83426348723, 0.86180168751),
    },
}  # fmt: skip


@pytest.mark.parametrize("gaps", [False, True])
def test_agreement_is_that_of_the_packages_used_before(gaps):
    found = measures(published_shape(gaps))
    assert found["completions"].tolist() == [143 if gaps else 150] * 2 + [
        125,
        125,
        125,
        125,
        150,
        125,
    ]
    for measure, expected in FORMERLY[gaps].items():
        row = found.loc[measure, ["value", "low", "high"]].tolist()
        assert row == pytest.approx(expected, abs=1e-9), measure


def test_nltk_needs_no_data_of_its_own(monkeypatch, tmp_path):
    """It offers corpora to download and looks for them in many folders: nothing here asks it to."""
    import nltk

    def asked(*_, **__):
        raise AssertionError("nltk looked for data")

    monkeypatch.setattr(nltk.data, "find", asked)
    monkeypatch.setattr(nltk, "download", asked)
    assert measures(drawn([BASE, "Claude"]))["value"].notna().any()


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
    systems = list(means.NAMES)
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


@pytest.mark.parametrize("differing", range(4))
def test_extremes_do_not_depend_on_which_paper_leaves_no_value(differing):
    """All scores but those of one paper are equal: without it there is nothing to agree on."""
    some = drawn([BASE, "Claude", "s1-LoRA-all", "s2-LoRA-all"], papers=4)
    other = some["paper"] != sorted(set(some["paper"]))[differing]
    found = measures(some.assign(score=some["score"].mask(other, 5)))
    row = found.loc["Krippendorff's alpha, ordinal"]
    assert not np.isnan(row["value"]) and np.isnan([row["low"], row["high"]]).all()
    assert row["note"] == "no extremes: without one of the papers there is no value"
