"""How figures look: style, panels, stand-in label, legend, notes, broken axis, files."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from math import ceil
from pathlib import Path
from string import ascii_lowercase

import numpy as np
import pandas as pd
from matplotlib import style, ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from feyntune.analysis.looks import BLACK, VERMILION
from feyntune.experiment.files import writing
from feyntune.paths import STYLE

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


def panels(
    names: Sequence[str],
    label: str | None,
    *,
    wanted: Sequence[str] = (),
    found: Collection[str] = (),
    absent: str = "",
    height: float = 2.6,
    pad: float | None = None,
    columns: int = 3,
    remark: str = "",
    **grid: object,
) -> tuple[Figure, list[Axes]]:
    """Make a figure of the page's width with a panel per name, lettered where there are several.

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
        Of each row of panels, in inches.
    pad
        Points between a panel and its title.
    columns
        Panels in a row, at most.
    remark
        A sentence below the panels.
    grid
        Passed on to :meth:`matplotlib.figure.Figure.subplots`.
    """
    missing = [name for name in wanted if name not in found]
    columns = min(columns, len(names))
    rows = ceil(len(names) / columns)
    figure = Drawing(figsize=(7.0, height * rows))
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.05)
    grid = {"sharey": True, "squeeze": False, **grid}
    row = list(figure.subplots(rows, columns, **grid).flat)
    for unused in row[len(names) :]:
        unused.remove()
    row = row[: len(names)]
    if label:
        box = {"boxstyle": "round,pad=0.3", "fc": "#FDF0E7", "ec": VERMILION, "lw": 0.6}
        place = {"x": 0.99, "y": 0.98, "ha": "right", "va": "top"}
        figure.suptitle(label, **place, fontsize=7, fontweight="bold", color="#A84700", bbox=box)
    below = [remark, f"{absent.capitalize()}: {', '.join(missing)}" if missing else ""]
    if any(below):
        lines = [textwrap.fill(text, 150, break_on_hyphens=False) for text in below if text]
        figure.supxlabel("\n".join(lines), x=0.01, ha="left", **SMALL)
    if missing and set(names) <= set(missing):
        row[0].set_yticks([])
    for place, (axes, name) in enumerate(zip(row, names, strict=True)):
        title(axes, name, place if len(names) > 1 else None, pad)
        if name in missing:
            empty(axes, absent)
            axes.set_xticks([])
    return figure, row


def title(axes: Axes, text: str, place: int | None, pad: float | None = None) -> None:
    """Head a panel with its letter, from its place in the figure, and its title."""
    letter = "" if place is None else f"({ascii_lowercase[place]}) "
    axes.set_title(f"{letter}{text}".strip(), pad=pad)


def empty(axes: Axes, text: str, height: float = 0.5) -> None:
    """Say in a panel why it shows nothing."""
    axes.text(0.5, height, text, transform=axes.transAxes, ha="center", color=GREY)


def finished(figure: Figure, explained: Sequence[Axes]) -> Figure:
    """Explain the marks of some panels, make every tick while the style holds, settle the layout.

    Solved again at each drawing, the layout would creep by fractions of a pixel, and the bytes of
    a file would depend on how often its figure was drawn before.
    """
    rows = _legend(figure, explained)
    height = figure.get_figheight() + STRIP * (rows - 1)
    figure.set_figheight(height)
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - STRIP * rows / height))
    figure.draw_without_rendering()
    if any([_turned(axes) for axes in figure.axes]):
        figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def _legend(figure: Figure, explained: Sequence[Axes]) -> int:
    """One entry for marks of the same name, at the top of the figure, where no data is hidden.

    Returns the rows of the legend, more than one where it would reach the label.
    """
    marks: dict[str, list[object]] = {}
    for axes in explained:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            marks.setdefault(name, []).append(handle)
    if not marks:
        return 1
    label = figure._suptitle
    room = label.get_window_extent().x0 if label else figure.bbox.x1
    for columns in range(len(marks), 0, -1):
        legend = figure.legend(
            [tuple(handles) for handles in marks.values()],
            list(marks),
            loc="upper left",
            bbox_to_anchor=(0.005, 0.995),
            ncols=columns,
            handlelength=1.6 * max(map(len, marks.values())),
            handler_map={tuple: HandlerTuple(ndivide=None, pad=0.5)},
        )
        if columns == 1 or legend.get_window_extent().x1 < room:
            break
        legend.remove()
    for mark in legend.findobj(lambda each: isinstance(each, Line2D) and each.get_marker() == "o"):
        mark.set(alpha=1, markersize=4)  # dots of a large cloud would not be seen
    return ceil(len(marks) / columns)


def _turned(axes: Axes) -> bool:
    """Turn names below an axis upright where they would overlap; return whether they did."""
    names = [label for label in axes.get_xticklabels() if label.get_text()]
    boxes = [label.get_window_extent() for label in names]
    if not any(left.x1 + 1 > right.x0 for left, right in pairwise(boxes)):
        return False
    axes.tick_params(axis="x", labelrotation=90)
    return True


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
    axes: Axes,
    places: Sequence[float],
    table: pd.DataFrame,
    look: tuple[str, str],
    name: str,
) -> None:
    """Draw means with their intervals, ``low`` to ``high``, of systems that look alike.

    Parameters
    ----------
    places
        On the x axis, one for each row of the table: ``mean``, ``low``, ``high``.
    look
        Colour and marker.
    name
        What the legend calls them.
    """
    colour, marker = look
    reach = (table["mean"] - table["low"], table["high"] - table["mean"])
    line = {"fmt": marker, "color": colour, "ms": 3.5, "elinewidth": 1.1, "capsize": 1.8}
    axes.errorbar(places, table["mean"], reach, **line, label=name)


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
