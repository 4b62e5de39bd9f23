"""Figure 3.3: intervals of every model, and an axis that is broken only where it must be."""

import pandas as pd
import pytest
from drawn_figures import MIXED, SAID, bootstrapped, intervals, of, texts

from feyntune.analysis.figures.bootstrap_perplexity import bootstrap_perplexity, overlaps
from feyntune.analysis.tables import writing
from feyntune.experiment.recipes import DATASETS, MODELS

NONE = pd.DataFrame(columns=["model", "reference", "low", "high"], dtype=float)


def drawn(summary, names, differences=NONE):
    return bootstrap_perplexity(summary, differences, of(names), **SAID, confidence=0.95)


@pytest.fixture(scope="module")
def everything():
    return drawn(bootstrapped(MODELS), MODELS)


def test_axis_is_broken_only_where_base_is_far(everything):
    far, near = everything.axes[0], drawn(bootstrapped(MODELS, 23.0), MODELS).axes[0]
    assert (far.get_yscale(), near.get_yscale()) == ("function", "linear")
    heights = far.transAxes.inverted().transform(far.transData.transform([(0, 20), (0, 22)]))[:, 1]
    assert heights[1] - heights[0] > 0.2  # two units of the variants stay visible below 60
    assert 0.8 < far.transAxes.inverted().transform(far.transData.transform((0, 60)))[1] < 1


def test_models_are_grouped_left_and_paired_right(everything):
    left, right = everything.axes
    names = [label.get_text() for label in left.get_xticklabels()]
    assert names == 2 * list(DATASETS)
    assert [label.get_text() for label in right.get_xticklabels()] == list(DATASETS)
    summary = bootstrapped(MODELS)
    written = writing._cells(summary, {}, {"mean": ["low", "high"]}, 1).texts  # as in the table
    base = "base\n" + written["mean [low, high]"].iloc[0].split(" [")[0]
    assert all(base in [text.get_text() for text in axes.texts] for axes in (left, right))


def test_missing_models_are_named_and_not_drawn():
    found = bootstrapped(["base", "s1-LoRA-all"])
    figure = drawn(found, ["base", "s1-LoRA-all", "s1-LoRA-QKV"])
    assert "Not run: s1-LoRA-QKV" in texts(figure)
    assert len(figure.axes[0].containers) == 1


def test_what_overlaps_is_said_to_be_paired():
    summary = pd.DataFrame({"low": [1, 2, 6], "high": [3, 4, 7]}, index=["a", "b", "c"])
    found = pd.DataFrame(
        {"model": ["b", "c", "c"], "reference": ["a", "a", "b"], "low": [0.1, 2, 1], "high": 3.0}
    )
    said = overlaps(summary, found)
    assert "1 of 3 compared pairs overlap" in said and "paired" in said
    assert "in 1 of these 1 the interval of the difference excludes 0" in said
    assert overlaps(summary, found[1:]) == ""
    assert "in 0 of these 1" in overlaps(summary, found.assign(low=-1.0))


def test_any_flavours_stand_side_by_side():
    """Five variants of two flavours on two datasets: no two marks in a place, none alike."""
    figure = intervals(MIXED.names, MIXED)
    left, right = figure.axes
    ticks = [label.get_text() for label in left.get_xticklabels()]
    assert ticks == ["s1", "s1-hot", "s1-again", "gr-qc-QKV", "s1", "s11"]
    assert [label.get_text() for label in right.get_xticklabels()] == ["s1", "gr-qc", "s11"]
    places = [x for bar in right.containers for x in bar.lines[0].get_xdata()]
    assert len(places) == len(set(places)) == 6
    looks = {(bar.lines[0].get_color(), bar.lines[0].get_marker()) for bar in right.containers}
    assert len(looks) == 5  # s1-DoRA and s11-DoRA look alike
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["LoRA-all", "LoRA-QKV", "DoRA"]
    assert "compared pairs overlap" in texts(figure)


def test_nothing_at_all_still_draws():
    figure = drawn(bootstrapped(["base"]).iloc[:0], ["base", "s1-LoRA-all"])
    assert "Not run: " in texts(figure)
    assert "0.5" not in texts(figure)  # no invented scale


def test_any_choice_of_models():
    for models in (["base"], ["s2-LoRA-QKV"], ["base", "s10-LoRA-all"]):
        (axes,) = drawn(bootstrapped(models), models).axes  # nothing to pair, one panel
        assert axes.get_title(loc="left") == ""
