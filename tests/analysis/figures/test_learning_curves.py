"""Figure 3.1: every step of the loss, epochs with their means."""

from drawn_figures import S1, SAID, log, texts

from feyntune.analysis.figures.learning_curves import learning_curves


def test_epochs_are_marked_with_their_mean():
    figure = learning_curves(dict.fromkeys(S1, log()), S1, **SAID)
    left, right = figure.axes
    assert [axes.get_title(loc="left") for axes in (left, right)] == S1
    assert "epoch 1\nmean 3.500" in texts(figure) and "epoch 4\nmean 2.000" in texts(figure)
    assert left.get_ylim() == right.get_ylim()
    steps, loss = left.lines[0].get_data()
    assert (steps[0], loss[0], len(steps)) == (1, 3.5, 40)  # the row before training has no loss


def test_a_variant_without_log_is_named_and_not_drawn():
    figure = learning_curves({"s1-LoRA-all": log()}, S1, **SAID)
    assert "Not run: s1-LoRA-QKV" in texts(figure) and not figure.axes[1].lines


def test_nothing_at_all_still_draws():
    figure = learning_curves({}, S1, **SAID)
    assert "Not run: " in texts(figure)
    assert "0.5" not in texts(figure)  # no invented scale
