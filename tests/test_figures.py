"""What each figure says and shows, and that saving it is reproducible to the byte."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from feyntune.analysis.figures import paper_figures, style
from feyntune.evaluation import statistics
from feyntune.experiment import recipes

LABEL = "stand-in corpus and model"
PNG = b"\x89PNG\r\n\x1a\n"


def texts(figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def training_log(first: float = 40.0) -> pd.DataFrame:
    steps = np.arange(41)
    log = pd.DataFrame({"step": steps, "epoch": steps / 10, "loss": 4 - 0.5 * np.ceil(steps / 10)})
    log.loc[0, "loss"] = np.nan
    log["eval_perplexity"] = np.where(steps % 10 == 0, 20 - steps / 10, np.nan)
    log.loc[0, "eval_perplexity"] = first
    return log


def bootstrapped(models, base: float = 60.0) -> pd.DataFrame:
    means = {
        name: base if name == recipes.BASE else 20 + 0.1 * at for at, name in enumerate(models)
    }
    spread = np.random.default_rng(0).normal(1, 0.05, 30)
    values = pd.DataFrame({name: mean * spread for name, mean in means.items()})
    return statistics.bootstrap_means(values, resamples=99, confidence=0.95, seed=1)


def completed(tokens=(3, 4, 0)) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "tokens": tokens,
            "entropy_exp": [2.0, 3.5, np.nan],
            "truth_tokens": [5, 6, 7],
            "truth_entropy_exp": [4.0, 5.0, 6.5],
        }
    )


def drawn(logs=None, models=recipes.MODELS, label=LABEL) -> dict:
    logs = dict.fromkeys(paper_figures.S1, training_log()) if logs is None else logs
    frames = {name: completed() for name in ("base", "s1-LoRA-all")}
    return {
        "fig-3.1": paper_figures.learning_curves(logs, label),
        "fig-3.2": paper_figures.validation_perplexity(logs, 3, label),
        "fig-3.3": paper_figures.bootstrap_perplexity(bootstrapped(models), models, label),
        "fig-3.4": paper_figures.completion_entropy(frames, label),
    }


@pytest.fixture(scope="module")
def all_drawn() -> dict:
    return drawn()


def test_label_is_part_of_every_figure_and_only_of_stand_ins(all_drawn):
    assert all(figure.get_suptitle() == LABEL for figure in all_drawn.values())
    models = ["base", "s1-LoRA-all"]
    real = paper_figures.bootstrap_perplexity(bootstrapped(models), models, None)
    assert "stand-in" not in texts(real)


def test_nothing_is_cut_off_or_lies_over_the_label(all_drawn):
    for figure in all_drawn.values():
        page = figure.bbox
        label = figure._suptitle.get_window_extent()
        for axes in figure.axes:
            tight = axes.get_tightbbox()
            assert tight.x0 >= 0 and tight.y0 >= 0 and tight.x1 <= page.x1 + 1
            assert tight.y1 <= label.y0


def test_learning_curves_mark_epochs_with_their_mean(all_drawn):
    left, right = all_drawn["fig-3.1"].axes
    assert [axes.get_title(loc="left") for axes in (left, right)] == list(paper_figures.S1)
    assert "epoch 1\nmean 3.500" in texts(all_drawn["fig-3.1"])
    assert "epoch 4\nmean 2.000" in texts(all_drawn["fig-3.1"])
    assert left.get_ylim() == right.get_ylim()
    steps, loss = left.lines[0].get_data()
    assert (steps[0], loss[0], len(steps)) == (1, 3.5, 40)  # the row before training has no loss


def test_validation_shows_raw_points_and_smooths_without_the_first(all_drawn):
    points, smooth = all_drawn["fig-3.2"].axes[0].lines[:2]
    assert list(points.get_ydata()) == [40, 19, 18, 17, 16]
    assert list(smooth.get_xdata()) == [10, 20, 30, 40]
    assert list(smooth.get_ydata()) == pytest.approx([19, 18, 17, 16])
    assert "before training: 40.00" in texts(all_drawn["fig-3.2"])


def test_axis_is_broken_only_where_base_is_far(all_drawn):
    far = all_drawn["fig-3.3"].axes[0]
    models = recipes.MODELS
    near = paper_figures.bootstrap_perplexity(bootstrapped(models, 23.0), models, None).axes[0]
    assert (far.get_yscale(), near.get_yscale()) == ("function", "linear")
    heights = far.transAxes.inverted().transform(far.transData.transform([(0, 20), (0, 22)]))[:, 1]
    assert heights[1] - heights[0] > 0.2  # two units of the variants stay visible below 60
    assert 0.8 < far.transAxes.inverted().transform(far.transData.transform((0, 60)))[1] < 1


def test_bootstrap_groups_left_and_pairs_right(all_drawn):
    left, right = all_drawn["fig-3.3"].axes
    names = [label.get_text() for label in left.get_xticklabels()]
    assert names == 2 * list(recipes.DATASETS)
    assert [label.get_text() for label in right.get_xticklabels()] == list(recipes.DATASETS)
    base = f"base\n{bootstrapped(recipes.MODELS).loc['base', 'bootstrap_mean']:.2f}"
    assert all(base in [text.get_text() for text in axes.texts] for axes in (left, right))


def test_entropy_says_what_is_not_drawn(all_drawn):
    figure = all_drawn["fig-3.4"]
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "ground truth",
        "base",
        "s1-LoRA-all",
    ]
    assert "n = 2 and 1 empty, not drawn" in texts(figure)
    assert "n = 3\nmedian 6 tokens, entropy 5.0" in texts(figure)


def test_missing_models_are_named_and_not_drawn():
    found = bootstrapped(["base", "s1-LoRA-all"])
    wanted = ["base", "s1-LoRA-all", "s1-LoRA-QKV"]
    figure = paper_figures.bootstrap_perplexity(found, wanted, LABEL)
    assert "Not run: s1-LoRA-QKV" in texts(figure)
    assert len(figure.axes[0].containers) == 1
    for figure in (
        paper_figures.learning_curves({"s1-LoRA-all": training_log()}, LABEL),
        paper_figures.validation_perplexity({"s1-LoRA-all": training_log()}, 3, LABEL),
    ):
        assert "Not run: s1-LoRA-QKV" in texts(figure)
        assert not figure.axes[1].lines or figure.axes[1].get_yscale() == "function"
    figure = paper_figures.completion_entropy({"s1-LoRA-all": completed()}, LABEL)
    assert "Not run: base" in texts(figure)


def test_nothing_at_all_still_draws(tmp_path):
    empty = bootstrapped(["base"]).iloc[:0]
    for figure in (
        paper_figures.learning_curves({}, LABEL),
        paper_figures.validation_perplexity({}, 3, LABEL),
        paper_figures.bootstrap_perplexity(empty, ["base", "s1-LoRA-all"], LABEL),
        paper_figures.completion_entropy({}, LABEL),
    ):
        assert "Not run: " in texts(figure)
        assert "0.5" not in texts(figure)  # no invented scale


@pytest.mark.parametrize("models", [["base"], ["s2-LoRA-QKV"], ["base", "s10-LoRA-all"]])
def test_any_choice_of_models(models):
    assert paper_figures.bootstrap_perplexity(bootstrapped(models), models, LABEL).axes


def test_saved_bytes_do_not_change(tmp_path, all_drawn):
    for round_ in ("first", "second"):
        for name, figure in all_drawn.items():
            style.save(figure, tmp_path / round_ / name)
    # Another process, with other string hashes and another user's taste.
    script = (
        "import sys; sys.path.insert(0, 'tests'); import matplotlib; from pathlib import Path\n"
        "matplotlib.rcParams['font.size'] = 20\n"
        "import test_figures as t; from feyntune import drawing\n"
        f"[drawing.save(f, Path({str(tmp_path)!r}) / 'third' / n) for n, f in t.drawn().items()]"
    )
    root = Path(paper_figures.__file__).parents[1]
    environment = os.environ | {"PYTHONHASHSEED": "123", "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", script], check=True, cwd=root, env=environment)
    written = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert written == [f"fig-3.{n}.{ending}" for n in range(1, 5) for ending in ("pdf", "png")]
    for name in written:
        first = (tmp_path / "first" / name).read_bytes()
        assert first == (tmp_path / "second" / name).read_bytes(), name
        assert first == (tmp_path / "third" / name).read_bytes(), name
        assert b"CreationDate" not in first


def test_jupyter_shows_a_picture_without_pyplot(all_drawn):
    assert all_drawn["fig-3.1"]._repr_png_().startswith(PNG)
