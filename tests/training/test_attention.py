"""torch's attention kernel for packed sequences, which only a GPU has: a reference in its place."""

from __future__ import annotations

import pytest
import torch
from kernels import varlen_kernel

from feyntune.training import attention

CPU = torch.device("cpu")


def test_a_kernel_is_taken_only_if_it_is_right(monkeypatch):
    assert not attention.kernel_is_correct(CPU), "torch has none for a processor"
    monkeypatch.setattr(attention, "varlen_attn", varlen_kernel())
    assert attention.kernel_is_correct(CPU)
    for wrong in ({"causal": False}, {"across": True}):
        monkeypatch.setattr(attention, "varlen_attn", varlen_kernel(**wrong))
        assert not attention.kernel_is_correct(CPU), wrong


@pytest.mark.parametrize(
    ("gpu", "flash", "torchs", "expected"),
    [
        (False, True, True, None),
        (True, True, True, attention.FLASH),
        (True, False, True, attention.TORCH),
        (True, False, False, None),
    ],
)
def test_which_kernel(monkeypatch, gpu, flash, torchs, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if flash else None)
    monkeypatch.setattr(attention, "kernel_is_correct", lambda device: torchs)
    assert attention.implementation() == expected


def test_dropout_is_refused():
    states = torch.zeros(1, 2, 3, 4)
    with pytest.raises(NotImplementedError, match="no dropout"):
        attention.attention(
            None, states, states, states, None, dropout=0.1, cu_seq_lens_q=torch.tensor([0, 3])
        )
