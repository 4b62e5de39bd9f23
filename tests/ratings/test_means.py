"""Means by hand, and what is wrong with ratings."""

import numpy as np
import pandas as pd
import pytest
from drawn_figures import MIXED
from invented_ratings import SETTINGS, drawn, rows

from feyntune.ratings import means, returned


def test_every_published_system_is_known():
    # The 25 of the file, and ChatGPT as notebook 05 asks it today.
    assert len(means.NAMES) == 26 and "ChatGPT" in means.NAMES
    assert means.NAMES["s10-LoRA-all"] == ("s10", "LoRA-all")
    assert means.NAMES["s10-LoRA-QKV"] == ("s10_qkv", "LoRA-QKV")
    assert means.NAMES["DeepSeek"] == ("DeepSeek", "Commercial")


def test_variants_of_an_experiments_own_are_systems_too(saved):
    names = means.names_with(MIXED)
    assert list(names)[20:25] == ["s10-LoRA-QKV", "s1-hot", "s1-again", "s1-DoRA", "gr-qc-QKV"]
    assert names["s1-hot"] == ("s1-hot", "LoRA-all") and names["s1-LoRA-all"] == ("s1", "LoRA-all")
    own = {"model": "s1-DoRA", "category": "DoRA"}
    some = [*rows(), *(row | own for row in rows() if row["model"] == "s1")]
    found = returned.read_ratings(saved(some), names)
    assert means.in_order(found) == (
        ["Base", "LoRA-all", "LoRA-QKV", "DoRA", "Commercial"],
        ["base", "s1-LoRA-all", "s1-LoRA-QKV", "s1-DoRA", "Claude"],
    )
    table = means.human_evaluation(found, SETTINGS)
    assert table.query("papers == 'all'")["system"].tolist()[5:] == means.in_order(found)[1]


def test_shared_papers_come_from_the_papers_not_from_source(saved):
    some = rows()
    for row in some:
        row["source"] = "individual"
    found = returned.read_ratings(saved(some))
    assert means.shared_papers(found) == ["0806.1218"]


def test_defects_list_what_source_gets_wrong_and_correct_nothing(saved):
    assert means.wrong_sources(returned.read_ratings(saved(rows()))).empty
    some = rows()
    some[1]["source"], some[9]["source"], some[10]["source"] = "individual", "common", "bc"
    found = returned.read_ratings(saved(some))
    before = found.copy()
    listed = means.wrong_sources(found)
    assert listed.to_numpy().tolist() == [
        [3, "0806.1218", "A", "s1-LoRA-all", "individual", "common"],
        [11, "hep-th/9912072", "A", "s1-LoRA-all", "common", "individual"],
        [12, "hep-th/9912072", "A", "s1-LoRA-QKV", "bc", "individual"],
    ]
    pd.testing.assert_frame_equal(found, before)


def test_incomplete_units_are_listed(saved):
    assert means.incomplete(returned.read_ratings(saved(rows()))).empty
    some = [row for number, row in enumerate(rows()) if number not in (4, 6)]
    listed = means.incomplete(returned.read_ratings(saved(some)))
    assert listed.to_numpy().tolist() == [["0806.1218", "B", "base, s1-LoRA-QKV"]]


def evaluated(saved, some=None) -> pd.DataFrame:
    table = means.human_evaluation(returned.read_ratings(saved(some or rows())), SETTINGS)
    return table.set_index(["papers", "category", "system"])


def test_means_by_hand(saved):
    table = evaluated(saved)
    row = table.loc[("all", "LoRA-all", "s1-LoRA-all")]
    assert row[["ratings", "mean", "std", "mean_A", "mean_B"]].tolist() == [3, 6, 2, 6, 6]
    row = table.loc[("shared", "Commercial", "all")]
    assert row[["ratings", "mean", "mean_A", "mean_B"]].tolist() == [2, 8, 9, 7]
    assert row["std"] == pytest.approx(np.sqrt(2))


def test_categories_pool_their_systems_and_come_first(saved):
    s1 = [row for row in rows() if row["model"] == "s1"]
    more = [{**row, "model": name, "score": "1"} for name in ("s10", "s2") for row in s1]
    table = evaluated(saved, [*more, *rows()])
    row = table.loc[("all", "LoRA-all", "all")]
    assert row[["ratings", "mean"]].tolist() == [9, pytest.approx((3 * 6 + 6 * 1) / 9)]
    listed = [system for papers, _, system in table.index if papers == "all"]
    own = ["base", "s1-LoRA-all", "s2-LoRA-all", "s10-LoRA-all", "s1-LoRA-QKV", "Claude"]
    assert listed == ["all"] * 4 + own
    assert list(table.index.get_level_values("category")[:4]) == [
        "Base", "LoRA-all", "LoRA-QKV", "Commercial"
    ]  # fmt: skip


def test_interval_resamples_whole_papers(saved):
    table = evaluated(saved)
    # Two papers: 2/3 ratings of the one (mean 5), 1/3 of the other (8). A resample has only the
    # one, only the other, or both: the ends are those of the papers, not of the ratings (4, 8).
    row = table.loc[("all", "LoRA-all", "s1-LoRA-all")]
    assert row[["low", "high"]].tolist() == [5, 8]
    assert table.loc["shared", ["low", "high"]].isna().all(axis=None)  # one paper


def test_interval_weighs_papers_by_their_ratings():
    rng = np.random.default_rng(2)
    numbers = {"base": [1, 3, 2, 1, 3, 2, 2], "Claude": [0, 3, 1, 1, 3, 2, 2]}
    some = pd.DataFrame(
        [
            (f"hep-th/990100{paper}", system, f"r{rater}", int(rng.integers(1, 11)), category)
            for system, category in (("base", "Base"), ("Claude", "Commercial"))
            for paper, number in enumerate(numbers[system])
            for rater in range(number)
        ],
        columns=["paper", "model", "rater", "score", "category"],
    )
    table = means.human_evaluation(some, SETTINGS).set_index(["papers", "system"])
    draws = np.random.RandomState(SETTINGS.seed).randint(0, 7, (SETTINGS.resamples, 7))
    for system in numbers:
        own = some[some["model"] == system]
        groups = [own.loc[own["paper"] == paper, "score"].tolist() for paper in
                  sorted(set(some["paper"]))]  # fmt: skip
        drawn = [np.mean([score for at in draw for score in groups[at]]) for draw in draws]
        expected = np.quantile(drawn, [0.025, 0.975]).tolist()
        assert table.loc[("all", system), ["low", "high"]].tolist() == pytest.approx(expected)
        assert table.loc[("all", system), "mean"] == pytest.approx(own["score"].mean())


def test_raters_who_share_no_paper_have_means_of_all_papers():
    """As ``ratings-sheet --shared 0`` gives them out."""
    one, other = drawn(["base", "Claude"], papers=4).groupby("rater")
    some = pd.concat([one[1], other[1].assign(paper=other[1]["paper"] + "9")])
    table = means.human_evaluation(some, SETTINGS)
    assert set(table["papers"]) == {"all"}
    row = table.set_index("system").loc["Claude"]
    assert row["ratings"] == 8
    assert row["mean"] == some.loc[some["model"] == "Claude", "score"].mean()
