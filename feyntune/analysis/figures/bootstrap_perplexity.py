"""Figure 3.3: bootstrapped perplexity of every model on the s1 test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from feyntune.analysis.figures import style
from feyntune.analysis.figures.style import BLACK, note, styled
from feyntune.experiment.recipes import BASE, FLAVOURS, dataset_of, flavour_of


@styled()
def bootstrap_perplexity(
    summary: pd.DataFrame,
    wanted: Sequence[str],
    label: str | None,
    *,
    absent: str,
    confidence: float,
) -> Figure:
    """Mean and interval of every model: left by flavour, right the two flavours side by side.

    Base is a line with its band in both panels.

    Parameters
    ----------
    summary
        As :func:`feyntune.evaluation.statistics.bootstrap_means` gives it.
    wanted, label, absent
        See :mod:`feyntune.analysis.figures`.
    confidence
        Coverage of the intervals in ``summary``.
    """
    models = [name for name in wanted if name != BASE]
    datasets = style.datasets_of(models)
    second = {name: flavour_of(name) == FLAVOURS[1] for name in models}
    grouped = {name: place + 0.8 * second[name] for place, name in enumerate(models)}
    paired = {
        name: datasets.index(dataset_of(name)) + (0.14 if second[name] else -0.14)
        for name in models
    }
    figure, row = style.panels(
        ("by flavour", "paired by dataset"),
        label,
        wanted=wanted,
        found=summary.index,
        absent=absent,
        height=3.0,
        width_ratios=(1.8, 1) if len(models) > 4 else (1, 1),
    )
    row[0].set_ylabel(f"perplexity on the s1 test set\n(bootstrap mean, {confidence:.0%} interval)")
    for axes, places in zip(row, (grouped, paired), strict=True):
        axes.set_xlabel("training set")
        _draw(axes, summary, places)
        if summary.empty:
            style.empty(axes, absent)
    row[0].set_xticks(list(grouped.values()), map(dataset_of, grouped))
    row[1].set_xticks(range(len(datasets)), datasets)
    ends = summary[["low", "high"]]
    base = summary.index == BASE
    style.spread(row, ends[~base], ends[base])
    return style.finished(figure, row[:1])


def _draw(axes: Axes, summary: pd.DataFrame, places: Mapping[str, float]) -> None:
    """The variants at their places, and base as a line with its band."""
    for flavour in FLAVOURS:
        names = [n for n in places if flavour_of(n) == flavour and n in summary.index]
        if names:
            at = [places[name] for name in names]
            style.intervals(axes, at, summary.loc[names], "bootstrap_mean", flavour)
    at = [0.0, *places.values()]
    axes.set_xlim(min(at) - 0.7, max(at) + 0.7)
    if BASE in summary.index:
        middle, low, high = summary.loc[BASE, ["bootstrap_mean", "low", "high"]]
        axes.axhspan(low, high, color=BLACK, alpha=0.13, lw=0)
        axes.axhline(middle, color=BLACK, lw=1)
        note(axes, f"base\n{middle:.2f}", (1, middle), (3, 0), "axes fraction", va="center")
