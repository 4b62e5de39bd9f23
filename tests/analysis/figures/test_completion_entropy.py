"""Figure 3.4: clouds of completions, and what is said of those that are not drawn."""

from drawn_figures import SAID, completed, of, texts

from feyntune.analysis.figures.completion_entropy import completion_entropy

WANTED = ["base", "s1-LoRA-all"]


def test_what_is_not_drawn_is_said():
    figure = completion_entropy(dict.fromkeys(WANTED, completed()), of(WANTED), **SAID)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["(a) ground truth", "(b) base", "(c) s1-LoRA-all"]
    assert "n = 2 and 1 empty, not drawn" in texts(figure)
    assert "n = 3\nmedian 6 tokens, entropy 5.0" in texts(figure)


def test_a_model_without_completions_is_named():
    figure = completion_entropy({"s1-LoRA-all": completed()}, of(WANTED), **SAID)
    assert "Not run: base" in texts(figure)


def test_nothing_at_all_still_draws():
    figure = completion_entropy({}, of(WANTED), **SAID)
    assert "Not run: " in texts(figure)
    assert "0.5" not in texts(figure)  # no invented scale
