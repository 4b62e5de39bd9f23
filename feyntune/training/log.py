"""A training's log: what is said while it runs, and at its end one row per step.

Both are made from the trainer's own history.
"""

from __future__ import annotations

import importlib
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from transformers import TrainerCallback

from feyntune.errors import UserError
from feyntune.experiment.schema import Experiment
from feyntune.runs import freshness, stages
from feyntune.runs.progress import Shown
from feyntune.training.arguments import PROJECT

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


# --- while it runs ----------------------------------------------------------------------------

# The first steps of a process are slow and are left out of the time left.
SLOW_STEPS = 2


class ProgressCallback(TrainerCallback):
    """At each evaluation a record of where the training is: see :mod:`feyntune.runs.progress`.

    Parameters
    ----------
    file
        Gets the records, as JSON lines.
    evaluations
        How many there are in the training.
    """

    def __init__(self, file: Path, evaluations: int):
        self.shown, self.evaluations = Shown(file), evaluations

    def on_train_begin(self, args, state, control, **kwargs):
        evaluated = {e["step"]: e["eval_loss"] for e in state.log_history if "eval_loss" in e}
        self.shown.go_on(evaluated)
        self.before = self.shown.records[-1]["seconds"] if self.shown.records else 0.0
        self.began = self.asked = time.monotonic()
        self.took: list[float] = []  # seconds of each step of this process

    def on_step_begin(self, args, state, control, **kwargs):
        self.step_began = time.monotonic()

    def on_step_end(self, args, state, control, **kwargs):
        self.asked = time.monotonic()
        self.took.append(self.asked - self.step_began)

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        now, share = time.monotonic(), state.global_step / state.max_steps
        steps = _steps_since_evaluation(state.log_history)
        self.shown.add(
            {
                "step": state.global_step,
                "steps": state.max_steps,
                "share": share,
                "epoch": state.epoch or 0.0,
                "train_loss": sum(s["loss"] for s in steps) / len(steps) if steps else None,
                "validation_loss": metrics["eval_loss"],
                "validation_perplexity": metrics["eval_perplexity"],
                "learning_rate": steps[-1]["learning_rate"] if steps else None,
                "tokens_per_second": self._speed(state.log_history, len(steps)),
                "seconds": round(self.before + now - self.began, 1),
                "seconds_left": self._left(state, waited=now - self.asked),
            }
        )

    def _speed(self, history: Sequence[dict], steps: int) -> float | None:
        """Tokens a second of the last ``steps``, as far as this process took them."""
        took = self.took[-steps:] if steps else []
        counts = [0, *(entry["num_tokens"] for entry in history if "num_tokens" in entry)]
        return (counts[-1] - counts[-1 - len(took)]) / sum(took) if took else None

    def _left(self, state, waited: float) -> float | None:
        """Seconds for the steps and evaluations to come; ``waited`` is what this one took."""
        measured = self.took[SLOW_STEPS:]
        if not measured:
            return None
        steps = state.max_steps - state.global_step
        waits = (self.evaluations - 1) * steps / state.max_steps
        return round(steps * sum(measured) / len(measured) + waits * waited, 1)


def _steps_since_evaluation(history: Sequence[dict]) -> list[dict]:
    """The last entries of steps, back to the evaluation before the one that was just made."""
    found: list[dict] = []
    for entry in reversed(history[:-1]):
        if "eval_loss" in entry:
            break
        found.insert(0, entry)
    return found


class ReportedSettings(TrainerCallback):
    """Gives what ``training.report_to`` names the settings of a training, beside the library's own.

    The library asks the environment where to write when a trainer is made; W&B's and trackio's own
    variables win.
    """

    def __init__(self, experiment: Experiment, variant: str):
        settings = stages.run(experiment, stages.FINETUNE, variant).settings
        self.settings = freshness.flat(freshness.as_read(settings))
        self.folder = experiment.paths.reported(variant)
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(self.folder)
        os.environ.setdefault("WANDB_PROJECT", PROJECT)
        os.environ.setdefault("WANDB_DIR", str(experiment.paths.results))

    def on_train_begin(self, args, state, control, **kwargs):
        for name in args.report_to:
            if name == "tensorboard":
                self._in_tensorboard()
            else:
                importlib.import_module(name).config.update(self.settings, allow_val_change=True)

    def _in_tensorboard(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        lines = [f"    {name}: {value}" for name, value in self.settings.items()]
        with SummaryWriter(self.folder) as writer:
            writer.add_text("settings", "\n".join(lines))

    def on_train_end(self, args, state, control, **kwargs):
        if "wandb" in args.report_to:  # the next variant may be trained in this process
            importlib.import_module("wandb").finish()
