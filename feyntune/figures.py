"""The paper's four figures, drawn from result files.

Each function takes frames as notebook 07 reads them and returns a figure. Models whose results
do not exist are named on the figure, never drawn. Everything that is a stand-in says so in the
picture itself, which may travel without its caption.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import style, ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from feyntune import paths, statistics, variants

STYLE = paths.PACKAGE / "feyntune.mplstyle"
BLUE, VERMILION, GREEN, BLACK = "#0072B2", "#D55E00", "#009E73", "#202020"
FAINT, GREY = "#C8C8C8", "#707070"
LOOKS = dict(zip(variants.FLAVOURS, ((BLUE, "o"), (VERMILION, "s")), strict=True))
S1 = tuple(f"s1-{flavour}" for flavour in variants.FLAVOURS)
# A scale is broken where what lies apart would take more than this share of the axis in emptiness.
EMPTY_SHARE = 0.4
MAIN_SHARE, BREAK_SHARE = 0.73, 0.08
SMALL = {"fontsize": 6.5, "color": GREY}
NICE = ticker.MaxNLocator(5, steps=[1, 2, 5, 10])
TRUTH = "ground truth"
BOUND = "bound: no token occurs twice"
THOUSANDS = ticker.StrMethodFormatter("{x:,.0f}")
STRIP = 0.2  # inches at the top for label and legend, free of data


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the house style, whatever the user's own matplotlib settings are."""
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
        with styled(), paths.writing(target) as partial:
            figure.savefig(partial, format=ending, dpi=200, metadata=fields)


def learning_curves(
    logs: Mapping[str, pd.DataFrame], label: str | None, wanted: Sequence[str] = S1
) -> Figure:
    """Figure 3.1: training loss (nats per token) at every step, one panel per variant.

    Parameters
    ----------
    logs
        Training logs by variant: ``step``, ``epoch``, ``loss``.
    label
        What is a stand-in, or ``None``.
    wanted
        The variants to show, left to right.
    """
    with styled():
        figure, panels = _panels(wanted, label, missing=_missing(logs, wanted))
        panels[0].set_ylabel("training loss (nats per token)")
        for axes, variant in zip(panels, wanted, strict=True):
            axes.set_title(variant, pad=22)
            axes.set_xlabel("training step")
            if variant not in logs:
                continue
            log = logs[variant].dropna(subset=["loss"])
            window = 2 * round(len(log) / 120) + 3
            mean = statistics.moving_average(log["loss"], window)
            colour, _ = LOOKS[variants.flavour_of(variant)]
            axes.plot(log["step"], log["loss"], color=colour, alpha=0.35, lw=0.5, label="each step")
            axes.plot(log["step"], mean, color=colour, label=f"mean of {window} steps")
            axes.set_xlim(0, log["step"].max())
            axes.xaxis.set_major_locator(
                ticker.MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], integer=True)
            )
            axes.xaxis.set_major_formatter(THOUSANDS)
            _mark_epochs(axes, log)
            axes.legend(loc="upper right")
        return _finished(figure)


def _mark_epochs(axes: Axes, log: pd.DataFrame) -> None:
    """Part the epochs by faint lines and head each with its mean loss, which shows the steps."""
    epochs = np.ceil(log["epoch"].round(6)).clip(lower=1)
    for epoch, part in log.groupby(epochs):
        start, end = part["step"].min() - 1, part["step"].max()
        if epoch > 1:
            axes.axvline(start + 0.5, color=GREY, lw=0.6, ls=(0, (4, 3)), zorder=0.5)
        heading = f"epoch {epoch:.0f}\nmean {part['loss'].mean():.3f}"
        place = ((start + end) / 2, 1)
        _note(axes, heading, place, (0, 2), "data", "axes fraction", ha="center", va="bottom")


def validation_perplexity(
    logs: Mapping[str, pd.DataFrame], window: int, label: str | None, wanted: Sequence[str] = S1
) -> Figure:
    """Figure 3.2: mean batch perplexity on the s1 validation set during training.

    The evaluation before training stands apart: it is drawn beyond a break in the axis where it
    would dwarf the others, and is left out of the smoothing, which it would distort.

    Parameters
    ----------
    logs
        Training logs by variant: ``step``, ``eval_perplexity`` (NaN between evaluations).
    window
        Evaluations in the centred moving average.
    label, wanted
        As for :func:`learning_curves`.
    """
    found = [variant for variant in wanted if variant in logs]
    curves = {name: logs[name].dropna(subset=["eval_perplexity"]) for name in found}
    with styled():
        figure, panels = _panels(wanted, label, missing=_missing(logs, wanted))
        panels[0].set_ylabel("mean batch perplexity\non the s1 validation set")
        for axes, variant in zip(panels, wanted, strict=True):
            axes.set_title(variant)
            axes.set_xlabel("training step")
            if variant not in curves:
                continue
            steps, raw = (curves[variant][name].to_numpy() for name in ("step", "eval_perplexity"))
            trained = steps > 0
            smooth = statistics.moving_average(raw[trained], window)
            colour, marker = LOOKS[variants.flavour_of(variant)]
            look = {"ls": "none", "marker": marker, "mfc": "white", "mec": colour, "zorder": 3}
            axes.plot(steps, raw, **look, label="evaluation")
            axes.plot(steps[trained], smooth, color=colour, label=f"mean of {window} evaluations")
            if not trained[0]:
                _note(
                    axes, f"before training: {raw[0]:.2f}", (steps[0], raw[0]), (7, 0), va="center"
                )
            _note(axes, f"{raw[-1]:.2f}", (steps[-1], raw[-1]), (5, 0), va="center")
            axes.set_xlim(-0.03 * steps.max(), 1.1 * steps.max())
            axes.xaxis.set_major_locator(
                ticker.MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], integer=True)
            )
            axes.xaxis.set_major_formatter(THOUSANDS)
            axes.legend(loc="best")
        if curves:
            points = pd.concat(curves.values())
            first = points["step"] == 0
            _spread(panels, *(points.loc[which, "eval_perplexity"] for which in (~first, first)))
        return _finished(figure)


def bootstrap_perplexity(
    summary: pd.DataFrame, wanted: Sequence[str], label: str | None, *, confidence: float = 0.95
) -> Figure:
    """Figure 3.3: bootstrapped perplexity of every model on the s1 test set.

    Left by flavour, right the two flavours of a dataset side by side; base in both.

    Parameters
    ----------
    summary
        As :func:`feyntune.statistics.bootstrap_means` gives it.
    wanted
        All models that there should be, base included, in the order of the tables.
    label
        What is a stand-in, or ``None``.
    confidence
        Coverage of the intervals in ``summary``.
    """
    models = [name for name in wanted if name != variants.BASE]
    datasets = sorted({variants.dataset_of(name) for name in models}, key=variants.DATASETS.index)
    second = {name: variants.flavour_of(name) == variants.FLAVOURS[1] for name in models}
    grouped = {name: place + 0.8 * second[name] for place, name in enumerate(models)}
    paired = {
        name: datasets.index(variants.dataset_of(name)) + (0.14 if second[name] else -0.14)
        for name in models
    }
    with styled():
        titles = ("by flavour", "paired by dataset")
        options = {
            "height": 3.0,
            "legend": True,
            "width_ratios": (1.8, 1) if len(models) > 4 else (1, 1),
        }
        figure, panels = _panels(titles, label, missing=_missing(summary.index, wanted), **options)
        interval = f"(bootstrap mean, {confidence:.0%} interval)"
        panels[0].set_ylabel(f"perplexity on the s1 test set\n{interval}")
        for axes, title, places in zip(panels, titles, (grouped, paired), strict=True):
            axes.set_title(title)
            axes.set_xlabel("training set")
            _intervals(axes, summary, places)
        panels[0].set_xticks(list(grouped.values()), map(variants.dataset_of, grouped))
        panels[1].set_xticks(range(len(datasets)), datasets)
        ends = summary[["low", "high"]]
        _strip_legend(figure, panels[0])
        _spread(
            panels,
            ends.drop(index=variants.BASE, errors="ignore"),
            ends.filter([variants.BASE], axis=0),
        )
        return _finished(figure)


def _intervals(axes: Axes, summary: pd.DataFrame, places: Mapping[str, float]) -> None:
    """Draw the means with their intervals at their places, and base as a line with its band."""
    for flavour, (colour, marker) in LOOKS.items():
        own = [name for name in places if variants.flavour_of(name) == flavour]
        names = [name for name in own if name in summary.index]
        middle, low, high = summary.loc[names, ["bootstrap_mean", "low", "high"]].to_numpy().T
        reach = (middle - low, high - middle)
        look = {"fmt": marker, "color": colour, "ms": 3.5, "elinewidth": 1.1, "capsize": 1.8}
        if names:
            axes.errorbar([places[name] for name in names], middle, reach, **look, label=flavour)
    at = [0.0, *places.values()]
    axes.set_xlim(min(at) - 0.7, max(at) + 0.7)
    if variants.BASE in summary.index:
        middle, low, high = summary.loc[variants.BASE, ["bootstrap_mean", "low", "high"]]
        axes.axhspan(low, high, color=BLACK, alpha=0.13, lw=0)
        axes.axhline(middle, color=BLACK, lw=1)
        _note(
            axes, f"base {middle:.2f}", (1, high), (-2, 2), "axes fraction", ha="right", va="bottom"
        )


def completion_entropy(
    completions: Mapping[str, pd.DataFrame],
    label: str | None,
    wanted: Sequence[str] = (variants.BASE, "s1-LoRA-all"),
) -> Figure:
    """Figure 3.4: exponentiated Shannon entropy of each completion against its length.

    The first panel is the ground truth, which the others repeat in grey.

    Parameters
    ----------
    completions
        Completions by model: ``tokens``, ``entropy_exp``, ``truth_tokens``,
        ``truth_entropy_exp``, of the same abstracts.
    label
        What is a stand-in, or ``None``.
    wanted
        The models to show, left to right.
    """
    columns = ["tokens", "entropy_exp"]
    clouds = {name: completions[name][columns] for name in wanted if name in completions}
    for frame in completions.values():
        truth = frame[[f"truth_{name}" for name in columns]].set_axis(columns, axis=1)
        clouds = {TRUTH: truth, **clouds}
        break
    names = (TRUTH, *wanted)
    with styled():
        options = {"height": 2.7, "legend": True}
        figure, panels = _panels(names, label, missing=_missing(clouds, names), **options)
        panels[0].set_ylabel("exponentiated Shannon entropy\n(effective number of tokens)")
        for axes, name in zip(panels, names, strict=True):
            axes.set_title(name, pad=22)
            axes.set_xlabel("length (tokens)")
            if name not in clouds:
                continue
            drawn = clouds[name].query("tokens > 0")
            if name != TRUTH:
                again = _dots(FAINT, len(clouds[TRUTH]))
                truths = clouds[TRUTH].query("tokens > 0").to_numpy()
                axes.plot(*truths.T, **again, label="ground truth again")
            axes.plot(*drawn.to_numpy().T, **_dots(_colour(name), len(drawn)))
            empty = len(clouds[name]) - len(drawn)
            middle = drawn.median()
            text = f"n = {len(drawn):,}" + (f" and {empty:,} empty, not drawn" if empty else "")
            if len(drawn):
                text += f"\nmedian {middle.iloc[0]:.0f} tokens, entropy {middle.iloc[1]:.1f}"
            _note(axes, text, (0, 1), (0, 3), "axes fraction", "axes fraction", va="bottom")
        _common_scale(panels, clouds)
        _strip_legend(figure, panels[-1])
        return _finished(figure)


def _colour(name: str) -> str:
    known = {TRUTH: GREEN, variants.BASE: BLACK}
    return known[name] if name in known else LOOKS[variants.flavour_of(name)][0]


def _dots(colour: str, count: int) -> dict[str, object]:
    """Marks that stay apart when few and make a cloud when many (then as pixels, in a PDF too)."""
    many = count > 2000
    return {
        "ls": "none", "marker": "o", "ms": 1.2 if many else 2.6, "mew": 0, "color": colour,
        "alpha": 0.1 if many else 0.6, "rasterized": many,
    }  # fmt: skip


def _common_scale(panels: Sequence[Axes], clouds: Mapping[str, pd.DataFrame]) -> None:
    """The same axes for all clouds, with the bound: no text has more kinds than tokens.

    Logarithmic where some completions run on far beyond the usual length.
    """
    points = pd.concat(clouds.values()) if clouds else pd.DataFrame({"tokens": []})
    points = points[points["tokens"] > 0]
    if points.empty:
        return
    lowest, highest = points.min(), points.max()
    wide = highest["tokens"] > 8 * points["tokens"].median()
    for axes in panels:
        axes.axline((1, 1), (2, 2), color=GREY, lw=0.7, ls=(0, (4, 3)), zorder=0.5, label=BOUND)
        if not wide:
            axes.set(xlim=(0, 1.04 * highest["tokens"]), ylim=(0, 1.06 * highest["entropy_exp"]))
            continue
        axes.set(xscale="log", yscale="log")
        axes.set_xlim(lowest["tokens"] / 1.3, highest["tokens"] * 1.3)
        axes.set_ylim(lowest["entropy_exp"] / 1.3, highest["entropy_exp"] * 1.5)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(ticker.LogLocator(subs=(1, 3)))
            axis.set_major_formatter(THOUSANDS)
            axis.set_minor_locator(ticker.NullLocator())


def _panels(
    names: Sequence[str],
    label: str | None,
    *,
    missing: Sequence[str],
    height: float = 2.6,
    legend: bool = False,
    **grid: object,
) -> tuple[Figure, list[Axes]]:
    """Make a figure of the page's width with a panel per name, the label and what was not run."""
    strip = STRIP if label or legend else 0
    figure = Drawing(figsize=(7.0, height))
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.05, rect=(0, 0, 1, 1 - strip / height))
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False, **grid)[0]
    if label:
        box = {"boxstyle": "round,pad=0.3", "fc": "#FDF0E7", "ec": VERMILION, "lw": 0.6}
        place = {"x": 0.99, "y": 0.98, "ha": "right", "va": "top"}
        figure.suptitle(label, **place, fontsize=7, fontweight="bold", color="#A84700", bbox=box)
    if missing:
        text = textwrap.fill(f"Not run: {', '.join(missing)}", 150, break_on_hyphens=False)
        figure.supxlabel(text, x=0.01, ha="left", **SMALL)
    if missing and set(names) <= set(missing):
        panels[0].set_yticks([])
    for axes, name in zip(panels, names, strict=True):
        if name in missing:
            axes.text(0.5, 0.5, "not run", transform=axes.transAxes, ha="center", color=GREY)
            axes.set_xticks([])
    return figure, list(panels)


def _strip_legend(figure: Figure, panel: Axes) -> None:
    """Explain the marks of a panel once for all, at the top of the figure."""
    handles, labels = panel.get_legend_handles_labels()
    place = {"loc": "upper left", "bbox_to_anchor": (0.005, 0.995), "ncols": 3}
    if handles:
        legend = figure.legend(handles, labels, **place)
        for handle in legend.findobj(Line2D):
            handle.set(alpha=1, markersize=4)  # dots of a large cloud would not be seen


def _finished(figure: Figure) -> Figure:
    """Make every tick while the style holds, and settle the layout.

    Solved again at each drawing, the layout would creep by fractions of a pixel, and the bytes of
    a file would depend on how often its figure was drawn before.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def _missing(found: Collection[str], wanted: Sequence[str]) -> list[str]:
    return [name for name in wanted if name not in found]


def _note(
    axes: Axes, text: str, at: tuple[float, float], shift: tuple[float, float],
    x: str = "data", y: str = "data", **place: str,
) -> None:  # fmt: skip
    """Write small text, ``shift`` points from ``at`` in the coordinates that x and y name."""
    axes.annotate(text, at, shift, xycoords=(x, y), textcoords="offset points", **place, **SMALL)


def _spread(panels: Sequence[Axes], main: ArrayLike, apart: ArrayLike) -> None:
    """Fit the common y axis, broken where ``apart`` is so far off that ``main`` would be flat.

    One unit is as long beyond the break as before it, unless ``apart`` needs more room.
    """
    main, apart = (np.asarray(values, dtype=float).ravel() for values in (main, apart))
    both = np.concatenate([main, apart])
    if not both.size:
        panels[0].set_yticks([])
        return
    low, high = _padded(both)
    panels[0].set_ylim(low, high)
    gap = max(apart.min() - main.max(), main.min() - apart.max()) if main.size * apart.size else 0
    if gap <= EMPTY_SHARE * np.ptp(both):
        return
    inner = _padded(main)
    beyond = (1 - MAIN_SHARE - BREAK_SHARE) * np.ptp(inner) / MAIN_SHARE
    reach = max(beyond, 2.6 * np.ptp(apart)) / 2
    outer = (_middle(apart) - reach, _middle(apart) + reach)
    above = apart.min() > main.max()
    knots = [*inner, *outer] if above else [*outer, *inner]
    if np.any(np.diff(knots) <= 0):
        return
    edge = MAIN_SHARE if above else 1 - MAIN_SHARE - BREAK_SHARE
    shares = [0, edge, edge + BREAK_SHARE, 1]
    ticks = [tick for tick in NICE.tick_values(*inner) if inner[0] <= tick <= inner[1]]
    ticks.append(min(NICE.tick_values(*outer), key=lambda tick: abs(tick - _middle(apart))))
    for axes in panels:
        axes.set_yscale(
            "function",
            functions=(
                lambda y: np.interp(y, knots, shares),
                lambda y: np.interp(y, shares, knots),
            ),
        )
        axes.yaxis.set_major_locator(ticker.FixedLocator(ticks))
        axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        axes.set_ylim(knots[0], knots[-1])
        _mark_break(axes, edge)


def _mark_break(axes: Axes, edge: float) -> None:
    """Interrupt the spine where the scale does."""
    look = {"transform": axes.transAxes, "clip_on": False}
    axes.plot(
        [0, 0], [edge + 0.02, edge + BREAK_SHARE - 0.02], color="white", lw=2, **look, zorder=4
    )
    for y in (edge + 0.01, edge + BREAK_SHARE - 0.01):
        axes.plot([-0.012, 0.012], [y - 0.012, y + 0.012], color=BLACK, lw=0.8, **look, zorder=5)


def _padded(values: np.ndarray) -> tuple[float, float]:
    pad = 0.08 * max(np.ptp(values), 1e-3 * np.abs(values).max())
    return values.min() - pad, values.max() + pad


def _middle(values: np.ndarray) -> float:
    return (values.min() + values.max()) / 2
