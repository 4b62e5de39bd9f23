"""Floating-point operations that a token takes, counted from the shapes of the layers.

Of a frozen base only the gradient of a layer's input is computed, not that of its weights: 2 N
forward and 2 N backward make 4 N, where training all weights takes 6 N. Recomputed activations are
no useful work, so they are not counted.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PretrainedConfig


def matmul_parameters(config: PretrainedConfig) -> int:
    """N: weights that a token is multiplied with, those of all layers and of the head."""
    width, inner = config.hidden_size, config.intermediate_size
    keys = width * config.num_key_value_heads // config.num_attention_heads
    layer = 2 * width * width + 2 * width * keys + 3 * width * inner
    return config.num_hidden_layers * layer + config.vocab_size * width


def attention(config: PretrainedConfig, lengths: Sequence[int]) -> float:
    """Of causal attention forward, per token, as the mean over the tokens of these sequences.

    The i-th token takes 4 i x width in every layer: queries times keys, and weights times values.
    """
    pairs = sum(length**2 for length in lengths) / sum(lengths)
    return 2 * pairs * config.hidden_size * config.num_hidden_layers


def training(config: PretrainedConfig, lora: int, lengths: Sequence[int]) -> float:
    """Per token, forward and backward, with ``lora`` trained parameters on a frozen base."""
    # Attention has no weights: 1 forward, 2.5 backward, where its products are made once more.
    return 4 * matmul_parameters(config) + 3.5 * attention(config, lengths) + 6 * lora


def forward(config: PretrainedConfig, lora: int, lengths: Sequence[int]) -> float:
    """Per token, forward alone."""
    return 2 * matmul_parameters(config) + attention(config, lengths) + 2 * lora
