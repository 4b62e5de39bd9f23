"""What a trainer is given: tokenised abstracts, LoraConfig, SFTConfig, callbacks that look on."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import PreTrainedTokenizerBase, TrainerCallback
from trl import SFTConfig

from feyntune.errors import UserError
from feyntune.experiment.schema import Experiment
from feyntune.experiment.sections import Lora, Training
from feyntune.models.base import encode, start_ids
from feyntune.runs import freshness, stages
from feyntune.runs.progress import Shown

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


def lora_config(lora: Lora) -> LoraConfig:
    """LoraConfig of a variant."""
    return LoraConfig(task_type="CAUSAL_LM", **lora.arguments)


def sft_config(
    training: Training,
    *,
    seed: int,
    output: Path,
    gradient_checkpointing: bool | None = None,
    name: str | None = None,
) -> SFTConfig:
    """Every setting that changes the result; none is left to a library's default.

    `trainer` decides when to evaluate and save, and splits batches to fit memory, hence ``"no"``
    and 1 here.

    Parameters
    ----------
    gradient_checkpointing
        Whether to recompute activations instead of keeping them, which does not change the result;
        ``None`` for the experiment's choice.
    name
        Of the run, for what ``training.report_to`` names.
    """
    if gradient_checkpointing is None:
        gradient_checkpointing = training.gradient_checkpointing
    return SFTConfig(
        output_dir=str(output),
        num_train_epochs=training.num_train_epochs,
        per_device_train_batch_size=training.per_device_train_batch_size,
        per_device_eval_batch_size=training.per_device_eval_batch_size,
        gradient_accumulation_steps=1,
        optim=training.optim,
        learning_rate=training.learning_rate,
        adam_beta1=training.adam_beta1,
        adam_beta2=training.adam_beta2,
        adam_epsilon=training.adam_epsilon,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        lr_scheduler_type=training.lr_scheduler_type,
        lr_scheduler_kwargs=dict(training.lr_scheduler_kwargs),
        warmup_steps=training.warmup_steps,  # below 1: a share of all steps
        bf16=training.bf16,
        fp16=False,
        activation_checkpointing=gradient_checkpointing,  # its name since transformers 5
        seed=seed,
        data_seed=seed,
        loss_type="nll",
        packing=False,
        eval_packing=False,
        padding_free=False,
        pad_to_multiple_of=training.pad_to_multiple_of,
        max_length=None,
        assistant_only_loss=False,
        completion_only_loss=False,
        train_sampling_strategy="random",
        dataloader_drop_last=False,
        dataloader_num_workers=0,
        use_cpu=not torch.cuda.is_available(),
        average_tokens_across_devices=False,  # one process has the whole batch
        eval_strategy="no",
        save_strategy="no",
        save_total_limit=training.save_total_limit,
        logging_strategy="steps",
        logging_steps=1,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # a loss that is not a number must be seen
        report_to=training.report_to,
        run_name=name,
        project=PROJECT,
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


# --- callbacks that look on -------------------------------------------------------------------

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
