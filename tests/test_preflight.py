"""What is looked at before a run, and how the machine's memory decides."""

import shutil
from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
from kernels import varlen_kernel
from transformers import LlamaConfig

from feyntune.errors import UserError
from feyntune.experiment import load
from feyntune.models import base as modeling
from feyntune.pipeline.gpus import Asked, asked
from feyntune.training import attention, batches, memory, parallel, preflight
from feyntune.training.milestones import evaluation_steps

LLAMA = LlamaConfig(
    vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
    num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=131072,
    bos_token_id=128000, eos_token_id=128001,
)  # fmt: skip
GB = 10**9
LONGEST = 350
PAPER = load.load("paper").training


def chosen(free, **asked):
    sequences = [[0] * 200, [0] * LONGEST]
    return memory.choose(LLAMA, PAPER, sequences, Asked(**asked), free=free)


# --- what is looked at ------------------------------------------------------------------------


@pytest.fixture
def ready(stand_in):
    """The checks of the stand-in, which is ready, with what a test changes."""
    settings = stand_in.experiment
    config = stand_in.base().config

    def checks(tokenizer=None, config=config, processes=1):
        return preflight.before_loading(
            settings, "s1-LoRA-all", tokenizer or stand_in.tokenizer, config,
            parameters=10_000, processes=processes,
        )  # fmt: skip

    return checks


def test_a_machine_that_is_ready_says_what_was_found(ready):
    said = preflight.require(ready())
    for name in ("disk", "GPUs", "capability", "access", "BOS and EOS", "context"):
        assert f"\n{name}" in f"\n{said}"


def test_too_little_disk(ready, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10**9, 10**9, 479_999))
    with pytest.raises(UserError, match=r"Not ready to train. disk: .* needed"):
        preflight.require(ready())
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10**9, 10**9, 480_000))
    preflight.require(ready())


def test_more_gpus_than_exist(ready, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    preflight.require(ready(processes=2))
    with pytest.raises(UserError, match="GPUs: 2 there, 3 asked for"):
        preflight.require(ready(processes=3))
    with pytest.raises(UserError, match="3 GPUs are asked for, 2 exist"):
        parallel.refuse_missing(3)


def test_a_tokenizer_of_another_model(ready, stand_in):
    tokenizer = stand_in.tokenizer
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(7)
    with pytest.raises(UserError, match=r"BOS and EOS: tokenizer .* and 7, model"):
        preflight.require(ready(tokenizer))


def test_several_ends_of_text_may_be_known_to_the_model(stand_in):
    training = stand_in.experiment.training
    tokenizer = SimpleNamespace(bos_token_id=128000, eos_token_id=128001)
    config = LlamaConfig(**{**LLAMA.to_dict(), "eos_token_id": [128008, 128001]})
    assert preflight.tokens(tokenizer, config, training)[0].passed


def test_a_limit_beyond_the_models_context(ready, stand_in):
    config = LlamaConfig(**{**stand_in.base().config.to_dict(), "max_position_embeddings": 128})
    with pytest.raises(UserError, match=r"context: training.max_tokens 2048, .* context 128"):
        preflight.require(ready(config=config))


def test_bf16_without_a_gpu(stand_in, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    training = stand_in.experiment.training.model_copy(update={"bf16": True})
    assert not preflight.capability(training).passed
    assert preflight.capability(stand_in.experiment.training).passed


def test_a_base_that_the_hub_refuses(stand_in, monkeypatch):
    def refused(self, repository):
        raise OSError(f"403 Cannot access gated repo {repository}.\nmore")

    monkeypatch.setattr("huggingface_hub.HfApi.auth_check", refused)
    base = stand_in.experiment.base.model_copy(update={"model": "meta-llama/Meta-Llama-3.1-8B"})
    check = preflight.access(stand_in.experiment.model_copy(update={"base": base}))
    assert not check.passed and "gated" in check.found and "HF_TOKEN" in check.found


def test_the_papers_adapters_are_counted_before_they_are_made():
    targets = load.load("demo").training.lora.targets
    sizes = [preflight.trainable(LLAMA, 8, targets[f]) for f in ("LoRA-all", "LoRA-QKV")]
    assert sizes == [20_971_520, 4_718_592]


@pytest.mark.parametrize("again", [True, False])
def test_a_measured_step_is_one_of_the_run(stand_in, tmp_path, monkeypatch, again):
    """With activations recomputed where they are in the run, and in the numbers of the run."""
    trainer, seen = stand_in.trainer(tmp_path), []
    trainer.args.activation_checkpointing = again
    loss = trainer.compute_loss

    def watched(model, *arguments, **more):
        layers = trainer.model.get_base_model().model
        recomputed = layers.gradient_checkpointing and layers.training
        seen.append((recomputed, torch.is_autocast_enabled("cpu")))
        return loss(model, *arguments, **more)

    monkeypatch.setattr(trainer, "compute_loss", watched)
    monkeypatch.setattr(
        trainer.accelerator, "autocast", lambda: torch.autocast("cpu", dtype=torch.bfloat16)
    )
    trainer.trial_step(trainer.data_collator(list(trainer.train_dataset.select(range(2)))))
    assert seen == [(again, True)]


def test_measuring_a_step_leaves_no_trace(stand_in, tmp_path):
    saved = []
    for measured in (False, True):
        trainer = stand_in.trainer(tmp_path / "run")
        if measured:
            assert 0 < preflight.expected_hours(trainer) < 1
        trainer.train()
        saved.append([p.clone() for p in trainer.model.parameters() if p.requires_grad])
        history = [{**entry} for entry in trainer.state.log_history if "loss" in entry]
        saved.append(history)
    assert all(torch.equal(a, b) for a, b in zip(saved[0], saved[2], strict=True))
    assert saved[1] == saved[3]


# --- what the memory decides ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("free", "base"), [(22 * GB, "nf4"), (78 * GB, "dequantised"), (140 * GB, "dequantised")]
)
def test_the_base_is_dequantised_where_there_is_room(free, base):
    plan = chosen(free)
    assert plan.base == base
    assert memory.needed(LLAMA, plan, LONGEST * plan.rows) <= 0.9 * free


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


def test_on_a_cpu_the_base_stays_as_it_is_stored(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    demo = load.load("demo").training
    plan = memory.choose(LLAMA, demo, [[0] * 9], Asked())
    assert plan == memory.Plan("nf4", False, 16, False)
    assert memory.choose(LLAMA, demo, [[0] * 9], Asked(), processes=3).rows == 6


def test_the_environment_asks(monkeypatch):
    assert asked() == Asked(None, None, None)
    values = {"ROWS": "8", "BASE_FORM": "nf4", "RECOMPUTE": "True"}
    for name, value in values.items():
        monkeypatch.setenv(f"FEYNTUNE_{name}", value)
    assert asked() == Asked(8, "nf4", True)
    for name, value in {"ROWS": "many", "BASE_FORM": "fp8"}.items():
        with monkeypatch.context() as patch:
            patch.setenv(f"FEYNTUNE_{name}", value)
            with pytest.raises(UserError, match=f"FEYNTUNE_{name} is '{value}'; it must be"):
                asked()


def test_weights_of_the_8b_model_in_both_forms():
    """5.7 and 16.1 GB: 6.98 billion quantised, 1.05 billion in embeddings and head."""
    plans = [memory.Plan(form, False, 16, False) for form in ("nf4", "dequantised")]
    sizes = [memory.needed(LLAMA, plan, 0) / GB for plan in plans]
    assert sizes == pytest.approx([5.7, 16.06], rel=0.01)


@pytest.mark.parametrize("form", ["nf4", "dequantised"])
def test_a_dequantised_base_has_the_same_weights_and_loss(stand_in, tmp_path, form):
    import bitsandbytes

    quantised = stand_in.base(quantized=True)
    plain = memory.prepared(stand_in.base(quantized=True), memory.Plan(form, False, 16, False))
    kinds = {type(m) for n, m in plain.named_modules() if n.endswith("_proj")}
    assert kinds == {torch.nn.Linear if form == "dequantised" else bitsandbytes.nn.Linear4bit}
    found = dict(plain.named_modules())
    for name, module in quantised.named_modules():
        if form == "dequantised" and isinstance(module, bitsandbytes.nn.Linear4bit):
            state = module.weight.quant_state
            weight = bitsandbytes.functional.dequantize_4bit(module.weight.data, state)
            assert torch.equal(found[name].weight, weight)
    sequences = stand_in.tokenised("train")["input_ids"][:4]
    ids, mask = modeling.padded(sequences, torch.device("cpu"))
    with torch.no_grad():
        losses = [modeling.next_token_nll(m, ids, mask) for m in (quantised, plain)]
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-5)


def test_an_adapter_on_a_dequantised_base_learns_the_same(stand_in, tmp_path, monkeypatch):
    losses = []
    for form in ("nf4", "dequantised"):
        with monkeypatch.context() as patch:
            base = memory.prepared(
                stand_in.base(quantized=True), memory.Plan(form, False, 16, False)
            )
            patch.setattr(type(stand_in), "base", lambda self, quantized, base=base: base)
            trainer = stand_in.trainer(tmp_path / form)
        trainer.train()
        assert {p.dtype for p in trainer.model.parameters() if p.requires_grad} == {torch.float32}
        losses.append([e["loss"] for e in trainer.state.log_history if "loss" in e])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


# --- without padding --------------------------------------------------------------------------


@pytest.fixture(params=["sdpa", attention.TORCH])
def batch(request, stand_in, tmp_path, monkeypatch):
    """A trainer and a batch; a reference stands for the kernel that only a GPU has."""
    kernel = varlen_kernel()
    monkeypatch.setattr(attention, "varlen_attn", kernel)
    # It computes in float32 too, where small differences show.
    monkeypatch.setattr(attention, "HALF", (torch.float32,))
    trainer = stand_in.trainer(tmp_path)
    trainer.model.get_base_model().set_attn_implementation(request.param)
    rows = stand_in.tokenised("train").select([0, 1, 2, 3, 4])
    return trainer, trainer.data_collator(list(rows.remove_columns("id")))


def by_the_kernel(trainer) -> bool:
    """Whether the kernel was called as often as there are layers with it, and else never."""
    chosen = trainer.model.get_base_model().config._attn_implementation == attention.TORCH
    return attention.varlen_attn.calls == chosen * trainer.model.config.num_hidden_layers


def gradients(trainer, piece, tokens):
    trainer.model.eval()  # no dropout: the masks of different shapes are different
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, dict(piece), num_items_in_batch=tokens)
    loss.backward()
    trained = ((n, p) for n, p in trainer.model.named_parameters() if p.requires_grad)
    return loss.item(), {name: parameter.grad.clone() for name, parameter in trained}


def test_without_padding_loss_and_gradients_are_the_same(batch):
    trainer, padded = batch
    tokens = batches.scored_tokens(padded)
    flat = batches.flattened(padded)
    assert flat["input_ids"].shape == (1, int(padded["attention_mask"].sum()))
    # lora_B is zero at first, and with it every gradient of lora_A.
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    loss, expected = gradients(trainer, padded, tokens)
    trainer.padding_free = True
    flat_loss, found = gradients(trainer, flat, tokens)
    assert by_the_kernel(trainer)
    assert flat_loss == pytest.approx(loss, rel=1e-5)
    for name, gradient in expected.items():
        scale = gradient.abs().max().item()
        assert scale > 0
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4 * scale)


def test_no_abstract_attends_to_another(batch):
    trainer, padded = batch
    other = {name: value.clone() for name, value in padded.items()}
    last = int(padded["attention_mask"][0].sum()) - 1
    other["input_ids"][0, 1:last] = 7
    with torch.no_grad():
        nll = [
            -trainer.model(**batches.flattened(b), use_cache=False, fused_lm_head=True).log_probs
            for b in (padded, other)
        ]
    first, second = (values.flatten() for values in nll)
    assert not torch.allclose(first[:last], second[:last])
    torch.testing.assert_close(first[last + 1 :], second[last + 1 :], rtol=0, atol=1e-6)


def test_flattened_is_what_trl_makes_of_it(batch, stand_in):
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    _, padded = batch
    rows = [{"input_ids": ids} for ids in stand_in.tokenised("train")["input_ids"][:5]]
    theirs = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(rows)
    ours = batches.flattened(padded)
    for name, value in ours.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value.long(), theirs[name].long()), name
        else:
            assert value == theirs[name]


def test_pieces_are_the_batch(batch):
    _, padded = batch
    assert next(batches.pieces(padded, 5, multiple=8)) is padded
    parts = list(batches.pieces(padded, 2, multiple=8))
    assert [len(part["input_ids"]) for part in parts] == [2, 2, 1]
    assert all(part["input_ids"].shape[1] % 8 == 0 for part in parts)
    assert [ids for part in parts for ids in batches.sequences(part)] == batches.sequences(padded)
    assert list(batches.pieces(batches.share(padded, 6, 7), 2, multiple=8)) == []
    assert evaluation_steps(3, 4) == [1, 2, 3]
