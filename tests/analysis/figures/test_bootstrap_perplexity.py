"""Figure 3.3: intervals of every model, and an axis that is broken only where it must be."""

import pytest
from drawn_figures import SAID, bootstrapped, texts

from feyntune.analysis.figures.bootstrap_perplexity import bootstrap_perplexity
from feyntune.experiment.recipes import DATASETS, MODELS


def drawn(summary, models):
    return bootstrap_perplexity(summary, models, **SAID, confidence=0.95)


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
    base = f"base\n{bootstrapped(MODELS).loc['base', 'bootstrap_mean']:.2f}"
    assert all(base in [text.get_text() for text in axes.texts] for axes in (left, right))


def test_missing_models_are_named_and_not_drawn():
    found = bootstrapped(["base", "s1-LoRA-all"])
    figure = drawn(found, ["base", "s1-LoRA-all", "s1-LoRA-QKV"])
    assert "Not run: s1-LoRA-QKV" in texts(figure)
    assert len(figure.axes[0].containers) == 1


def test_nothing_at_all_still_draws():
    figure = drawn(bootstrapped(["base"]).iloc[:0], ["base", "s1-LoRA-all"])
    assert "Not run: " in texts(figure)
    assert "0.5" not in texts(figure)  # no invented scale


def test_any_choice_of_models():
    for models in (["base"], ["s2-LoRA-QKV"], ["base", "s10-LoRA-all"]):
        assert drawn(bootstrapped(models), models).axes
