"""Figure 3.1: the training loss at every step."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from feyntune.analysis.figures import style
from feyntune.analysis.figures.style import DASHED, note, styled
from feyntune.analysis.looks import look_of
from feyntune.analysis.loss_steps import epoch_of
from feyntune.evaluation.grouping import Models

MOST_NAMED = 5  # epochs of a panel whose means have room above it


@styled()
def learning_curves(
    logs: Mapping[str, pd.DataFrame], models: Models, label: str | None, *, absent: str
) -> Figure:
    """Training loss (nats per token) at every step, one panel per variant of the first dataset.

    Parameters
    ----------
    logs
        Training logs by variant: ``step``, ``epoch``, ``loss``.
    models, label, absent
        See :mod:`feyntune.analysis.figures`.
    """
    wanted = models.shown
    figure, row = style.panels(
        wanted, label, wanted=wanted, found=logs, absent=absent, pad=22, columns=2
    )
    row[0].set_ylabel("training loss (nats per token)")
    for axes, variant in zip(row, wanted, strict=True):
        if variant not in logs:
            continue
        log = logs[variant].dropna(subset=["loss"])
        window = 2 * round(len(log) / 120) + 5
        colour, _ = look_of(variant, models)
        axes.plot(log["step"], log["loss"], color=colour, alpha=0.4, lw=0.6, label="each step")
        # Within epochs: across their ends a mean would smear the very steps that are looked for.
        for epoch, part in log.groupby(epoch_of(log)):
            mean = part["loss"].rolling(window, center=True, min_periods=1).mean()
            name = f"mean of {window} steps" if epoch == 1 else None
            axes.plot(part["step"], mean, color=colour, label=name)
        axes.set_xlim(0, 1.01 * log["step"].max())
        style.count_steps(axes)
        _mark_epochs(axes, log)
    return style.finished(figure, row)


def _mark_epochs(axes: Axes, log: pd.DataFrame) -> None:
    """Part the epochs by faint lines and head each with its mean loss, which shows the steps."""
    epochs = epoch_of(log)
    every = ceil(epochs.max() / MOST_NAMED)
    for epoch, part in log.groupby(epochs):
        start, end = part["step"].min() - 1, part["step"].max()
        if epoch > 1:
            axes.axvline(start + 0.5, **DASHED)
        if (epoch - 1) % every:
            continue
        text = f"epoch {epoch:.0f}\nmean {part['loss'].mean():.3f}"
        place = ((start + end) / 2, 1)
        note(axes, text, place, (0, 2), "data", "axes fraction", ha="center", va="bottom")
