"""Figure fig-human-evaluation: what experts think of each system, and what cheap metrics do."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from feyntune.analysis.figures import style
from feyntune.analysis.figures.style import BLACK, FAINT, GREEN, GREY, note, styled
from feyntune.experiment import recipes
from feyntune.ratings.predictors import PERPLEXITY, SEMSCORE, WITH_PROMPT

LOOKS = {"Base": (BLACK, "D"), **style.LOOKS, "Commercial": (GREEN, "^")}
EACH = 0.16  # by how much a rater's own mean stands beside the systems', in places


@styled()
def human_evaluation(
    means: pd.DataFrame,
    metrics: Mapping[str, pd.Series],
    predictions: pd.DataFrame,
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
    label
        What is a stand-in, or ``None``.
    confidence
        Coverage of the intervals in ``means``.
    """
    scored = means.query("papers == 'all' and system != 'all'").set_index("system")
    semscore = SEMSCORE if metrics[SEMSCORE].notna().any() else WITH_PROMPT
    names = ["mean score of each system", PERPLEXITY, semscore]
    figure, row = style.panels(
        names, label, found=names, wanted=names, height=3.1, width_ratios=(2.4, 1, 1)
    )
    row[0].set_ylabel(f"experts' mean score, 1 to 10\n({confidence:.0%} interval)")
    _systems(row[0], scored)
    for axes, name in zip(row[1:], names[1:], strict=True):
        axes.set_title("")
        axes.set_xlabel(f"mean {name}".replace(", ", "\n"))
        _models(axes, scored, metrics[name])
        _correlation(axes, predictions, name)
    return style.finished(figure, row[:1])


def _systems(axes: Axes, scored: pd.DataFrame) -> None:
    """A place for each system, by category; the raters' own means beside it."""
    axes.set_title("")
    places = dict(zip(scored.index, range(len(scored)), strict=True))
    raters = [name for name in scored if name.startswith("mean_")]
    for number, rater in enumerate(raters if len(raters) > 1 else ()):
        at = [place + EACH * (number + 1) for place in places.values()]
        axes.plot(at, scored[rater], ls="none", marker="_", ms=4, color=FAINT,
                  label="each rater" if not number else None)  # fmt: skip
    for category, (colour, marker) in LOOKS.items():
        own = scored[scored["category"] == category]
        if own.empty:
            continue
        reach = (own["mean"] - own["low"], own["high"] - own["mean"])
        look = {"fmt": marker, "color": colour, "ms": 3.5, "elinewidth": 1.1, "capsize": 1.8}
        axes.errorbar([places[name] for name in own.index], own["mean"], reach, **look,
                      label=category)  # fmt: skip
    axes.set_xticks(list(places.values()), map(_short, places), rotation=90)


def _short(system: str) -> str:
    return recipes.dataset_of(system) if system in recipes.VARIANTS else system


def _models(axes: Axes, scored: pd.DataFrame, metric: pd.Series) -> None:
    """Mean score against a metric, a mark for each model that has both."""
    known = scored.join(metric.dropna().rename("metric"), how="inner")
    for category, (colour, marker) in LOOKS.items():
        own = known[known["category"] == category]
        axes.plot(own["metric"], own["mean"], ls="none", marker=marker, ms=3.5, color=colour)
    if known.empty:
        axes.text(0.5, 0.5, "no results", transform=axes.transAxes, ha="center", color=GREY)
        axes.set_xticks([])


def _correlation(axes: Axes, predictions: pd.DataFrame, metric: str) -> None:
    """The rank correlation over the variants, above the panel."""
    row = predictions.query("metric == @metric and over == 'variants'").iloc[0]
    text = f"{row['models']} variants: {row['note']}"
    if pd.notna(row["spearman"]):
        text = f"Spearman {row['spearman']:.2f}"
        if pd.notna(row["low"]):
            text += f" [{row['low']:.2f}, {row['high']:.2f}]"
        text += f"\nover {row['models']} variants"
    note(axes, text, (0, 1), (0, 3), "axes fraction", "axes fraction", va="bottom")
