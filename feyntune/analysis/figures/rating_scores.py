"""What experts think of each system, and whether cheap metrics predict it."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from feyntune.analysis import looks
from feyntune.analysis.figures import style
from feyntune.analysis.figures.style import FAINT, styled
from feyntune.evaluation.grouping import Models
from feyntune.ratings.predictors import PERPLEXITY, SEMSCORE, WITH_PROMPT

EACH = 0.16  # by how much a rater's own mean stands beside the systems', in places


@styled()
def rating_scores(
    means: pd.DataFrame,
    metrics: Mapping[str, pd.Series],
    predictions: pd.DataFrame,
    models: Models,
    label: str | None,
    *,
    confidence: float,
) -> Figure:
    """Mean score of every system, and of the models against perplexity and SemScore.

    Parameters
    ----------
    means
        As :func:`feyntune.ratings.means.human_evaluation` gives them; all papers are drawn.
    metrics
        Mean of each metric by model: :func:`feyntune.ratings.predictors.mean_metrics`.
    predictions
        Rank correlations, as :func:`feyntune.ratings.predictors.predictions` gives them.
    models, label
        See :mod:`feyntune.analysis.figures`.
    confidence
        Coverage of the intervals in ``means``.
    """
    scored = means.query("papers == 'all' and system != 'all'").set_index("system")
    semscore = SEMSCORE if metrics[SEMSCORE].notna().any() else WITH_PROMPT
    titles = ("every system", "perplexity", "SemScore")
    figure, row = style.panels(titles, label, height=3.1, pad=22, width_ratios=(2.4, 1, 1))
    row[0].set_ylabel(f"experts' mean score, 1 to 10\n({confidence:.0%} interval)")
    _draw_systems(row[0], scored, models)
    for axes, name in zip(row[1:], (PERPLEXITY, semscore), strict=True):
        axes.set_xlabel(f"mean {name}".replace(", ", "\n"))
        _draw_models(axes, scored, metrics[name], models)
        style.heading(axes, _correlation(predictions, name))
    return style.finished(figure, row[:1])


def _draw_systems(axes: Axes, scored: pd.DataFrame, models: Models) -> None:
    """A place for each system, by category; the raters' own means beside it."""
    places = dict(zip(scored.index, range(len(scored)), strict=True))
    raters = [name for name in scored if name.startswith("mean_")]
    for number, rater in enumerate(raters if len(raters) > 1 else ()):
        at = [place + EACH * (number + 1) for place in places.values()]
        axes.plot(at, scored[rater], ls="none", marker="_", ms=4, color=FAINT,
                  label="each rater" if not number else None)  # fmt: skip
    for category, look in looks.of_categories(models).items():
        own = scored[scored["category"] == category]
        if not own.empty:
            style.intervals(axes, [places[name] for name in own.index], own, look, category)
    axes.set_xticks(list(places.values()), map(models.tick, places), rotation=90)


def _draw_models(axes: Axes, scored: pd.DataFrame, metric: pd.Series, models: Models) -> None:
    """Mean score against a metric, a mark for each model that has both."""
    known = scored.join(metric.dropna().rename("metric"), how="inner")
    for category, (colour, marker) in looks.of_categories(models).items():
        own = known[known["category"] == category]
        axes.plot(own["metric"], own["mean"], ls="none", marker=marker, ms=3.5, color=colour)
    if known.empty:
        style.empty(axes, "no results")
        axes.set_xticks([])


def _correlation(predictions: pd.DataFrame, metric: str) -> str:
    """The rank correlation over the variants, in words."""
    row = predictions.query("metric == @metric and over == 'variants'").iloc[0]
    if pd.isna(row["spearman"]):
        return f"{row['models']} variants: {row['note']}"
    ends = "" if pd.isna(row["low"]) else f" [{row['low']:.2f}, {row['high']:.2f}]"
    return f"Spearman {row['spearman']:.2f}{ends}\nover {row['models']} variants"
