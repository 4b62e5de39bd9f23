"""The paper's four figures, drawn from result files.

Each function takes frames as notebook 07 reads them and returns a figure. Models whose results
do not exist are named on the figure, never drawn. Everything that is a stand-in says so in the
picture itself, which may travel without its caption.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from feyntune.analysis.figures import style
from feyntune.analysis.figures.style import BLACK, DASHED, FAINT, GREEN, note, styled
from feyntune.analysis.loss_steps import epoch_of
from feyntune.evaluation import statistics
from feyntune.experiment import recipes

S1 = tuple(f"s1-{flavour}" for flavour in recipes.FLAVOURS)
TRUTH = "ground truth"


@styled()
def learning_curves(
    logs: Mapping[str, pd.DataFrame],
    label: str | None,
    wanted: Sequence[str] = S1,
    *,
    absent: str = "not run",
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
    absent
        What is said of one that has no log.
    """
    figure, row = style.panels(wanted, label, found=logs, wanted=wanted, absent=absent)
    row[0].set_ylabel("training loss (nats per token)")
    for axes, variant in zip(row, wanted, strict=True):
        axes.set_title(variant, pad=22)
        if variant not in logs:
            continue
        log = logs[variant].dropna(subset=["loss"])
        window = 2 * round(len(log) / 120) + 5
        colour, _ = style.LOOKS[recipes.flavour_of(variant)]
        axes.plot(log["step"], log["loss"], color=colour, alpha=0.4, lw=0.6, label="each step")
        # Within epochs: across their ends a mean would smear the very steps that are looked for.
        for epoch, part in log.groupby(epoch_of(log)):
            mean = part["loss"].rolling(window, center=True, min_periods=1).mean()
            label = f"mean of {window} steps" if epoch == 1 else None
            axes.plot(part["step"], mean, color=colour, label=label)
        axes.set_xlim(0, 1.01 * log["step"].max())
        style.count_steps(axes)
        _mark_epochs(axes, log)
    return style.finished(figure, row)


def _mark_epochs(axes: Axes, log: pd.DataFrame) -> None:
    """Part the epochs by faint lines and head each with its mean loss, which shows the steps."""
    for epoch, part in log.groupby(epoch_of(log)):
        start, end = part["step"].min() - 1, part["step"].max()
        if epoch > 1:
            axes.axvline(start + 0.5, **DASHED)
        heading = f"epoch {epoch:.0f}\nmean {part['loss'].mean():.3f}"
        place = ((start + end) / 2, 1)
        note(axes, heading, place, (0, 2), "data", "axes fraction", ha="center", va="bottom")


@styled()
def validation_perplexity(
    logs: Mapping[str, pd.DataFrame],
    window: int,
    label: str | None,
    wanted: Sequence[str] = S1,
    *,
    absent: str = "not run",
) -> Figure:
    """Figure 3.2: mean batch perplexity on the s1 validation set during training.

    Where a log says in ``evaluated_on`` that it was another split, the axis says so too.

    The evaluation before training stands apart: it is drawn beyond a break in the axis where it
    would dwarf the others, and is left out of the smoothing, which it would distort.

    Parameters
    ----------
    logs
        Training logs by variant: ``step``, ``eval_perplexity`` (NaN between evaluations).
    window
        Evaluations in the centred moving average.
    label, wanted, absent
        As for :func:`learning_curves`.
    """
    evaluated = {name: log.dropna(subset=["eval_perplexity"]) for name, log in logs.items()}
    curves = {name: evaluated[name] for name in wanted if len(evaluated.get(name, ()))}
    figure, row = style.panels(wanted, label, found=curves, wanted=wanted, absent=absent)
    splits = {s for log in curves.values() for s in log.get("evaluated_on", ["validation"])}
    row[0].set_ylabel(f"mean batch perplexity\non the s1 {' or '.join(sorted(splits))} set")
    for axes, variant in zip(row, wanted, strict=True):
        if variant not in curves:
            continue
        steps, raw = (curves[variant][name].to_numpy() for name in ("step", "eval_perplexity"))
        trained = steps > 0
        smooth = statistics.moving_average(raw[trained], window)
        colour, marker = style.LOOKS[recipes.flavour_of(variant)]
        look = {"ls": "none", "marker": marker, "mfc": "white", "mec": colour, "zorder": 3}
        axes.plot(steps, raw, **look, label="evaluation")
        axes.plot(steps[trained], smooth, color=colour, label=f"mean of {window} evaluations")
        if not trained[0]:
            note(axes, f"before training: {raw[0]:.2f}", (steps[0], raw[0]), (7, 0), va="center")
        note(axes, f"{raw[-1]:.2f}", (steps[-1], raw[-1]), (5, 0), va="center")
        axes.set_xlim(-0.03 * steps.max(), 1.16 * steps.max())
        style.count_steps(axes)
    if curves:
        points = pd.concat(curves.values())
        first = points["step"] == 0
        style.spread(row, *(points.loc[which, "eval_perplexity"] for which in (~first, first)))
    return style.finished(figure, row)


@styled()
def bootstrap_perplexity(
    summary: pd.DataFrame,
    wanted: Sequence[str],
    label: str | None,
    *,
    confidence: float = 0.95,
    absent: str = "not run",
) -> Figure:
    """Figure 3.3: bootstrapped perplexity of every model on the s1 test set.

    Left by flavour, right the two flavours of a dataset side by side; base in both.

    Parameters
    ----------
    summary
        As :func:`feyntune.evaluation.statistics.bootstrap_means` gives it.
    wanted
        All models that there should be, base included, in the order of the tables.
    label
        What is a stand-in, or ``None``.
    confidence
        Coverage of the intervals in ``summary``.
    absent
        As for :func:`learning_curves`.
    """
    models = [name for name in wanted if name != recipes.BASE]
    datasets = sorted({recipes.dataset_of(name) for name in models}, key=recipes.DATASETS.index)
    second = {name: recipes.flavour_of(name) == recipes.FLAVOURS[1] for name in models}
    grouped = {name: place + 0.8 * second[name] for place, name in enumerate(models)}
    paired = {
        name: datasets.index(recipes.dataset_of(name)) + (0.14 if second[name] else -0.14)
        for name in models
    }
    titles = ("by flavour", "paired by dataset")
    ratios = (1.8, 1) if len(models) > 4 else (1, 1)
    figure, row = style.panels(
        titles, label, found=summary.index, wanted=wanted, absent=absent, height=3.0,
        width_ratios=ratios,
    )  # fmt: skip
    row[0].set_ylabel(f"perplexity on the s1 test set\n(bootstrap mean, {confidence:.0%} interval)")
    for axes, places in zip(row, (grouped, paired), strict=True):
        axes.set_xlabel("training set")
        _intervals(axes, summary, places)
    row[0].set_xticks(list(grouped.values()), map(recipes.dataset_of, grouped))
    row[1].set_xticks(range(len(datasets)), datasets)
    ends = summary[["low", "high"]]
    base = summary.index == recipes.BASE
    style.spread(row, ends[~base], ends[base])
    return style.finished(figure, row[:1])


def _intervals(axes: Axes, summary: pd.DataFrame, places: Mapping[str, float]) -> None:
    """Draw the means with their intervals at their places, and base as a line with its band."""
    for flavour, (colour, marker) in style.LOOKS.items():
        own = [name for name in places if recipes.flavour_of(name) == flavour]
        names = [name for name in own if name in summary.index]
        middle, low, high = summary.loc[names, ["bootstrap_mean", "low", "high"]].to_numpy().T
        reach = (middle - low, high - middle)
        look = {"fmt": marker, "color": colour, "ms": 3.5, "elinewidth": 1.1, "capsize": 1.8}
        if names:
            axes.errorbar([places[name] for name in names], middle, reach, **look, label=flavour)
    at = [0.0, *places.values()]
    axes.set_xlim(min(at) - 0.7, max(at) + 0.7)
    if recipes.BASE in summary.index:
        middle, low, high = summary.loc[recipes.BASE, ["bootstrap_mean", "low", "high"]]
        axes.axhspan(low, high, color=BLACK, alpha=0.13, lw=0)
        axes.axhline(middle, color=BLACK, lw=1)
        note(axes, f"base\n{middle:.2f}", (1, middle), (3, 0), "axes fraction", va="center")


@styled()
def completion_entropy(
    completions: Mapping[str, pd.DataFrame],
    label: str | None,
    wanted: Sequence[str] = (recipes.BASE, "s1-LoRA-all"),
    *,
    unit: str = "tokens",
    absent: str = "not run",
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
    unit
        What ``tokens`` counts, in the plural.
    absent
        As for :func:`learning_curves`.
    """
    columns = ["tokens", "entropy_exp"]
    clouds = {name: completions[name][columns] for name in wanted if name in completions}
    if completions:
        some = next(iter(completions.values()))
        truth = some[[f"truth_{name}" for name in columns]].set_axis(columns, axis=1)
        clouds = {TRUTH: truth, **clouds}
    names = (TRUTH, *wanted)
    figure, row = style.panels(names, label, found=clouds, wanted=names, absent=absent, height=2.7)
    row[0].set_ylabel(f"exponentiated Shannon entropy\n(effective number of {unit})")
    drawn = {name: cloud.query("tokens > 0") for name, cloud in clouds.items()}
    for axes, name in zip(row, names, strict=True):
        axes.set_title(name, pad=22)
        if name not in drawn:
            continue
        axes.set_xlabel(f"length ({unit})")
        if name != TRUTH:
            again = style.dots(FAINT, len(drawn[TRUTH]))
            axes.plot(*drawn[TRUTH].to_numpy().T, **again, label="ground truth again")
        axes.plot(*drawn[name].to_numpy().T, **style.dots(_colour(name), len(drawn[name])))
        count, empty = len(drawn[name]), len(clouds[name]) - len(drawn[name])
        text = f"n = {count:,}" + (f" and {empty:,} empty, not drawn" if empty else "")
        if count:
            middle = drawn[name].median()
            text += f"\nmedian {middle['tokens']:.0f} {unit}, entropy {middle['entropy_exp']:.1f}"
        note(axes, text, (0, 1), (0, 3), "axes fraction", "axes fraction", va="bottom")
    if sum(map(len, drawn.values())):
        _common_scale(row, pd.concat(drawn.values()), f"bound: no {unit[:-1]} occurs twice")
    return style.finished(figure, row[-1:])


def _colour(name: str) -> str:
    known = {TRUTH: GREEN, recipes.BASE: BLACK}
    return known[name] if name in known else style.LOOKS[recipes.flavour_of(name)][0]


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
