"""Training steps of the artifact's own trainer, under the plans that a GPU may take."""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import torch
from datasets import Dataset
from transformers import LlamaConfig, PreTrainedModel

from feyntune.models.base import trainable_parameters
from feyntune.pipeline import notebooks
from feyntune.runs.stages import FINETUNE
from feyntune.training import arguments, attention
from feyntune.training.memory import MemoryOptions, MemoryPlan, plan_memory, prepare_base
from gpu import flops, lengths, model
from gpu.memory import Memory
from gpu.run import VARIANT, Run
from gpu.timing import Stopwatch, TimedTrainer, dequantisation

SMALL_GPU = 24e9
CONTEXT = 0.6e9  # of a GPU, that CUDA itself takes


def training(run: Run, options: MemoryOptions, small: bool = False) -> dict:
    """Steps of the artifact's trainer, as a user asks for them.

    Parameters
    ----------
    small
        Plan for a GPU of 24 GB, and take no more of a larger one. Else a step's whole batch is
        taken at once, or as much of it as fits.
    """
    settings, shape = run.experiment, model.config(tiny=run.tiny)
    steps = run.size(40, 2)
    size = settings.training.per_device_train_batch_size
    rows = lengths.sequences((steps + 4) * size, 1, shape.vocab_size, run.size(None, 320))
    if small:
        plan = plan_memory(shape, settings.training, rows, options, free=_small_gpu(run.device))
    else:
        packed = attention.implementation() is not None
        plan = MemoryPlan(options.base, options.gradient_checkpointing, size, packed)
    base = model.build(
        shape, dtype=settings.base.dtype, quantization=model.nf4(settings), device=run.device
    )
    with tempfile.TemporaryDirectory(prefix="feyntune-benchmark-") as folder:
        watch = Stopwatch(steps, run.deadline)
        watch.trainer = trainer = _trainer(
            run, prepare_base(base, plan), plan, rows, watch, Path(folder)
        )
        memory = Memory(run.device)
        longest = sorted(trainer.train_dataset, key=lambda row: -len(row["input_ids"]))[:size]
        # What does not fit is found now, and what is compiled late is compiled.
        trainer.trial_step(trainer.data_collator(longest))
        trainer.train()
        found = memory.peak()  # before the profiler, which needs memory of its own
        usual = trainer.data_collator(list(trainer.train_dataset.select(range(size))))
        share = dequantisation(lambda: trainer.trial_step(usual), run.device)
    return _step_facts(watch.steps, trainable_parameters(trainer.model), shape) | {
        # None of it at all is a kernel of another name, not a base that is dequantised for free.
        "dequantisation_share": None if plan.base == "nf4" and not share else share,
        "rows": trainer.rows,
        "base": plan.base,
        "gradient_checkpointing": plan.gradient_checkpointing,
        "padding_free": plan.padding_free,
        **found,
    }


def _small_gpu(device: torch.device) -> int:
    """Take no more of the device than a small one has; return what would be free there."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, SMALL_GPU / total), device)
    return int(SMALL_GPU - CONTEXT)


def _trainer(
    run: Run,
    base: PreTrainedModel,
    plan: MemoryPlan,
    rows: list[list[int]],
    watch: Stopwatch,
    folder: Path,
) -> TimedTrainer:
    """As notebook 02 builds it, with fewer evaluations, of which one is reached."""
    chosen = run.experiment.variants[VARIANT]
    training = chosen.training.model_copy(
        update={"num_train_epochs": 1, "evaluations": 2, "bf16": run.device.type == "cuda"}
    )
    data = Dataset.from_dict({"id": [str(i) for i in range(len(rows))], "input_ids": rows})
    return notebooks.executed(
        FINETUNE,
        *("lora", "sft-config", "trainer"),
        settings=run.experiment,
        variant=VARIANT,
        name=f"benchmark/{VARIANT}",
        training=training,
        chosen=chosen,
        paths=SimpleNamespace(checkpoints=lambda _: folder),
        plan=plan,
        model=base,
        tokenizer=model.tokenizer(base.config.vocab_size),
        train=data,
        validation=data.select(range(training.per_device_eval_batch_size)),
        PaperTrainer=TimedTrainer,
        arguments=SimpleNamespace(**{**vars(arguments), "onlookers": lambda *_: [watch]}),
    )["trainer"]


def _step_facts(steps: list[dict], lora: int, shape: LlamaConfig) -> dict:
    """Of timed steps: tokens per second of all together, shares, and operations per second."""
    seconds, head, tokens, slots = (
        sum(step[name] for step in steps) for name in ("seconds", "head", "tokens", "slots")
    )
    each = flops.training(shape, lora, [length for step in steps for length in step["lengths"]])
    return {
        "steps": len(steps),
        "seconds_per_step": median(step["seconds"] for step in steps),
        "tokens_per_second": tokens / seconds,
        "flops_per_second": each * tokens / seconds,
        "padding_share": 1 - tokens / slots,
        "head_share": head / seconds,
        "lengths": [step["lengths"] for step in steps],
    }
