"""The figure of the ratings: every system where its mean is, and what is not there said."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from drawn_figures import colliding, of
from invented_ratings import SETTINGS, drawn

from feyntune.analysis.figures.rating_scores import rating_scores
from feyntune.experiment.recipes import BASE, VARIANTS
from feyntune.ratings import means as ratings
from feyntune.ratings import predictors

MODELS = [BASE, *VARIANTS]


def figure(metrics: dict[str, pd.Series], label=None):
    some = drawn(list(ratings.NAMES), seed=6)
    means = ratings.human_evaluation(some, SETTINGS)
    found = predictors.predictions(some, metrics, of(MODELS), SETTINGS)
    return (
        means,
        found,
        rating_scores(means, metrics, found, of(MODELS), label, confidence=0.95),
    )


def values(perplexity=True, semscore=True) -> dict[str, pd.Series]:
    rng = np.random.default_rng(2)
    given = {"perplexity": perplexity, "SemScore, continuation": semscore}
    found = {
        name: pd.Series(rng.uniform(size=21) if there else np.nan, MODELS, dtype=float)
        for name, there in given.items()
    }
    return {**found, "SemScore, with prompt": pd.Series(rng.uniform(size=21), MODELS)}


def texts(axes) -> str:
    return " ".join(text.get_text() for text in axes.texts)


def test_every_system_stands_at_its_mean():
    means, found, drawing = figure(values(), "stand-in corpus")
    scored = means.query("papers == 'all' and system != 'all'").set_index("system")["mean"]
    first, second, third = drawing.axes
    heights = [y for bar in first.containers for y in bar.lines[0].get_ydata()]
    assert sorted(heights) == pytest.approx(sorted(scored)) and len(heights) == len(ratings.NAMES)
    points = [tuple(p) for line in second.lines for p in zip(*line.get_data(), strict=True)]
    expected = [(values()["perplexity"][m], scored[m]) for m in MODELS]
    np.testing.assert_allclose(sorted(points), sorted(expected))
    rho = found.query("metric == 'perplexity' and over == 'variants'")["spearman"].iloc[0]
    assert f"Spearman {rho:.2f}" in texts(second) and "over 20 variants" in texts(second)
    assert "continuation" in third.get_xlabel()
    assert drawing.get_suptitle() == "stand-in corpus"
    assert [colliding(axes) for axes in drawing.axes] == [[], [], []]
    assert [axes.get_title(loc="left")[:3] for axes in drawing.axes] == ["(a)", "(b)", "(c)"]


def test_released_semscores_are_those_with_the_prompt():
    _, _, drawing = figure(values(semscore=False))
    assert drawing.axes[2].get_xlabel() == "mean SemScore\nwith prompt"


def test_a_metric_without_results_is_said():
    _, _, drawing = figure(values(perplexity=False))
    assert "no results" in texts(drawing.axes[1]) and "0 variants" in texts(drawing.axes[1])
