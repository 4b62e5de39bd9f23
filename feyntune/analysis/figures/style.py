"""How figures look: style, panels, stand-in label, legend, notes, broken axis, files."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import style, ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from feyntune.experiment.files import writing
from feyntune.experiment.recipes import BASE, DATASETS, FLAVOURS, dataset_of, flavour_of
from feyntune.paths import STYLE

BLUE, VERMILION, GREEN, BLACK = "#0072B2", "#D55E00", "#009E73", "#202020"
# Colour and marker of each category of systems, in every figure.
LOOKS = {
    "Base": (BLACK, "D"),
    **dict(zip(FLAVOURS, ((BLUE, "o"), (VERMILION, "s")), strict=True)),
    "Commercial": (GREEN, "^"),
}
FAINT, GREY = "#B0B0B0", "#707070"
SMALL = {"fontsize": 6.5, "color": GREY}
DASHED = {"color": GREY, "lw": 0.6, "ls": (0, (4, 3)), "zorder": 0.5}
STRIP = 0.2  # inches at the top for label and legend, free of data
# A scale is broken where what lies apart would take more than this share of the axis in emptiness.
EMPTY_SHARE = 0.4
MAIN_SHARE, BREAK_SHARE = 0.73, 0.08
NICE = ticker.MaxNLocator(5, steps=[1, 2, 5, 10])
THOUSANDS = ticker.StrMethodFormatter("{x:,.0f}")


@contextmanager
def styled() -> Iterator[None]:
    """Draw in this package's style, whatever the user's settings are; also as ``@styled()``."""
    with style.context(STYLE, after_reset=True):
        yield


class Drawing(Figure):
    """A figure that Jupyter shows without pyplot and its state."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        with styled():
            self.savefig(buffer, format="png", dpi=150)
        return buffer.getvalue()


def save(figure: Figure, stem: Path) -> None:
    """Write ``stem.pdf`` and ``stem.png`` (200 dpi), with the same bytes on every run."""
    metadata = {"pdf": {"CreationDate": None}, "png": {"Software": None}}
    for ending, fields in metadata.items():
        target = stem.with_name(f"{stem.name}.{ending}")  # with_suffix would cut fig-3.1 short
        with styled(), writing(target) as partial:
            figure.savefig(partial, format=ending, dpi=200, metadata=fields)


def look_of(model: str) -> tuple[str, str]:
    """Colour and marker of base or of a variant."""
    return LOOKS["Base" if model == BASE else flavour_of(model)]


def datasets_of(variants: Iterable[str]) -> list[str]:
    """The training sets of some variants, each once, in the order of the paper."""
    return sorted({dataset_of(name) for name in variants}, key=DATASETS.index)


def panels(
    names: Sequence[str],
    label: str | None,
    *,
    wanted: Sequence[str] = (),
    found: Collection[str] = (),
    absent: str = "",
    height: float = 2.6,
    pad: float | None = None,
    **grid: object,
) -> tuple[Figure, list[Axes]]:
    """Make a figure of the page's width with a panel per name.

    Parameters
    ----------
    names
        Titles of the panels, left to right.
    label
        What is a stand-in, or ``None``.
    wanted, found
        What should have results, and what has: the rest is named below the panels, and a panel of
        such a name is empty.
    absent
        What is said of the rest.
    height
        Of the figure, in inches.
    pad
        Points between a panel and its title.
    grid
        Passed on to :meth:`matplotlib.figure.Figure.subplots`.
    """
    missing = [name for name in wanted if name not in found]
    figure = Drawing(figsize=(7.0, height))
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.05, rect=(0, 0, 1, 1 - STRIP / height))
    row = figure.subplots(1, len(names), sharey=True, squeeze=False, **grid)[0]
    if label:
        box = {"boxstyle": "round,pad=0.3", "fc": "#FDF0E7", "ec": VERMILION, "lw": 0.6}
        place = {"x": 0.99, "y": 0.98, "ha": "right", "va": "top"}
        figure.suptitle(label, **place, fontsize=7, fontweight="bold", color="#A84700", bbox=box)
    if missing:
        text = f"{absent.capitalize()}: {', '.join(missing)}"
        text = textwrap.fill(text, 130, break_on_hyphens=False)
        figure.supxlabel(text, x=0.01, ha="left", **SMALL)
    if missing and set(names) <= set(missing):
        row[0].set_yticks([])
    for axes, name in zip(row, names, strict=True):
        axes.set_title(name, pad=pad)
        if name in missing:
            empty(axes, absent)
            axes.set_xticks([])
    return figure, list(row)


def empty(axes: Axes, text: str, height: float = 0.5) -> None:
    """Say in a panel why it shows nothing."""
    axes.text(0.5, height, text, transform=axes.transAxes, ha="center", color=GREY)


def finished(figure: Figure, explained: Sequence[Axes]) -> Figure:
    """Explain the marks of some panels, make every tick while the style holds, settle the layout.

    Solved again at each drawing, the layout would creep by fractions of a pixel, and the bytes of
    a file would depend on how often its figure was drawn before.
    """
    _legend(figure, explained)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def _legend(figure: Figure, explained: Sequence[Axes]) -> None:
    """One entry for marks of the same name, at the top of the figure, where no data is hidden."""
    marks = {}
    for axes in explained:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            marks.setdefault(name, []).append(handle)
    if not marks:
        return
    legend = figure.legend(
        [tuple(handles) for handles in marks.values()],
        list(marks),
        loc="upper left",
        bbox_to_anchor=(0.005, 0.995),
        ncols=len(marks),
        handlelength=1.6 * max(map(len, marks.values())),
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0.5)},
    )
    for mark in legend.findobj(lambda each: isinstance(each, Line2D) and each.get_marker() == "o"):
        mark.set(alpha=1, markersize=4)  # dots of a large cloud would not be seen


def note(
    axes: Axes, text: str, at: tuple[float, float], shift: tuple[float, float],
    x: str = "data", y: str = "data", **place: str,
) -> None:  # fmt: skip
    """Write small text, ``shift`` points from ``at`` in the coordinates that x and y name."""
    axes.annotate(text, at, shift, xycoords=(x, y), textcoords="offset points", **place, **SMALL)


def heading(axes: Axes, text: str) -> None:
    """Write small text above a panel, from its left edge."""
    note(axes, text, (0, 1), (0, 3), "axes fraction", "axes fraction", va="bottom")


def intervals(
    axes: Axes, places: Sequence[float], table: pd.DataFrame, mean: str, category: str
) -> None:
    """Draw means with their intervals, ``low`` to ``high``, of systems of one category.

    Parameters
    ----------
    places
        On the x axis, one for each row of the table.
    mean
        The column of means.
    category
        A key of ``LOOKS``, which the legend names.
    """
    colour, marker = LOOKS[category]
    reach = (table[mean] - table["low"], table["high"] - table[mean])
    look = {"fmt": marker, "color": colour, "ms": 3.5, "elinewidth": 1.1, "capsize": 1.8}
    axes.errorbar(places, table[mean], reach, **look, label=category)


def dots(colour: str, count: int) -> dict[str, object]:
    """Marks that stay apart when few and make a cloud when many (then as pixels, in a PDF too)."""
    many = count > 2000
    return {
        "ls": "none", "marker": "o", "ms": 1.2 if many else 2.6, "mew": 0, "color": colour,
        "alpha": 0.1 if many else 0.6, "rasterized": many,
    }  # fmt: skip


def count_steps(axes: Axes) -> None:
    """Mark whole training steps on the x axis."""
    axes.set_xlabel("training step")
    places = ticker.MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], integer=True)
    axes.xaxis.set_major_locator(places)
    axes.xaxis.set_major_formatter(THOUSANDS)


def spread(row: Sequence[Axes], main: ArrayLike, apart: ArrayLike) -> None:
    """Fit the common y axis, broken where ``apart`` is so far off that ``main`` would be flat.

    One unit is as long beyond the break as before it, unless ``apart`` needs more room.
    """
    main, apart = (np.asarray(values, dtype=float).ravel() for values in (main, apart))
    both = np.concatenate([main, apart])
    if not both.size:
        row[0].set_yticks([])
        return
    row[0].set_ylim(_padded(both))
    gap = max(apart.min() - main.max(), main.min() - apart.max()) if main.size * apart.size else 0
    if gap <= EMPTY_SHARE * np.ptp(both):
        return
    inner = _padded(main)
    beyond = (1 - MAIN_SHARE - BREAK_SHARE) * np.ptp(inner) / MAIN_SHARE
    middle = (apart.min() + apart.max()) / 2
    reach = max(beyond, 2.6 * np.ptp(apart)) / 2
    outer = (middle - reach, middle + reach)
    above = apart.min() > main.max()
    knots = [*inner, *outer] if above else [*outer, *inner]
    if np.any(np.diff(knots) <= 0):
        return
    edge = MAIN_SHARE if above else 1 - MAIN_SHARE - BREAK_SHARE
    shares = [0, edge, edge + BREAK_SHARE, 1]
    scale = (lambda y: np.interp(y, knots, shares), lambda y: np.interp(y, shares, knots))
    ticks = [tick for tick in NICE.tick_values(*inner) if inner[0] <= tick <= inner[1]]
    ticks.append(min(NICE.tick_values(*outer), key=lambda tick: abs(tick - middle)))
    for axes in row:
        axes.set_yscale("function", functions=scale)
        axes.yaxis.set_major_locator(ticker.FixedLocator(ticks))
        axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        axes.set_ylim(knots[0], knots[-1])
        _mark_break(axes, edge)


def _mark_break(axes: Axes, edge: float) -> None:
    """Interrupt the spine where the scale does."""
    look = {"transform": axes.transAxes, "clip_on": False}
    low, high = edge + 0.01, edge + BREAK_SHARE - 0.01
    axes.plot([0, 0], [low + 0.01, high - 0.01], color="white", lw=2, **look, zorder=4)
    for y in (low, high):
        axes.plot([-0.012, 0.012], [y - 0.012, y + 0.012], color=BLACK, lw=0.8, **look, zorder=5)


def _padded(values: np.ndarray) -> tuple[float, float]:
    pad = 0.08 * max(np.ptp(values), 1e-3 * np.abs(values).max())
    return values.min() - pad, values.max() + pad
