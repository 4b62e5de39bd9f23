"""What a base model's configuration says, before any weight is loaded: layers, targets, context."""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.constants import (
    INCLUDE_LINEAR_LAYERS_SHORTHAND,
    TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
)
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from feyntune.errors import UserError, choose

Targets = str | Collection[str] | None
# What LoRA can be put on.
ADAPTABLE = (nn.Linear, Conv1D, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d)
# Arguments of LoraConfig whose adapters are the same model in memory and on a fresh base. Others
# train or rebuild parts of the base, which is not saved and which models share in memory
# (`modules_to_save`, `bias`, `layer_replication`), or are objects of PEFT's.
SUPPORTED = (
    *("r", "lora_alpha", "lora_dropout", "bias", "target_modules", "exclude_modules"),
    *("use_dora", "use_rslora", "init_lora_weights", "lora_bias", "fan_in_fan_out"),
    *("rank_pattern", "alpha_pattern", "layers_to_transform", "layers_pattern"),
)
# Beginnings of `init_lora_weights` by which PEFT changes the base's own weights, or needs gradients
# or activations that no run here computes. An adapter is saved without its base: on the base as it
# is published it would be another model.
REWRITES_BASE = ("pissa", "olora", "corda", "loftq")
NEEDS_DATA = ("eva", "lora_ga")
# How configurations call the longest sequence that a model reads.
CONTEXT = ("max_position_embeddings", "max_seq_len", "n_positions")


def skeleton(config: PretrainedConfig) -> PreTrainedModel:
    """The model without weights: every layer with its shape, on torch's meta device."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def context_length(config: PretrainedConfig) -> float:
    """Tokens that a model reads at most; infinite where its configuration has no limit."""
    text = config.get_text_config(decoder=True)
    given = (getattr(text, name, None) for name in CONTEXT)
    return next((length for length in given if length), math.inf)


def linear_layers(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Linear layers but for the head, by name: what is quantised, and what LoRA is put on."""
    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }


def missing_modules(
    config: PretrainedConfig, target_modules: Targets
) -> tuple[list[str], list[str]]:
    """Which target modules a model does not have, and the names of those that it has.

    Parameters
    ----------
    target_modules
        As PEFT takes them: names or ends of names, one regular expression for whole names,
        ``all-linear``, or ``None`` for PEFT's own choice by the type of the model.

    Returns
    -------
    missing, there
        Targets that name no layer that LoRA can be put on, or the head, which TRL's loss reads past
        an adapter; last parts of the names of the model's linear layers, each once, in the model's
        order.
    """
    model = skeleton(config)
    head = model.get_output_embeddings()
    there = list(dict.fromkeys(name.rsplit(".", 1)[-1] for name in linear_layers(model)))
    if target_modules is None:
        known = config.model_type in TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
        return ([] if known else ["target_modules"]), there
    if isinstance(target_modules, str):
        if target_modules.lower() == INCLUDE_LINEAR_LAYERS_SHORTHAND:
            return ([] if there else [target_modules]), there
        wanted = {target_modules: target_modules}
    else:
        wanted = {target: [target] for target in target_modules}
    layers = {name: m for name, m in model.named_modules() if isinstance(m, ADAPTABLE)}
    looked_for = {target: LoraConfig(target_modules=given) for target, given in wanted.items()}
    missing = [
        target
        for target, lora in looked_for.items()
        if not (found := [m for n, m in layers.items() if check_target_module_exists(lora, n)])
        or any(module is head for module in found)
    ]
    return missing, there


def check_lora_arguments(arguments: Mapping[str, Any]) -> None:
    """Check arguments for LoraConfig by its signature, and that they leave the base as it is.

    Raises
    ------
    UserError
        If LoraConfig has no such argument, naming the one that was nearly meant; or if it or the
        initialisation changes the base's weights or needs what is not computed here.
    """
    known = inspect.signature(LoraConfig).parameters
    for name in arguments:
        choose("argument of LoraConfig", name, known)
        if name not in SUPPORTED:
            raise UserError(f"{name} is not supported: {', '.join(SUPPORTED)} are.")
    if arguments.get("bias", "none") != "none":
        raise UserError(
            f"bias: {arguments['bias']} trains the base model's own weights, which models share: "
            "use none, or lora_bias."
        )
    if isinstance(start := arguments.get("init_lora_weights"), str):
        _check_start(start)


def _check_start(given: str) -> None:
    """Check that the initialisation of this name starts an adapter from itself alone."""
    instead = "use true, false or gaussian."
    if given.lower().startswith(REWRITES_BASE):
        raise UserError(
            f"init_lora_weights: {given} changes the base model's own weights, so that the "
            f"adapter would not fit the base as it is published: {instead}"
        )
    if given.lower().startswith(NEEDS_DATA):
        raise UserError(
            f"init_lora_weights: {given} starts from data or gradients of the base model, which "
            f"are not computed here: {instead}"
        )
    if given.lower() != "gaussian":
        # `orthogonal` cannot start on weights in four bits.
        raise UserError(f"init_lora_weights: {given} is not supported: {instead}")
