"""What is checked before a run, and the steps that are measured."""

import shutil
from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig
from transformers import LlamaConfig

from feyntune.errors import UserError
from feyntune.experiment import load
from feyntune.training import preflight

LLAMA = LlamaConfig(
    vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
    num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=131072,
    bos_token_id=128000, eos_token_id=128001,
)  # fmt: skip


@pytest.fixture
def ready(stand_in):
    """The checks of the stand-in, which all pass, with what a test changes."""
    settings = stand_in.experiment
    config = stand_in.base().config

    def checks(tokenizer=None, config=config):
        return preflight.all_checks(
            settings, "s1-LoRA-all", tokenizer or stand_in.tokenizer, config,
            parameters=10_000,
        )  # fmt: skip

    return checks


def test_a_machine_that_is_ready_says_what_was_found(ready):
    said = preflight.require(ready())
    for name in ("disk", "capability", "access", "BOS and EOS", "context"):
        assert f"\n{name}" in f"\n{said}"


def test_too_little_disk(ready, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10**9, 10**9, 479_999))
    with pytest.raises(UserError, match=r"Not ready to train. disk: .* needed"):
        preflight.require(ready())
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10**9, 10**9, 480_000))
    preflight.require(ready())


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
    with pytest.raises(UserError, match=r"context: training.max_length 2048, .* context 128"):
        preflight.require(ready(config=config))


@pytest.mark.parametrize("supported", [False, True])
def test_bf16_without_a_gpu(stand_in, monkeypatch, supported):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported)
    training = stand_in.experiment.training.model_copy(update={"bf16": True})
    assert preflight.capability(training).passed is supported
    assert preflight.capability(stand_in.experiment.training).passed


def test_a_base_that_the_hub_refuses(stand_in, monkeypatch):
    def refused(self, repository):
        raise OSError(f"403 Cannot access gated repo {repository}.\nmore")

    monkeypatch.setattr("huggingface_hub.HfApi.auth_check", refused)
    base = stand_in.experiment.base.model_copy(update={"model": "meta-llama/Meta-Llama-3.1-8B"})
    check = preflight.access(stand_in.experiment.model_copy(update={"base": base}))
    assert not check.passed and "gated" in check.found and "HF_TOKEN" in check.found


def test_the_papers_adapters_have_the_papers_size():
    """8 x (in + out) summed over the 32 layers of Llama-3.1-8B, without making them."""
    loras = [load.load("demo").lora(name) for name in ("s1-LoRA-all", "s1-LoRA-QKV")]
    configs = [LoraConfig(task_type="CAUSAL_LM", **lora.arguments) for lora in loras]
    sizes = [preflight.lora_parameters(LLAMA, config) for config in configs]
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
    training = stand_in.experiment.training.model_copy(update={"num_train_epochs": 1})
    few = stand_in.tokenised("train").select(range(10))
    for measured in (False, True):
        trainer = stand_in.trainer(tmp_path / "run", training=training, train=few)
        if measured:
            assert 0 < preflight.expected_hours(trainer) < 1
        trainer.train()
        saved.append([p.clone() for p in trainer.model.parameters() if p.requires_grad])
        history = [{**entry} for entry in trainer.state.log_history if "loss" in entry]
        saved.append(history)
    assert all(torch.equal(a, b) for a, b in zip(saved[0], saved[2], strict=True))
    assert saved[1] == saved[3]
