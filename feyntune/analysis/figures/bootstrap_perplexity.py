"""Figure 3.3: bootstrapped perplexity of every model on the s1 test set."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from feyntune.analysis.figures import style
from feyntune.analysis.figures.style import note, styled
from feyntune.analysis.looks import BLACK, look_of
from feyntune.analysis.tables.writing import digits
from feyntune.evaluation.grouping import Models
from feyntune.experiment.recipes import BASE

BETWEEN_GROUPS = 0.8  # places left free between one flavour and the next


@styled()
def bootstrap_perplexity(
    summary: pd.DataFrame,
    differences: pd.DataFrame,
    models: Models,
    label: str | None,
    *,
    absent: str,
    confidence: float,
) -> Figure:
    """Mean and interval of every model: left by flavour, right the variants of a dataset together.

    Base is a line with its band in both panels. Where no dataset has two variants there is one
    panel. Where intervals overlap the figure says what the paired differences say.

    Parameters
    ----------
    summary
        As :func:`feyntune.evaluation.statistics.bootstrap_means` gives it.
    differences
        As :func:`feyntune.analysis.tables.scores.perplexity_differences` gives them.
    models, label, absent
        See :mod:`feyntune.analysis.figures`.
    confidence
        Coverage of the intervals in ``summary``.
    """
    grouped, together = _by_flavour(models), models.side_by_side(0.56)
    panels = {"by flavour": grouped, "paired by dataset": together}
    if len(models.datasets) == len(models.variants):
        panels = {"": grouped}
    figure, row = style.panels(
        list(panels),
        label,
        wanted=models.names,
        found=summary.index,
        absent=absent,
        remark=overlaps(summary, differences),
        height=3.0,
        width_ratios=(1.8, 1)[: len(panels)] if len(grouped) > 4 else None,
    )
    row[0].set_ylabel(f"mean perplexity on the s1 test set\n({confidence:.0%} bootstrap interval)")
    for axes, places in zip(row, panels.values(), strict=True):
        axes.set_xlabel("training set")
        _draw(axes, summary, places, models)
    row[0].set_xticks(list(grouped.values()), map(models.tick, grouped))
    for axes in row[1:]:
        axes.set_xticks(range(len(models.datasets)), models.datasets)
    ends = summary[["low", "high"]]
    base = summary.index == BASE
    style.spread(row, ends[~base], ends[base])
    return style.finished(figure, row[:1])


def overlaps(summary: pd.DataFrame, differences: pd.DataFrame) -> str:
    """Of compared models whose intervals overlap: how many paired differences exclude zero.

    Two intervals that overlap say little of the difference: all models read the same abstracts,
    and much of what moves one mean moves the other. Empty where none overlap.
    """
    known = differences.dropna(subset=["low", "high"])
    one, other = (summary.loc[known[which]] for which in ("model", "reference"))
    hidden = (one["low"].to_numpy() <= other["high"].to_numpy()) & (
        other["low"].to_numpy() <= one["high"].to_numpy()
    )
    if not hidden.any():
        return ""
    apart = int((known["low"] * known["high"] > 0)[hidden].sum())
    return (
        f"Intervals of {hidden.sum()} of {len(known)} compared pairs overlap. The comparison is "
        f"paired, on the same abstracts: in {apart} of these {hidden.sum()} the interval of the "
        "difference excludes 0 (table perplexity-differences)."
    )


def _by_flavour(models: Models) -> dict[str, float]:
    """Places of the variants, flavour by flavour."""
    groups = {n: models.used.index(traits.flavour) for n, traits in models.variants.items()}
    ordered = sorted(groups, key=groups.get)
    return {name: at + BETWEEN_GROUPS * groups[name] for at, name in enumerate(ordered)}


def _draw(axes: Axes, summary: pd.DataFrame, places: Mapping[str, float], models: Models) -> None:
    """The variants at their places, and base as a line with its band."""
    found = [name for name in places if name in summary.index]
    alike: dict[tuple[str, tuple[str, str]], list[str]] = {}
    for name in found:
        look = look_of(name, models)
        alike.setdefault((models.variants[name].flavour, look), []).append(name)
    for (flavour, look), names in alike.items():
        at = [places[name] for name in names]
        style.intervals(axes, at, summary.loc[names], look, flavour)
    at = [0.0, *places.values()]
    axes.set_xlim(min(at) - 0.7, max(at) + 0.7)
    if BASE in summary.index:
        middle, low, high = summary.loc[BASE, ["mean", "low", "high"]]
        axes.axhspan(low, high, color=BLACK, alpha=0.13, lw=0)
        axes.axhline(middle, color=BLACK, lw=1)
        # As many digits as the table perplexity writes.
        text = f"base\n{middle:.{digits(summary)}f}"
        note(axes, text, (1, middle), (3, 0), "axes fraction", va="center")
