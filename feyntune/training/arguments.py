"""What the trainer of notebook 02 is given: tokens, what the machine decides, callbacks.

The arguments that make the result stand in the notebook itself.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback

from feyntune.errors import UserError
from feyntune.experiment.schema import Experiment
from feyntune.experiment.sections import Training
from feyntune.models.base import encode, start_ids
from feyntune.runs import freshness, stages
from feyntune.runs.progress import Shown
from feyntune.training.memory import MemoryPlan

# Of W&B and trackio, in which each run has the name that is given.
PROJECT = "feyntune"


def tokenised(tokenizer: PreTrainedTokenizerBase, rows: Dataset, *, max_tokens: int) -> Dataset:
    """Abstracts as ``input_ids``, one abstract a sequence: the start, its tokens, EOS.

    Raises
    ------
    UserError
        If an abstract is longer than ``max_tokens``: none is ever cut.
    """
    sequences, start = encode(tokenizer, rows["abstract"], eos=True), start_ids(tokenizer)
    for identifier, ids in zip(rows["id"], sequences, strict=True):
        assert ids[: len(start)] == start and ids[-1] == tokenizer.eos_token_id
        within = ids[len(start) : -1]
        assert not {tokenizer.bos_token_id, tokenizer.eos_token_id} & set(within)
        if len(ids) > max_tokens:
            raise UserError(
                f"Abstract {identifier} has {len(ids)} tokens, more than training.max_length = "
                f"{max_tokens}; raise it (abstracts are never cut)."
            )
    return Dataset.from_dict({"id": rows["id"], "input_ids": sequences})


def of_the_machine(training: Training, plan: MemoryPlan, output: Path, name: str) -> dict[str, Any]:
    """Arguments of ``SFTConfig`` that belong to the machine, to our trainer or to other data.

    None changes the result. `trainer` decides when to evaluate and save, and splits batches to fit
    memory, hence ``"no"`` and 1 here.

    Parameters
    ----------
    output
        The folder of the checkpoints.
    name
        Of the run, for what ``training.report_to`` names.
    """
    gpu = torch.cuda.is_available()
    return {
        "output_dir": str(output),
        # memory
        "gradient_accumulation_steps": 1,
        "activation_checkpointing": plan.gradient_checkpointing,  # its name since transformers 5
        "padding_free": False,
        # the device
        "use_cpu": not gpu,
        "fp16": False,
        "average_tokens_across_devices": False,  # one process has the whole batch
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": gpu,
        # what is evaluated, saved and said
        "eval_strategy": "no",
        "save_strategy": "no",
        "save_total_limit": training.save_total_limit,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # a loss that is not a number must be seen
        "report_to": training.report_to,
        "run_name": name,
        "project": PROJECT,
        "disable_tqdm": True,
        # not for whole abstracts
        "eval_packing": False,
        "assistant_only_loss": False,
        "completion_only_loss": False,
    }


# --- callbacks that look on -------------------------------------------------------------------


def onlookers(experiment: Experiment, variant: str) -> list[TrainerCallback]:
    """Callbacks that say how far a training is, and with what settings; they change nothing."""
    evaluations = experiment.variants[variant].training.evaluations
    return [
        ProgressCallback(experiment.paths.progress(variant), evaluations),
        ReportedSettings(experiment, variant),
    ]


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
