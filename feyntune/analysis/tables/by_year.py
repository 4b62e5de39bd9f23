"""What the models can have seen of the test set: its copies in training sets, and its age.

The base model has read the web up to some day, arXiv's abstracts likely among it. Abstracts of
later years it cannot have read. The variants were trained on papers of those years too, so a gain
there says nothing of what they remember; for that see the table `overlap`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from feyntune.errors import UserError
from feyntune.evaluation import statistics
from feyntune.experiment import recipes
from feyntune.experiment.sections import Statistics

Frames = Mapping[str, pd.DataFrame]

UNTIL, AFTER = PERIODS = ("until", "after")
MEASURED = ["mean", "low", "high", "gain_percent", "gain_low", "gain_high"]
FEW = 10  # abstracts: a period that has fewer is named


def by_year(frames: Frames, years: pd.Series, wanted: Sequence[str]) -> pd.DataFrame:
    """Mean perplexity of every model on the abstracts of each year.

    Parameters
    ----------
    frames
        Perplexity results by model: ``id``, ``perplexity``.
    years
        Year of submission by id, of at least the abstracts in ``frames``.
    wanted
        See :mod:`feyntune.analysis.tables`.

    Returns
    -------
    DataFrame
        ``year`` (as text, which nobody groups by thousands), ``abstracts``, and a column per
        wanted model, empty where it has no results.

    Raises
    ------
    UserError
        If models were evaluated on different abstracts, or the year of one is not known.
    """
    values, years = _aligned(frames, years, wanted)
    grouped = values.groupby(years)
    table = grouped.mean().reindex(columns=list(wanted)).astype(float)
    table.insert(0, "abstracts", grouped.size())
    return table.rename(index=str).rename_axis("year").reset_index()


def cutoff(
    frames: Frames,
    years: pd.Series,
    knowledge_until: int,
    wanted: Sequence[str],
    settings: Statistics,
    *,
    absent: str,
) -> pd.DataFrame:
    """Perplexity of every model, and its gain over base, on both sides of base's cut-off.

    Parameters
    ----------
    frames, years
        As for :func:`by_year`.
    wanted, absent
        See :mod:`feyntune.analysis.tables`.
    knowledge_until
        The last year whose abstracts the base model can have read.
    settings
        Of the bootstrap. Both periods are resampled by themselves, from different random streams;
        within one, all models on the same abstracts.

    Returns
    -------
    DataFrame
        A row per wanted model. For each period (``until_`` and ``after_``): ``abstracts``;
        ``mean`` perplexity with its interval ``low``, ``high``; ``gain_percent``, by which the
        model's mean is below base's, in percent of base's, with its interval ``gain_low``,
        ``gain_high``. Then ``difference`` of the gains (after - until, percentage points) with
        its interval, and ``note``, which names periods of few abstracts. Fewer than two have no
        interval.

    Raises
    ------
    UserError
        As :func:`by_year`.
    """
    values, years = _aligned(frames, years, wanted)
    read = years <= knowledge_until
    sides = dict(zip(PERIODS, (values[read], values[~read]), strict=True))
    table, resampled = pd.DataFrame(index=list(wanted)), {}
    for number, (period, some) in enumerate(sides.items()):
        table[f"{period}_abstracts"] = len(some)
        measured, resampled[period] = _measured(some, settings, stream=number)
        table = table.join(measured.add_prefix(f"{period}_"))
    table["difference"] = table["after_gain_percent"] - table["until_gain_percent"]
    ends = _ends(resampled[AFTER] - resampled[UNTIL], settings)
    table = table.join(ends.add_prefix("difference_"))
    few = {period: len(some) for period, some in sides.items() if len(some) < FEW}
    sparse = "; ".join(f"only {count} {period} the cut-off" for period, count in few.items())
    table["note"] = [sparse if name in frames else absent for name in table.index]
    return table.rename_axis("model").reset_index()


def _measured(
    values: pd.DataFrame, settings: Statistics, stream: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Means and gains of every model in one period, and the resampled gains (resamples x models).

    The gain of base over itself is no result and left out.
    """
    mean = values.mean()
    table = pd.DataFrame({"mean": mean, "gain_percent": _gains(mean.to_frame().T).loc[0]})
    means = pd.DataFrame(columns=values.columns, index=range(settings.resamples), dtype=float)
    if len(values) > 1 and not values.columns.empty:
        means[:] = statistics.resampled_means(
            values.to_numpy(), resamples=settings.resamples, seed=(settings.seed, stream)
        )
    gains = _gains(means)
    table = table.join(_ends(means, settings)).join(_ends(gains, settings).add_prefix("gain_"))
    return table[MEASURED], gains


def _gains(means: pd.DataFrame) -> pd.DataFrame:
    """Percent by which each model's mean is below base's; nothing for base, or without it."""
    if recipes.BASE not in means:
        return means * float("nan")
    base = means[recipes.BASE]
    return 100 * means.rsub(base, axis=0).div(base, axis=0).assign(**{recipes.BASE: float("nan")})


def _ends(resampled: pd.DataFrame, settings: Statistics) -> pd.DataFrame:
    """Ends of the interval of every model, from resamples x models."""
    low, high = statistics.percentile_interval(resampled.to_numpy(), settings.confidence)
    return pd.DataFrame({"low": low, "high": high}, index=resampled.columns)


def _aligned(
    frames: Frames, years: pd.Series, wanted: Sequence[str]
) -> tuple[pd.DataFrame, pd.Series]:
    """Abstracts x models that ran, and the year of every abstract."""
    values = statistics.aligned(frames, wanted, "perplexity")
    if values.columns.empty:
        values = values.reindex(years.index)
    unknown = values.index.difference(years.index)
    if len(unknown):
        raise UserError(
            f"The year of {len(unknown)} evaluated abstracts, such as {unknown[0]}, is not known: "
            "they are not in the test split of s1. Curate and evaluate again."
        )
    return values, years.loc[values.index]
