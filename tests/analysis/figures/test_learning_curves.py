"""Figure 3.1: every step of the loss, epochs with their means."""

from drawn_figures import MIXED, S1, SAID, log, of, texts

from feyntune.analysis.figures.learning_curves import learning_curves


def test_epochs_are_marked_with_their_mean():
    figure = learning_curves(dict.fromkeys(S1, log()), of(S1), **SAID)
    left, right = figure.axes
    assert [axes.get_title(loc="left") for axes in (left, right)] == [
        "(a) s1-LoRA-all",
        "(b) s1-LoRA-QKV",
    ]
    assert "epoch 1\nmean 3.500" in texts(figure) and "epoch 4\nmean 2.000" in texts(figure)
    assert left.get_ylim() == right.get_ylim()
    steps, loss = left.lines[0].get_data()
    assert (steps[0], loss[0], len(steps)) == (1, 3.5, 40)  # the row before training has no loss


def test_a_variant_without_log_is_named_and_not_drawn():
    figure = learning_curves({"s1-LoRA-all": log()}, of(S1), **SAID)
    assert "Not run: s1-LoRA-QKV" in texts(figure) and not figure.axes[1].lines


def test_nothing_at_all_still_draws():
    figure = learning_curves({}, of(S1), **SAID)
    assert "Not run: " in texts(figure)
    assert "0.5" not in texts(figure)  # no invented scale


def test_every_variant_of_the_first_dataset_has_a_panel_but_repeats():
    figure = learning_curves(dict.fromkeys(MIXED.names, log()), MIXED, **SAID)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["(a) s1-LoRA-all", "(b) s1-hot", "(c) s1-DoRA"]


def test_many_epochs_are_not_all_named():
    steps = log().assign(epoch=lambda frame: frame["step"] / 2)
    figure = learning_curves({S1[0]: steps}, of(S1[:1]), **SAID)
    named = [text for text in texts(figure).split("\n") if text.startswith("epoch ")]
    assert named == ["epoch 1", "epoch 5", "epoch 9", "epoch 13", "epoch 17"]
