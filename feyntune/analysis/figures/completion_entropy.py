"""Figure 3.4: exponentiated Shannon entropy of each completion against its length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from feyntune.analysis.figures import style
from feyntune.analysis.figures.style import DASHED, FAINT, styled
from feyntune.analysis.looks import GREEN, look_of
from feyntune.evaluation.grouping import Models
from feyntune.experiment.recipes import BASE

TRUTH = "ground truth"


@styled()
def completion_entropy(
    completions: Mapping[str, pd.DataFrame],
    models: Models,
    label: str | None,
    *,
    absent: str,
    unit: str = "tokens",
) -> Figure:
    """A cloud each of the ground truth, base and the first variant.

    The ground truth is shown again, in grey, behind the others.

    Parameters
    ----------
    completions
        Completions by model: ``tokens``, ``entropy_exp``, ``truth_tokens``,
        ``truth_entropy_exp``, of the same abstracts.
    models, label, absent
        See :mod:`feyntune.analysis.figures`.
    unit
        What ``tokens`` counts, in the plural.
    """
    wanted = [BASE, *models.shown[:1]]
    columns = ["tokens", "entropy_exp"]
    clouds = {name: completions[name][columns] for name in wanted if name in completions}
    if completions:
        some = next(iter(completions.values()))
        truth = some[[f"truth_{name}" for name in columns]].set_axis(columns, axis=1)
        clouds = {TRUTH: truth, **clouds}
    names = (TRUTH, *wanted)
    figure, row = style.panels(
        names, label, wanted=names, found=clouds, absent=absent, height=2.7, pad=22
    )
    row[0].set_ylabel(f"exponentiated Shannon entropy\n(effective number of {unit})")
    drawn = {name: cloud.query("tokens > 0") for name, cloud in clouds.items()}
    for axes, name in zip(row, names, strict=True):
        if name not in drawn:
            continue
        axes.set_xlabel(f"length ({unit})")
        if name != TRUTH:
            again = style.dots(FAINT, len(drawn[TRUTH]))
            axes.plot(*drawn[TRUTH].to_numpy().T, **again, label="ground truth again")
        colour = GREEN if name == TRUTH else look_of(name, models)[0]
        axes.plot(*drawn[name].to_numpy().T, **style.dots(colour, len(drawn[name])))
        style.heading(axes, _counted(drawn[name], len(clouds[name]), unit))
    if sum(map(len, drawn.values())):
        _common_scale(row, pd.concat(drawn.values()), f"bound: no {unit[:-1]} occurs twice")
    return style.finished(figure, row[-1:])


def _counted(drawn: pd.DataFrame, count: int, unit: str) -> str:
    """How many of ``count`` completions are drawn, and where the middle of them is."""
    empty = count - len(drawn)
    text = f"n = {len(drawn):,}" + (f" and {empty:,} empty, not drawn" if empty else "")
    if drawn.empty:
        return text
    middle = drawn.median()
    return f"{text}\nmedian {middle['tokens']:.0f} {unit}, entropy {middle['entropy_exp']:.1f}"


def _common_scale(row: Sequence[Axes], points: pd.DataFrame, bound: str) -> None:
    """The same axes for all clouds, with the bound: no text has more kinds than tokens.

    Logarithmic where some completions run on far beyond the usual length.
    """
    lowest, highest = points.min(), points.max()
    wide = highest["tokens"] > 8 * points["tokens"].median()
    for axes in row:
        axes.axline((1, 1), (2, 2), **DASHED, label=bound)
        if not wide:
            axes.set(xlim=(0, 1.04 * highest["tokens"]), ylim=(0, 1.06 * highest["entropy_exp"]))
            continue
        axes.set(xscale="log", yscale="log")
        axes.set_xlim(lowest["tokens"] / 1.3, highest["tokens"] * 1.3)
        axes.set_ylim(lowest["entropy_exp"] / 1.3, highest["entropy_exp"] * 1.5)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(ticker.LogLocator(subs=(1, 3)))
            axis.set_major_formatter(style.THOUSANDS)
            axis.set_minor_locator(ticker.NullLocator())
