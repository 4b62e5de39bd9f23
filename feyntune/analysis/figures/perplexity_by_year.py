"""Ours: perplexity over the years, and the gains over base on both sides of its cut-off."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from feyntune.analysis.figures import style
from feyntune.analysis.figures.style import DASHED, FAINT, note, styled
from feyntune.analysis.looks import BLACK, look_of
from feyntune.analysis.tables.by_year import PERIODS, UNTIL
from feyntune.evaluation.grouping import Models
from feyntune.experiment.recipes import BASE

# A point stands for successive years that have this many abstracts together, or this share of
# all abstracts where that is fewer.
ENOUGH, ENOUGH_SHARE = 100, 1 / 8
# Right, the variants of a dataset share this much of its place, and the two periods of one this
# much of the variant's, but are no further apart than if there were two.
VARIANTS_SHARE, PERIODS_SHARE = 0.8, 0.4


@styled()
def perplexity_by_year(
    yearly: pd.DataFrame,
    gains: pd.DataFrame,
    models: Models,
    label: str | None,
    *,
    absent: str,
    knowledge_until: int,
    confidence: float,
) -> Figure:
    """Left every model over the years, base and the first dataset's variants in front.

    Right the gains of each variant.

    Parameters
    ----------
    yearly
        What :func:`feyntune.analysis.tables.by_year.by_year` gave.
    gains
        What :func:`feyntune.analysis.tables.by_year.cutoff` gave.
    models, label, absent
        See :mod:`feyntune.analysis.figures`.
    knowledge_until
        The last year whose abstracts the base model can have read.
    confidence
        Coverage of the intervals in ``gains``.
    """
    wanted = models.names
    found = [name for name in wanted if yearly[name].notna().any()]
    titles = ("by year of submission", "gain over base")
    figure, (left,) = style.panels(
        titles[:1], label, wanted=wanted, found=found, absent=absent, height=3.4, pad=22
    )
    grid = figure.add_gridspec(2, 2, width_ratios=(1, 1), height_ratios=(5, 1))
    left.set_subplotspec(grid[0, 0])
    counts, right = figure.add_subplot(grid[1, 0], sharex=left), figure.add_subplot(grid[:, 1])
    for place, axes in enumerate((left, right)):
        style.title(axes, titles[place], place, pad=22)
    _draw_years((left, counts), yearly[["year", "abstracts", *found]], models, knowledge_until)
    _mark_cutoff((left, counts), knowledge_until)
    _draw_gains(right, gains.set_index("model"), models)
    _explain_gains(right, gains, knowledge_until, confidence)
    nothing = {left: not found, right: gains.filter(like="gain_percent").isna().all(axis=None)}
    for axes in filter(nothing.get, nothing):
        axes.set_yticks([])
        style.empty(axes, absent, 0.6)
    return style.finished(figure, [left])


def pooled(yearly: pd.DataFrame, knowledge_until: int, enough: int) -> pd.DataFrame:
    """Pool successive years until each pool has enough abstracts, none across the cut-off.

    What is left over at the end of a period joins the pool before it; only a period that has too
    few in all makes a pool of fewer.

    Parameters
    ----------
    yearly
        ``year`` (whole numbers, rising), ``abstracts``, and the mean perplexity of each model.
    knowledge_until
        The last year before the cut-off.
    enough
        Abstracts that a pool must have.

    Returns
    -------
    DataFrame
        A row per pool: ``first`` and ``last`` year, ``abstracts``, mean ``year`` of them, and the
        mean perplexity of each model over them.
    """
    after = yearly["year"] > knowledge_until
    pools = [pool for side in (~after, after) for pool in _pools(yearly["abstracts"][side], enough)]
    rows = []
    for pool in pools:
        some = yearly.loc[pool]
        weights = some["abstracts"] / some["abstracts"].sum()
        years = {"first": some["year"].min(), "last": some["year"].max()}
        means = some.drop(columns="abstracts").mul(weights, axis=0).sum()
        rows.append(years | {"abstracts": some["abstracts"].sum()} | means.to_dict())
    return pd.DataFrame(rows, columns=["first", "last", *yearly.columns])


def _pools(abstracts: pd.Series, enough: int) -> list[list[int]]:
    """Labels of the years in each pool of one period."""
    pools: list[list[int]] = []
    size = enough
    for label, count in abstracts.items():
        if size >= enough:
            pools.append([])
            size = 0
        pools[-1].append(label)
        size += count
    if size < enough and len(pools) > 1:
        last = pools.pop()
        pools[-1] += last
    return pools


def _draw_years(
    column: Sequence[Axes], yearly: pd.DataFrame, models: Models, knowledge_until: int
) -> None:
    """Perplexity over pooled years above, the number of abstracts of each year below."""
    yearly = yearly.astype({"year": int})
    enough = min(ENOUGH, ceil(ENOUGH_SHARE * yearly["abstracts"].sum()))
    pools = pooled(yearly, knowledge_until, enough)
    _draw_pools(column[0], pools, models, enough)
    _draw_counts(column[1], yearly)
    hollow = "; hollow: fewer" if (pools["abstracts"] < enough).any() else ""
    column[1].set_xlabel(
        f"year of submission\n(a point pools years until they have {enough:,} abstracts{hollow})"
    )


def _draw_pools(axes: Axes, pools: pd.DataFrame, models: Models, enough: int) -> None:
    """Every model over the pooled years; a pool of too few abstracts as a hollow mark."""
    axes.set_ylabel("mean perplexity\non the s1 test set")
    axes.tick_params(labelbottom=False, bottom=False)
    in_front = [BASE, *models.shown]
    found = pools.columns.drop(["first", "last", "year", "abstracts"])
    sparse = pools[pools["abstracts"] < enough]
    for name in found.intersection(in_front, sort=False):
        colour, marker = look_of(name, models)
        look = {"marker": marker, "ms": 2.5 if len(pools) > 20 else 3.5, "mec": colour}
        axes.plot(pools["year"], pools[name], color=colour, **look, label=name)
        axes.plot(sparse["year"], sparse[name], ls="none", **look, mfc="white")
        spans = pools["first"] - 0.4, pools["last"] + 0.4
        axes.hlines(pools[name], *spans, color=colour, lw=0.7, alpha=0.5, zorder=1.6)
    named = set()
    for name in found.difference(in_front, sort=False):
        group = f"other {models.variants[name].flavour}"
        look = {"color": look_of(name, models)[0], "lw": 0.6, "alpha": 0.35, "zorder": 1.5}
        axes.plot(pools["year"], pools[name], **look, label=None if group in named else group)
        named.add(group)


def _draw_counts(axes: Axes, yearly: pd.DataFrame) -> None:
    """How many abstracts each year has, unpooled."""
    axes.bar(yearly["year"], yearly["abstracts"], width=0.8, color=FAINT)
    axes.set_ylabel("abstracts")
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    axes.yaxis.set_major_formatter(style.THOUSANDS)


def _mark_cutoff(column: Sequence[Axes], knowledge_until: int) -> None:
    for axes in column:
        axes.axvline(knowledge_until + 0.5, **DASHED)
    text, at = f"base's knowledge ends in {knowledge_until}", (knowledge_until + 0.5, 1)
    note(column[0], text, at, (0, 2), "data", "axes fraction", ha="right", va="bottom")


def _draw_gains(axes: Axes, gains: pd.DataFrame, models: Models) -> None:
    """Both gains of each variant side by side, joined; those after the cut-off are hollow."""
    middles = models.side_by_side(VARIANTS_SHARE)
    most = max((len(models.trained_on(name)) for name in models.datasets), default=1)
    apart = VARIANTS_SHARE / max(most, 2) * PERIODS_SHARE / 2
    measured = [f"{period}_gain_percent" for period in PERIODS]
    for name, row in gains.loc[list(middles)].dropna(subset=measured, how="all").iterrows():
        colour, marker = look_of(name, models)
        places = [middles[name] - apart, middles[name] + apart]
        axes.plot(places, row[measured], color=colour, lw=0.6, alpha=0.6)
        for period, x in zip(PERIODS, places, strict=True):
            low, high = row[f"{period}_gain_low"], row[f"{period}_gain_high"]
            axes.vlines(x, low, high, color=colour, lw=1)
            fill = colour if period == UNTIL else "white"
            axes.plot(x, row[f"{period}_gain_percent"], marker=marker, ms=3.5, mec=colour, mfc=fill)
    axes.axhline(0, color=BLACK, lw=1)
    axes.set_xlim(-0.6, len(models.datasets) - 0.4)
    axes.set_xticks(range(len(models.datasets)), models.datasets)
    axes.set_xlabel("training set")


def _explain_gains(
    axes: Axes, gains: pd.DataFrame, knowledge_until: int, confidence: float
) -> None:
    axes.set_ylabel(f"gain (% of base's mean perplexity,\n{confidence:.0%} bootstrap interval)")
    until, after = (gains[f"{period}_abstracts"].iloc[0] for period in PERIODS)
    style.heading(
        axes, f"filled: until {knowledge_until}, n = {until:,}\nhollow: after, n = {after:,}"
    )
