"""How a variant is trained is decided by the memory, and changes no number."""

import bitsandbytes
import pytest
import torch
from transformers import LlamaConfig

from feyntune.errors import UserError
from feyntune.experiment import load
from feyntune.models.base import padded
from feyntune.models.likelihood import next_token_nll
from feyntune.training import memory
from feyntune.training.memory import (
    MemoryOptions,
    MemoryPlan,
    bytes_needed,
    memory_options,
    plan_memory,
    prepare_base,
)

LLAMA = LlamaConfig(
    vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
    num_attention_heads=32, num_key_value_heads=8,
)  # fmt: skip
GB = 10**9
LONGEST = 350
LONGEST_OF_HEP_TH = 574  # tokens of Llama 3, measured
PAPER = load.load("paper").training


def chosen(free, **options):
    sequences = [[0] * 200, [0] * LONGEST]
    return plan_memory(LLAMA, PAPER, sequences, MemoryOptions(**options), free=free, gpu=True)


@pytest.mark.parametrize(
    ("free", "base"), [(22 * GB, "nf4"), (78 * GB, "dequantised"), (140 * GB, "dequantised")]
)
def test_the_base_is_dequantised_where_there_is_room(free, base):
    plan = chosen(free)
    assert plan.base == base
    assert bytes_needed(LLAMA, plan, LONGEST * plan.rows) <= 0.9 * free


def test_more_memory_never_makes_a_plan_more_frugal():
    plans = [chosen(free * GB) for free in range(16, 200, 4)]
    ranks = [
        next(i for i, (form, again, parts) in enumerate(memory.PREFERENCE)
             if (form, again, 16 // parts) == (p.base, p.gradient_checkpointing, p.rows))
        for p in plans
    ]  # fmt: skip
    assert ranks == sorted(ranks, reverse=True) and ranks[-1] == 0


def test_what_the_user_says_is_taken(monkeypatch):
    plan = chosen(140 * GB, base="nf4", gradient_checkpointing=True)
    assert (plan.base, plan.gradient_checkpointing) == ("nf4", True)
    assert chosen(140 * GB, rows=2).rows == 2
    with pytest.raises(UserError, match=r"Training needs about .* GB are free"):
        chosen(4 * GB)


def test_options_come_from_the_environment(monkeypatch):
    assert memory_options() == MemoryOptions(None, None, None)
    values = {"ROWS": "8", "BASE_FORM": "nf4", "RECOMPUTE": "True"}
    for name, value in values.items():
        monkeypatch.setenv(f"FEYNTUNE_{name}", value)
    assert memory_options() == MemoryOptions(8, "nf4", True)
    for name, value in {"ROWS": "many", "BASE_FORM": "fp8"}.items():
        with monkeypatch.context() as patch:
            patch.setenv(f"FEYNTUNE_{name}", value)
            with pytest.raises(UserError, match=f"FEYNTUNE_{name} is '{value}'; it must be"):
                memory_options()


def test_weights_of_the_8b_model_in_both_forms():
    """5.7 and 16.1 GB: 6.98 billion quantised, 1.05 billion in embeddings and head."""
    plans = [MemoryPlan(form, False, 16, False) for form in ("nf4", "dequantised")]
    sizes = [bytes_needed(LLAMA, plan, 0) / GB for plan in plans]
    assert sizes == pytest.approx([5.7, 16.06], rel=0.01)


@pytest.mark.parametrize("form", ["nf4", "dequantised"])
def test_a_dequantised_base_has_the_same_weights_and_loss(stand_in, tmp_path, form):
    quantised = stand_in.base(quantized=True)
    plain = prepare_base(stand_in.base(quantized=True), MemoryPlan(form, False, 16, False))
    kinds = {type(m) for n, m in plain.named_modules() if n.endswith("_proj")}
    assert kinds == {torch.nn.Linear if form == "dequantised" else bitsandbytes.nn.Linear4bit}
    found = dict(plain.named_modules())
    for name, module in quantised.named_modules():
        if form == "dequantised" and isinstance(module, bitsandbytes.nn.Linear4bit):
            state = module.weight.quant_state
            weight = bitsandbytes.functional.dequantize_4bit(module.weight.data, state)
            assert torch.equal(found[name].weight, weight)
    sequences = stand_in.tokenised("train")["input_ids"][:4]
    ids, mask = padded(sequences, torch.device("cpu"))
    with torch.no_grad():
        losses = [next_token_nll(m, ids, mask) for m in (quantised, plain)]
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-5)


def test_an_adapter_on_a_dequantised_base_learns_the_same(stand_in, tmp_path, monkeypatch):
    losses, few = [], stand_in.tokenised("train").select(range(16))
    for form in ("nf4", "dequantised"):
        with monkeypatch.context() as patch:
            base = prepare_base(stand_in.base(quantized=True), MemoryPlan(form, False, 16, False))
            patch.setattr(type(stand_in), "base", lambda self, quantized, base=base: base)
            trainer = stand_in.trainer(tmp_path / form, train=few)
        trainer.train()
        assert {p.dtype for p in trainer.model.parameters() if p.requires_grad} == {torch.float32}
        losses.append([e["loss"] for e in trainer.state.log_history if "loss" in e])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_memory_is_that_of_the_gpu_with_the_model(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100 + device.index, 200))
    assert memory.free_memory() == 100


@pytest.mark.parametrize(
    ("total", "base", "again", "rows"),
    [
        (24, "nf4", True, 16),
        (48, "nf4", False, 4),
        (80, "dequantised", False, 4),
        (141, "dequantised", False, 8),
    ],
)
def test_what_is_planned_for_the_8b_model(total, base, again, rows):
    """For the longest abstracts in one batch, on GPUs of these sizes with 0.6 GB taken."""
    training = load.load("paper").training
    free = int(total * GB - 6e8)
    longest = [[0] * LONGEST_OF_HEP_TH]
    plan = plan_memory(LLAMA, training, longest, MemoryOptions(), free=free, gpu=True)
    assert (plan.base, plan.gradient_checkpointing, plan.rows) == (base, again, rows)


def test_nf4_with_recomputed_activations_fits_a_gpu_of_24_gb():
    plan = MemoryPlan("nf4", True, 16, False)
    assert 6 * GB < bytes_needed(LLAMA, plan, 16 * LONGEST_OF_HEP_TH) < 0.9 * 24 * GB


# --- on a CPU ----------------------------------------------------------------------------------

SMOLLM2 = LlamaConfig(
    vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
    num_attention_heads=9, num_key_value_heads=3,
)  # fmt: skip
NARROW = LlamaConfig(
    vocab_size=49152, hidden_size=256, intermediate_size=1536, num_hidden_layers=30,
    num_attention_heads=4, num_key_value_heads=2,
)  # fmt: skip
SMALL = load.load("small").training


def on_a_cpu(free, config=SMOLLM2, **options):
    return plan_memory(
        config, SMALL, [[0] * 495], MemoryOptions(**options), free=int(free * GB), gpu=False
    )


@pytest.mark.parametrize(("rows", "measured"), [(4, 5.0), (8, 10.0), (16, 15.7)])
def test_memory_of_a_cpu_is_as_measured(rows, measured):
    """Peak of a training of SmolLM2-135M on pieces of ``rows`` abstracts of 430 tokens."""
    needed = bytes_needed(SMOLLM2, MemoryPlan("nf4", False, rows, False), 430 * rows, gpu=False)
    assert needed == pytest.approx(measured * GB, rel=0.25)


@pytest.mark.parametrize(
    ("free", "recompute", "rows"),
    [(48, False, 4), (6, False, 4), (4, False, 2), (3, False, 1), (2, True, 1)],
)
def test_on_a_cpu_a_batch_goes_in_pieces_that_fit(free, recompute, rows):
    plan = on_a_cpu(free, NARROW)
    assert plan == MemoryPlan("nf4", recompute, rows, False)
    assert bytes_needed(NARROW, plan, 495 * plan.rows, gpu=False) <= 0.9 * free * GB


@pytest.mark.parametrize(("free", "recompute"), [(48, False), (3, False), (2, True)])
def test_on_a_cpu_a_wide_model_takes_one_abstract_at_a_time(free, recompute):
    """It pads none; 204 tokens a second were measured, 138 with eight."""
    assert on_a_cpu(free) == MemoryPlan("nf4", recompute, 1, False)


def test_too_little_memory_for_one_abstract_is_one_line():
    with pytest.raises(UserError, match=r"needs about .* GB of memory, 1\.0 GB are free: run one"):
        on_a_cpu(1)


def test_what_the_user_says_is_taken_on_a_cpu():
    assert on_a_cpu(48, rows=2).rows == 2
    assert on_a_cpu(48, base="dequantised").base == "dequantised"
    assert on_a_cpu(48, gradient_checkpointing=True).gradient_checkpointing
