"""Figure 3.2: perplexity on the s1 validation set during training."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from feyntune.analysis.figures import style
from feyntune.analysis.figures.style import styled
from feyntune.analysis.looks import look_of
from feyntune.evaluation import statistics
from feyntune.evaluation.grouping import Models


@styled()
def validation_perplexity(
    logs: Mapping[str, pd.DataFrame],
    models: Models,
    label: str | None,
    *,
    absent: str,
    window: int,
) -> Figure:
    """Mean perplexity on the s1 validation set, a panel per variant of the first dataset.

    Where a log says in ``evaluated_on`` that it was another split, the axis says so too.

    The evaluation before training stands apart: it is drawn beyond a break in the axis where it
    would dwarf the others, and is left out of the smoothing, which it would distort.

    Parameters
    ----------
    logs
        Training logs by variant: ``step``, ``eval_perplexity`` (NaN between evaluations).
    models, label, absent
        See :mod:`feyntune.analysis.figures`.
    window
        Evaluations in the centred moving average.
    """
    wanted = models.shown
    evaluated = {name: log.dropna(subset=["eval_perplexity"]) for name, log in logs.items()}
    curves = {name: evaluated[name] for name in wanted if len(evaluated.get(name, ()))}
    figure, row = style.panels(
        wanted, label, wanted=wanted, found=curves, absent=absent, pad=13, columns=2
    )
    splits = {s for log in curves.values() for s in log.get("evaluated_on", ["validation"])}
    row[0].set_ylabel(f"mean perplexity\non the s1 {' or '.join(sorted(splits))} set")
    for axes, variant in zip(row, wanted, strict=True):
        if variant not in curves:
            continue
        steps, raw = (curves[variant][name].to_numpy() for name in ("step", "eval_perplexity"))
        trained = steps > 0
        smooth = statistics.moving_average(raw[trained], window)
        colour, marker = look_of(variant, models)
        look = {"ls": "none", "marker": marker, "mfc": "white", "mec": colour, "zorder": 3}
        axes.plot(steps, raw, **look, label="evaluation")
        axes.plot(steps[trained], smooth, color=colour, label=f"mean of {window} evaluations")
        before = "" if trained[0] else f"before training {raw[0]:.2f}, "
        style.heading(axes, f"{before}at the end {raw[-1]:.2f}")
        axes.set_xlim(-0.03 * steps.max(), 1.03 * steps.max())
        style.count_steps(axes)
    if curves:
        points = pd.concat(curves.values())
        first = points["step"] == 0
        style.spread(row, *(points.loc[which, "eval_perplexity"] for which in (~first, first)))
    return style.finished(figure, row)
