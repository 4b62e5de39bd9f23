"""Figure 3.2: evaluations during training, and their moving average."""

import pytest
from drawn_figures import S1, SAID, log, of, texts

from feyntune.analysis.figures.validation_perplexity import validation_perplexity


def drawn(logs):
    return validation_perplexity(logs, of(S1), **SAID, window=3)


def test_raw_points_are_shown_and_smoothed_without_the_first():
    figure = drawn(dict.fromkeys(S1, log()))
    points, smooth = figure.axes[0].lines[:2]
    assert list(points.get_ydata()) == [40, 19, 18, 17, 16]
    assert list(smooth.get_xdata()) == [10, 20, 30, 40]
    assert list(smooth.get_ydata()) == pytest.approx([19, 18, 17, 16])
    assert "before training 40.00, at the end 16.00" in texts(figure)


def test_the_axis_names_the_split():
    assert "on the s1 validation set" in texts(drawn({S1[0]: log()}))
    assert "on the s1 test set" in texts(drawn({S1[0]: log().assign(evaluated_on="test")}))


def test_a_variant_without_log_is_named_and_not_drawn():
    figure = drawn({"s1-LoRA-all": log()})
    assert "Not run: s1-LoRA-QKV" in texts(figure)
    # Only the mark of the broken axis.
    assert not figure.axes[1].lines or figure.axes[1].get_yscale() == "function"


def test_nothing_at_all_still_draws():
    figure = drawn({})
    assert "Not run: " in texts(figure)
    assert "0.5" not in texts(figure)  # no invented scale
