"""The figure by year: pools by hand, and what it says and shows."""

import pandas as pd
import pytest
from drawn_figures import LABEL, MIXED, of, over_the_years, scored, texts

from feyntune.analysis import looks
from feyntune.analysis.figures import perplexity_by_year
from feyntune.experiment.recipes import MODELS

WANTED = ["base", "s1-LoRA-all", "s2-LoRA-all", "s1-LoRA-QKV"]
FRAMES = {
    "base": scored(8, 12, 10, 20, 30),
    "s1-LoRA-all": scored(4, 8, 9, 18, 27),
    "s1-LoRA-QKV": scored(8, 12, 10, 10, 35),
}


def pooled(counts: dict[int, int], enough: int, until: int = 2023) -> pd.DataFrame:
    frame = pd.DataFrame({"year": list(counts), "abstracts": list(counts.values())})
    return perplexity_by_year.pooled(frame.assign(base=frame["year"] - 1990.0), until, enough)


def test_years_are_pooled_until_they_have_enough():
    found = pooled({2000: 3, 2001: 1, 2004: 5, 2005: 1, 2006: 4}, 5)
    assert found[["first", "last", "abstracts"]].to_numpy().tolist() == [
        [2000, 2004, 9],
        [2005, 2006, 5],
    ]
    assert found.loc[0, "base"] == pytest.approx((3 * 10 + 1 * 11 + 5 * 14) / 9)
    assert found.loc[1, "year"] == pytest.approx((2005 + 4 * 2006) / 5)


def test_what_is_left_over_joins_the_pool_before_but_never_across_the_cutoff():
    found = pooled({2000: 5, 2001: 2, 2023: 2, 2024: 1, 2025: 1}, 5)
    expected = [[2000, 2023, 9], [2024, 2025, 2]]
    assert found[["first", "last", "abstracts"]].to_numpy().tolist() == expected


def drawn(frames=FRAMES, label=LABEL, wanted=WANTED):
    return over_the_years(frames, of(wanted), label)


def test_figure_says_what_a_reader_must_know():
    figure = drawn()
    said = texts(figure)
    for text in (
        "Not run: s2-LoRA-all",
        "base's knowledge ends in 2023",
        "filled: until 2023, n = 3\nhollow: after, n = 2",
        "90% bootstrap interval",
        "a point pools years until they have 1 abstracts",
    ):
        assert text in said
    assert figure.get_suptitle() == LABEL
    assert "stand-in" not in texts(drawn(label=None))


def test_figure_draws_the_tables():
    left, counts, right = drawn().axes
    lines = {line.get_label(): line for line in left.lines}
    assert list(lines["base"].get_data()[0]) == [1999, 2023, 2024, 2025]
    assert list(lines["base"].get_data()[1]) == [10, 10, 20, 30]
    assert [bar.get_height() for bar in counts.patches] == [2, 1, 1, 1]
    marks = [line for line in right.lines if line.get_marker() == "o"]
    assert [mark.get_ydata()[0] for mark in marks] == pytest.approx([30, 10])
    assert [mark.get_markerfacecolor() for mark in marks] == [looks.BLUE, "white"]
    cut = [line.get_xdata()[0] for axes in (left, counts) for line in axes.lines
           if line.get_linestyle() == "--"]  # fmt: skip
    assert cut == [2023.5, 2023.5]


def test_all_other_models_are_drawn_under_one_name():
    frames = dict.fromkeys(MODELS, FRAMES["s1-LoRA-all"])
    figure = drawn(frames, wanted=MODELS)
    curves = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 4]
    assert len(curves) == 21
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "base", "s1-LoRA-all", "s1-LoRA-QKV", "other LoRA-all", "other LoRA-QKV"
    ]  # fmt: skip


def test_sparse_pools_are_hollow_and_explained(monkeypatch):
    monkeypatch.setattr(perplexity_by_year, "ENOUGH_SHARE", 0.6)
    figure = drawn()
    assert "years until they have 3 abstracts; hollow: fewer" in texts(figure)
    hollow = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "white"]
    assert all(list(line.get_xdata()) == [2024.5] for line in hollow)
    assert len(hollow) == 3


def test_missing_models_leave_no_invented_scale():
    for names in ([], ["base"], ["s1-LoRA-all"]):
        figure = drawn({name: FRAMES[name] for name in names})
        assert "Not run: " in texts(figure)
        left, _, right = figure.axes
        assert (len(left.get_yticks()) == 0) == (not names)
        assert len(right.get_yticks()) == 0


def test_the_first_datasets_variants_are_in_front_whatever_they_are_called():
    figure = over_the_years(dict.fromkeys(MIXED.names, FRAMES["base"]), MIXED)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "base", "s1-LoRA-all", "s1-hot", "s1-DoRA",
        "other LoRA-all", "other LoRA-QKV", "other DoRA",
    ]  # fmt: skip
    right = figure.axes[2]
    places = [x for line in right.lines if line.get_marker() != "None" for x in line.get_xdata()]
    assert len(places) == len(set(places)) == 2 * len(MIXED.variants)
