"""How a variant is trained in the memory of this machine; the optimisation is always the same.

A choice here changes only the last digits of a result: the base weights are the same numbers in
either form, and a batch is the same batch in one piece or in several. The sizes are estimates from
the layers' shapes, **not measured on a GPU**; a batch that does not fit on one is halved during the
run. On a CPU a process without memory is killed instead, so that its plan must fit from the start.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from feyntune import machine
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
# On a CPU the logits of a piece are kept: five arrays of the vocabulary's size in float32. With
# them the estimate is 2.6 MB a token for SmolLM2-135M, where 2.2 to 2.7 were measured.
LOGITS_ON_A_CPU = 5 * 4
# From this width of the hidden states on, a CPU takes one abstract at a time: it pads none and
# stays in the caches. Measured with SmolLM2-135M, one thread: 204 tokens a second, with eight 138.
WIDE_ON_A_CPU = 512
# Below it a few at a time, of like lengths: with the stand-in of demo, width 128, four took 20 s
# where sixteen took 28, eight 22, two 21.
ROWS_ON_A_CPU = 4
# Of Python and its libraries.
BYTES_OF_A_PROCESS = 10**9
# With a GPU or without: the memory's name, and what to do if it is not enough.
TOO_LITTLE = {
    True: ("GPU memory", "end what else runs on the GPU, or use a larger one"),
    False: ("memory", "run one job at a time (--jobs 1), or use a larger machine"),
}


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
    gpu: bool | None = None,
) -> MemoryPlan:
    """The fastest plan that fits, among those that the user's options leave open.

    Parameters
    ----------
    config
        Of the base model.
    sequences
        The tokenised training set, whose longest batch must fit.
    free
        Bytes of memory to plan for; ``None`` for what :func:`free_memory` finds.
    gpu
        Whether to plan for a GPU; ``None`` for what this machine has.

    Raises
    ------
    UserError
        If not even the most frugal plan fits.
    """
    gpu = torch.cuda.is_available() if gpu is None else gpu
    free = free_memory() if free is None else free
    tokens = max(map(len, sequences))
    possible = _possible(config, training, options, gpu)
    needed = [bytes_needed(config, plan, tokens * plan.rows, gpu=gpu) for plan in possible]
    for plan, size in zip(possible, needed, strict=True):
        if size <= USABLE * free:
            return plan
    kind, remedy = TOO_LITTLE[gpu]
    raise UserError(
        f"Training needs about {min(needed) / USABLE / 1e9:.1f} GB of {kind}, {free / 1e9:.1f} GB "
        f"are free: {remedy}."
    )


def _possible(
    config: PretrainedConfig, training: Training, options: MemoryOptions, gpu: bool
) -> list[MemoryPlan]:
    """Plans that the options leave open, from the fastest to the most frugal."""
    size, recompute = training.per_device_train_batch_size, options.gradient_checkpointing
    packed = gpu and attention.packs(config) and attention.implementation() is not None
    preference = PREFERENCE if gpu else _preference_on_a_cpu(config, size, options.base or "nf4")
    if not gpu and recompute is None:
        recompute = training.gradient_checkpointing or None
    return [
        MemoryPlan(form, again, options.rows or max(1, size // parts), packed)
        for form, again, parts in preference
        if options.base in (None, form) and recompute in (None, again)
    ]


def _preference_on_a_cpu(
    config: PretrainedConfig, size: int, form: Form
) -> list[tuple[Form, bool, int]]:
    """The same where the base stays as it is stored: dequantised, it was no faster."""
    wide = config.get_text_config(decoder=True).hidden_size >= WIDE_ON_A_CPU
    rows = (1,) if wide else (ROWS_ON_A_CPU, 2, 1)
    return [(form, recompute, max(1, size // few)) for recompute in (False, True) for few in rows]


def bytes_needed(
    config: PretrainedConfig, plan: MemoryPlan, tokens: float, *, gpu: bool = True
) -> float:
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
    on_a_cpu = tokens * text.vocab_size * LOGITS_ON_A_CPU + BYTES_OF_A_PROCESS
    return linear * BYTES[plan.base] + embeddings + kept + (0 if gpu else on_a_cpu)


def free_memory() -> int:
    """Free bytes: of this process's GPU, or of this process's part of the machine's memory."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info(device())[0]
    return machine.memory_of_a_job()


def prepare_base(base: PreTrainedModel, plan: MemoryPlan) -> PreTrainedModel:
    """The base model in the form, and with the attention, of a plan.

    Dequantised, every weight is the number that bitsandbytes computes from it in each pass.
    """
    if plan.padding_free:
        base.set_attn_implementation(attention.implementation())
    if plan.base == "dequantised" and getattr(base, "is_quantized", False):
        base = base.dequantize(base.dtype)
    return base
