"""A training log: one row per step, from the trainer's history."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from feyntune.errors import UserError

LOG_COLUMNS = (
    "step",
    "epoch",
    "loss",
    "learning_rate",
    "grad_norm",
    "tokens",
    "eval_loss",
    "eval_perplexity",
)


def training_log(history: Sequence[dict]) -> pd.DataFrame:
    """The trainer's log history as one row per step, without times, which differ between runs.

    Returns
    -------
    pd.DataFrame
        ``step, epoch, loss, learning_rate, grad_norm, tokens, eval_loss, eval_perplexity``;
        ``tokens`` counts those trained on so far. The ``eval_`` columns have values only at the
        evaluations; the others have none at step 0.

    Raises
    ------
    UserError
        If a loss is not a finite number.
    """
    rows: dict[int, dict] = {}
    for entry in history:
        if not math.isfinite(entry.get("loss", 0.0)):
            raise UserError(f"The training loss at step {entry['step']} is not a number.")
        if "train_runtime" not in entry:
            known = {k: v for k, v in entry.items() if k in LOG_COLUMNS}
            rows.setdefault(entry["step"], {}).update(known)
            if "num_tokens" in entry:
                rows[entry["step"]]["tokens"] = entry["num_tokens"]
    ordered = sorted(rows.values(), key=lambda row: row["step"])
    return pd.DataFrame(ordered, columns=list(LOG_COLUMNS))
