"""How a variant is trained on the machine at hand: chosen by its memory, the same optimisation.

Nothing here moves a result but in the last digits: the base weights are the same numbers in either
form, and a batch is the same batch in one piece or in several. The figures are estimates from the
layers' shapes, **not measured on a GPU**; a batch that does not fit after all is halved in the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from transformers import PretrainedConfig, PreTrainedModel

from feyntune.errors import UserError
from feyntune.experiment.sections import Training
from feyntune.pipeline.gpus import Asked, own_gpu
from feyntune.training import attention

Form = Literal["nf4", "dequantised"]
# Four bits, and for every 64 of them a scale of eight bits.
BYTES = {"nf4": 0.5 + 1 / 64, "dequantised": 2.0}
# Of the free memory: the rest is fragmentation, and what the driver keeps.
USABLE = 0.9
# Activations kept per token and layer, in bytes of the widths of hidden state and MLP: inputs of
# every linear layer in bfloat16, and in float32 once more with a mask for LoRA and its dropout.
PER_HIDDEN, PER_INTERMEDIATE = 44, 18
# From the fastest to the most frugal: form of the base, recomputing activations, share of a batch.
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


@dataclass(frozen=True)
class Plan:
    """How the batch of a step is taken through the model; recorded with the run."""

    base: Form
    gradient_checkpointing: bool
    rows: int
    padding_free: bool

    def facts(self) -> dict[str, str | int | bool]:
        """What a run's record says of it."""
        return asdict(self)


def choose(
    config: PretrainedConfig,
    training: Training,
    sequences: Sequence[Sequence[int]],
    asked: Asked,
    *,
    processes: int = 1,
    free: int | None = None,
) -> Plan:
    """The fastest way that fits, among those that the user leaves open.

    Parameters
    ----------
    config
        Of the base model.
    sequences
        The tokenised training set, whose longest batch must fit.
    processes
        Among which the rows of a batch are divided.
    free
        Bytes of memory to plan for; ``None`` for those of the GPU. On a CPU the base stays as it
        is stored, and a batch in one piece.

    Raises
    ------
    UserError
        If not even the most frugal way fits.
    """
    free = free_memory() if free is None else free
    share = -(-training.batch_size // processes)
    if free is None:
        again = training.gradient_checkpointing
        again = again if asked.gradient_checkpointing is None else asked.gradient_checkpointing
        return Plan(asked.base or "nf4", again, asked.rows or share, False)
    tokens = max(map(len, sequences))
    packed = attention.implementation() is not None
    open_to = [
        Plan(form, again, asked.rows or max(1, share // parts), packed)
        for form, again, parts in PREFERENCE
        if asked.base in (None, form) and asked.gradient_checkpointing in (None, again)
    ]
    for plan in open_to:
        if needed(config, plan, tokens * plan.rows) <= USABLE * free:
            return plan
    least = min(needed(config, plan, tokens * plan.rows) for plan in open_to)
    raise UserError(
        f"Training needs about {least / USABLE / 1e9:.0f} GB of GPU memory, {free / 1e9:.0f} GB "
        "are free: end what else runs on the GPU, or use a larger one."
    )


def needed(config: PretrainedConfig, plan: Plan, tokens: float) -> float:
    """Bytes for weights and activations of ``tokens`` tokens at a time, estimated."""
    width, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    heads = config.num_key_value_heads / config.num_attention_heads
    linear = layers * (width * width * (2 + 2 * heads) + 3 * width * inner)
    embeddings = 2 * config.vocab_size * width * 2
    layer = tokens * (PER_HIDDEN * width + PER_INTERMEDIATE * inner)
    kept = tokens * 2 * width * layers + layer if plan.gradient_checkpointing else layers * layer
    return linear * BYTES[plan.base] + embeddings + kept


def free_memory() -> int | None:
    """Free bytes of this process's GPU; ``None`` without one."""
    return torch.cuda.mem_get_info(own_gpu())[0] if torch.cuda.is_available() else None


def prepared(base: PreTrainedModel, plan: Plan) -> PreTrainedModel:
    """The base model in the form, and with the attention, that the plan says.

    Dequantised, every weight is the number that bitsandbytes makes of it in each pass anyhow.
    """
    if plan.padding_free:
        base.set_attn_implementation(attention.implementation())
    if plan.base == "dequantised" and getattr(base, "is_quantized", False):
        base = base.dequantize(base.dtype)
    return base
