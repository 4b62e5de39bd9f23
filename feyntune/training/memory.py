"""How a variant is trained in the memory of this machine; the optimisation is always the same.

A choice here changes only the last digits of a result: the base weights are the same numbers in
either form, and a batch is the same batch in one piece or in several. The sizes are estimates from
the layers' shapes, **not measured on a GPU**; a batch that does not fit is halved during the run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from feyntune.errors import UserError
from feyntune.experiment.schema import Experiment
from feyntune.experiment.sections import Training
from feyntune.models.base import device
from feyntune.training import attention

Form = Literal["nf4", "dequantised"]
# Four bits, and for every 64 weights a scale of eight bits.
BYTES = {"nf4": 0.5 + 1 / 64, "dequantised": 2.0}
# Usable share of the free memory: the rest is fragmentation, and what the driver keeps.
USABLE = 0.9
# Activations kept per token and layer, in bytes of the widths of hidden state and MLP: inputs of
# every linear layer in bfloat16, and in float32 once more with a mask for LoRA and its dropout.
PER_HIDDEN, PER_INTERMEDIATE = 44, 18
# From the fastest to the most frugal: form of the base, recomputing activations, and into how many
# pieces a batch is split.
PREFERENCE = (
    ("dequantised", False, 1),
    ("dequantised", False, 2),
    ("nf4", False, 1),
    ("dequantised", False, 4),
    ("nf4", False, 2),
    ("nf4", False, 4),
    ("dequantised", True, 1),
    ("nf4", True, 1),
    ("nf4", True, 4),
    ("nf4", True, 16),
)


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


# Field of `MemoryOptions`, environment variable, its allowed values, and how it is read.
_VARIABLES: tuple[tuple[str, str, str, Callable[[str], Any]], ...] = (
    ("rows", "FEYNTUNE_ROWS", "abstracts at a time", _positive),
    (
        "base",
        "FEYNTUNE_BASE_FORM",
        "nf4 or dequantised",
        {form: form for form in BYTES}.__getitem__,
    ),
    (
        "gradient_checkpointing",
        "FEYNTUNE_RECOMPUTE",
        "true or false",
        {"true": True, "false": False}.__getitem__,
    ),
)


@dataclass(frozen=True)
class MemoryOptions:
    """The user's choices about memory; ``None`` leaves one to :func:`plan_memory`."""

    rows: int | None = None
    base: Form | None = None
    gradient_checkpointing: bool | None = None


def memory_options() -> MemoryOptions:
    """The choices in the environment variables.

    Raises
    ------
    UserError
        If a variable has a value that is not allowed.
    """
    found = {}
    for name, variable, allowed, read in _VARIABLES:
        text = os.environ.get(variable, "").strip().lower()
        if text:
            try:
                found[name] = read(text)
            except (KeyError, ValueError):
                raise UserError(f"{variable} is {text!r}; it must be {allowed}.") from None
    return MemoryOptions(**found)


@dataclass(frozen=True)
class MemoryPlan:
    """How the batch of a step goes through the model; recorded with the run."""

    base: Form
    gradient_checkpointing: bool
    rows: int
    padding_free: bool


def plan_here(
    experiment: Experiment, training: Training, sequences: Sequence[Sequence[int]]
) -> MemoryPlan:
    """The plan for this machine, as its user's environment variables leave it open.

    Parameters
    ----------
    sequences
        The tokenised training set.
    """
    config = AutoConfig.from_pretrained(experiment.base_source, revision=experiment.base.revision)
    return plan_memory(config, training, sequences, memory_options())


def plan_memory(
    config: PretrainedConfig,
    training: Training,
    sequences: Sequence[Sequence[int]],
    options: MemoryOptions,
    *,
    free: int | None = None,
) -> MemoryPlan:
    """The fastest plan that fits, among those that the user's options leave open.

    Parameters
    ----------
    config
        Of the base model.
    sequences
        The tokenised training set, whose longest batch must fit.
    free
        Bytes of memory to plan for; ``None`` for those of the GPU. On a CPU the base stays as it
        is stored, and a batch in one piece.

    Raises
    ------
    UserError
        If not even the most frugal plan fits.
    """
    free = free_memory() if free is None else free
    size = training.per_device_train_batch_size
    if free is None:
        recompute = options.gradient_checkpointing
        recompute = training.gradient_checkpointing if recompute is None else recompute
        return MemoryPlan(options.base or "nf4", recompute, options.rows or size, False)
    tokens = max(map(len, sequences))
    packed = attention.packs(config) and attention.implementation() is not None
    possible = [
        MemoryPlan(form, recompute, options.rows or max(1, size // parts), packed)
        for form, recompute, parts in PREFERENCE
        if options.base in (None, form) and options.gradient_checkpointing in (None, recompute)
    ]
    for plan in possible:
        if bytes_needed(config, plan, tokens * plan.rows) <= USABLE * free:
            return plan
    least = min(bytes_needed(config, plan, tokens * plan.rows) for plan in possible)
    raise UserError(
        f"Training needs about {least / USABLE / 1e9:.0f} GB of GPU memory, {free / 1e9:.0f} GB "
        "are free: end what else runs on the GPU, or use a larger one."
    )


def bytes_needed(config: PretrainedConfig, plan: MemoryPlan, tokens: float) -> float:
    """Bytes for weights and activations of ``tokens`` tokens at a time, estimated."""
    text = config.get_text_config(decoder=True)
    width, heads, layers = text.hidden_size, text.num_attention_heads, text.num_hidden_layers
    # Older architectures do not spell out what is as usual.
    inner = getattr(text, "intermediate_size", None) or 4 * width
    shared = getattr(text, "num_key_value_heads", None) or heads
    head = getattr(text, "head_dim", None) or width // heads
    linear = layers * (width * head * (2 * heads + 2 * shared) + 3 * width * inner)
    embeddings = 2 * text.vocab_size * width * 2
    layer = tokens * (PER_HIDDEN * width + PER_INTERMEDIATE * inner)
    kept = tokens * 2 * width * layers + layer if plan.gradient_checkpointing else layers * layer
    return linear * BYTES[plan.base] + embeddings + kept


def free_memory() -> int | None:
    """Free bytes of this process's GPU; ``None`` without one."""
    return torch.cuda.mem_get_info(device())[0] if torch.cuda.is_available() else None


def prepare_base(base: PreTrainedModel, plan: MemoryPlan) -> PreTrainedModel:
    """The base model in the form, and with the attention, of a plan.

    Dequantised, every weight is the number that bitsandbytes computes from it in each pass.
    """
    if plan.padding_free:
        base.set_attn_implementation(attention.implementation())
    if plan.base == "dequantised" and getattr(base, "is_quantized", False):
        base = base.dequantize(base.dtype)
    return base
