"""Attention over sequences packed end to end, on a GPU: no padding, no attention between them.

There are two kernels: that of the package ``flash-attn``, which transformers knows, and torch's,
which is registered here. Where neither works, and for models whose attention may be another than
Llama's, batches are padded.
"""

from __future__ import annotations

import importlib.util

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PretrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

FLASH, TORCH = "flash_attention_2", "torch_varlen"
CAUSAL = (-1, 0)  # all earlier positions, no later ones
# Types of models whose attention is Llama's (softmax over earlier positions, perhaps a window).
PACKED = ("llama", "mistral", "qwen2", "qwen3")
HALF = (torch.bfloat16, torch.float16)  # the kernel takes no other types
# Tolerances for normally distributed numbers in bfloat16: gradients reach 60, and rounding changes
# them by 0.25 at most.
ABSOLUTE, RELATIVE = 0.5, 0.05


def implementation() -> str | None:
    """The name in transformers of the kernel that works here; ``None`` if none does."""
    if not torch.cuda.is_available():
        return None
    if importlib.util.find_spec("flash_attn") is not None:
        return FLASH
    return TORCH if kernel_is_correct(torch.device("cuda")) else None


def packs(config: PretrainedConfig) -> bool:
    """Whether a model's attention is the kernels'; of any other, batches are padded."""
    return config.model_type in PACKED


def kernel_is_correct(device: torch.device) -> bool:
    """Whether torch's kernel runs on a device and agrees with plain attention.

    Compares attention and gradients of two sequences with fewer key than query heads, as in
    Llama 3.1.
    """
    generator = torch.Generator().manual_seed(0)
    given = [
        torch.randn(24, heads, 128, generator=generator).to(device, torch.bfloat16).requires_grad_()
        for heads in (8, 2, 2)
    ]
    ends = torch.tensor([0, 7, 24], dtype=torch.int32, device=device)
    try:
        found = _with_gradients(_packed(*given, ends, 17, scale=None), given)
    except (RuntimeError, NotImplementedError, AttributeError):
        return False
    plain = [
        scaled_dot_product_attention(
            *(each[first:last].transpose(0, 1)[None] for each in given),
            is_causal=True,
            enable_gqa=True,
        )[0].transpose(0, 1)
        for first, last in ((0, 7), (7, 24))
    ]
    expected = _with_gradients(torch.cat(plain), given)
    pairs = zip(found, expected, strict=True)
    return all(torch.allclose(a, b, atol=ABSOLUTE, rtol=RELATIVE) for a, b in pairs)


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    sliding_window: int | None = None,
    **others,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers calls it: the kernel for packed rows, ``sdpa`` for padded ones.

    Parameters
    ----------
    query, key, value
        (1, heads, tokens, width) of all sequences end to end; with a mask (rows, heads, longest,
        width), as for ``sdpa``.
    cu_seq_lens_q
        Where each sequence begins, and where the last one ends.
    sliding_window
        Positions that each sees, itself included; ``None`` for all earlier ones.

    Returns
    -------
    (1, tokens, heads, width), and no weights
    """
    if cu_seq_lens_q is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **others
        )  # its mask knows the window
    if dropout:
        raise NotImplementedError("The kernel has no dropout on attention; Llama 3.1 uses none.")
    kept = query.dtype if query.dtype in HALF else torch.bfloat16
    flat = (states[0].transpose(0, 1).to(kept) for states in (query, key, value))
    window = (sliding_window - 1, 0) if sliding_window else CAUSAL
    found = _packed(*flat, cu_seq_lens_q, max_length_q, scale=scaling, window=window)
    return found[None].to(query.dtype), None


def _packed(
    query, key, value, ends, longest: int, *, scale: float | None, window: tuple = CAUSAL
) -> torch.Tensor:
    """(tokens, heads, width), each position seeing its own sequence up to itself."""
    return varlen_attn(
        query, key, value, ends, ends, longest, longest,
        scale=scale, window_size=window, enable_gqa=True,
    )  # fmt: skip


def _with_gradients(found: torch.Tensor, given: list[torch.Tensor]) -> list[torch.Tensor]:
    return [found, *torch.autograd.grad(found.square().sum(), given)]


AttentionInterface.register(TORCH, attention)
AttentionMaskInterface.register(TORCH, sdpa_mask)
