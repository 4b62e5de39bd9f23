"""Whether a training loss falls in steps at the ends of epochs: the statistic and its table.

Figure 3.1's caption says that LoRA-all's does and that LoRA-QKV's is an ordinary curve, and gives
no number. The statistic here is ours: the jump of a regression discontinuity at every end of an
epoch, zero for a loss that falls along straight lines and the height of the step for one that
falls in steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy import stats

COLUMNS = ["step", "low", "high", "scatter", "step_per_scatter", "boundaries", "steps_per_epoch"]
# A line has two parameters; with fewer steps on a side nothing would be left to judge it by.
FEWEST = 3
TOO_SHORT = f"epochs of fewer than {2 * FEWEST} steps"


def epoch_of(log: pd.DataFrame) -> pd.Series:
    """The epoch that each step of a training log belongs to, from 1."""
    return np.ceil(log["epoch"].round(6)).clip(lower=1)


def at_boundaries(log: pd.DataFrame, confidence: float) -> dict[str, float]:
    """Mean fall of the loss from one step to the next where an epoch ends.

    At every boundary a straight line is fitted by least squares to the loss of each step of the
    second half of the epoch before, and another to the first half of the epoch after. The jump is
    the first line less the second, half-way between the two steps beside the boundary; ``step`` is
    the mean jump.

    Parameters
    ----------
    log
        Training log: ``epoch``, ``loss`` (nats per token), a row per step in order.
    confidence
        Coverage of Student's interval for ``step``, of independent, equal scatter about the lines.

    Returns
    -------
    dict
        ``step``, ``low``, ``high`` and ``scatter`` (standard deviation of the single steps about
        the lines) in nats per token; ``step_per_scatter`` (``step`` in units of ``scatter``);
        ``boundaries`` and ``steps_per_epoch``. Without two epochs of enough steps: all but the
        last NaN.
    """
    known = log.dropna(subset=["loss"])
    epochs = [part["loss"].to_numpy(float) for _, part in known.groupby(epoch_of(known))]
    length = min(map(len, epochs), default=0)
    if len(epochs) < 2 or length // 2 < FEWEST:
        return dict.fromkeys(COLUMNS, np.nan) | {"steps_per_epoch": length}
    sides = [
        side
        for before, after in pairwise(epochs)
        for side in (before[-(len(before) // 2) :], after[: len(after) // 2][::-1])
    ]
    # Every side runs towards its boundary, which lies half a step beyond its last value.
    ends, weights, residuals = zip(*map(_line_end, sides), strict=True)
    count = len(epochs) - 1
    step = (sum(ends[0::2]) - sum(ends[1::2])) / count
    freedom = sum(map(len, sides)) - 2 * len(sides)
    scatter = np.sqrt(sum(r @ r for r in residuals) / freedom)
    error = scatter * np.sqrt(sum(w @ w for w in weights)) / count
    reach = stats.t.ppf((1 + confidence) / 2, freedom) * error
    values = (step, step - reach, step + reach, scatter, step / scatter if scatter else np.nan)
    return dict(zip(COLUMNS, (*values, count, length), strict=True))


def _line_end(values: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """A fitted line half a step beyond the last value, its weights of the values, residuals."""
    design = np.column_stack([np.ones(len(values)), np.arange(len(values)) - len(values) + 0.5])
    solved = np.linalg.pinv(design)
    return solved[0] @ values, solved[0], values - design @ (solved @ values)


def table(
    logs: Mapping[str, pd.DataFrame], wanted: Sequence[str], confidence: float, *, absent: str
) -> pd.DataFrame:
    """The statistic of every variant.

    Parameters
    ----------
    logs
        Training logs by variant.
    wanted, absent
        See :mod:`feyntune.analysis.tables`.
    confidence
        As for :func:`at_boundaries`.
    """
    rows = []
    for variant in wanted:
        row = at_boundaries(logs[variant], confidence) if variant in logs else {}
        short = TOO_SHORT if np.isnan(row.get("step", 0.0)) else ""
        rows.append({"model": variant, **row, "note": short if row else absent})
    frame = pd.DataFrame(rows, columns=["model", *COLUMNS, "note"])
    return frame.astype(dict.fromkeys(COLUMNS[:5], float) | dict.fromkeys(COLUMNS[5:], "Int64"))
