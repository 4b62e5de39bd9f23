"""A reference in place of torch's attention kernel for packed sequences, which only a GPU has."""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention


def varlen_kernel(*, causal=True, across=False):
    """The same attention, counting its calls; or one that is wrong in one way."""

    def varlen_attn(
        query, key, value, ends_q, ends_k, longest_q, longest_k, *, scale, window_size, enable_gqa
    ):
        lengths = ends_q.diff()
        assert (window_size, int(lengths.max())) == ((-1, 0), longest_q) and longest_k == longest_q
        assert torch.equal(ends_q, ends_k) and ends_q.dtype == torch.int32
        parts = [len(query)] if across else lengths.tolist()
        each = [
            scaled_dot_product_attention(
                *(x.transpose(0, 1)[None] for x in rows),
                is_causal=causal, scale=scale, enable_gqa=enable_gqa,
            )[0].transpose(0, 1)
            for rows in zip(*(x.split(parts) for x in (query, key, value)), strict=True)
        ]  # fmt: skip
        varlen_attn.calls += 1
        return torch.cat(each)

    varlen_attn.calls = 0
    return varlen_attn
