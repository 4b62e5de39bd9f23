"""The negative log-likelihood of tokens, with small tiles and large ones, and batches."""

import random
from itertools import pairwise

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GraniteConfig,
    LlamaConfig,
    LlamaForCausalLM,
)

from feyntune.models import adapters, likelihood
from feyntune.models.base import encode, padded
from feyntune.models.likelihood import next_token_nll, plan_batches

HEAD = LoraConfig(target_modules=["0"], init_lora_weights=False)


@pytest.fixture(scope="module")
def sequences(stand_in):
    return encode(stand_in.tokenizer, stand_in.rows("test")["abstract"], eos=True)


def plain_nll(model: nn.Module, ids: list[int]) -> torch.Tensor:
    """Full logits of one sequence on its own, in double precision."""
    with torch.no_grad():
        logits = model.double()(input_ids=torch.tensor([ids])).logits[0]
    return -logits.log_softmax(-1)[range(len(ids) - 1), ids[1:]]


@pytest.mark.parametrize("tile", [likelihood.TILES["cpu"], (7, 4096), (7, 599), (1024, 1)])
def test_next_token_nll_equals_the_plain_computation(stand_in, sequences, monkeypatch, tile):
    monkeypatch.setitem(likelihood.TILES, "cpu", tile)
    rows = [sequences[0], sequences[1][:2], sequences[2]]
    model = stand_in.base()
    with torch.no_grad():
        found = next_token_nll(model, *padded(rows, model.device))
    assert found.dtype == torch.float32
    expected = torch.cat([plain_nll(model, ids) for ids in rows])
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_next_token_nll_with_an_adapter_on_top(stand_in, sequences):
    model = adapters.load_model(stand_in.experiment, tiny.VARIANT, dtype="float32")
    assert not model.training
    assert "lora_A" in "".join(dict(model.named_parameters()))  # not merged
    with torch.no_grad():
        found = next_token_nll(model, *padded(sequences[:2], model.device))
    expected = torch.cat([plain_nll(model, ids) for ids in sequences[:2]])
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    assert (expected - torch.cat([plain_nll(stand_in.base(), i) for i in sequences[:2]])).std() > 0


TINY = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2}  # fmt: skip


@pytest.mark.parametrize(
    "config",
    [
        Gemma2Config(final_logit_softcapping=0.5, head_dim=16, **TINY),
        CohereConfig(logit_scale=0.3, **TINY),
        GraniteConfig(logits_scaling=4.0, **TINY),
    ],
    ids=lambda config: config.model_type,
)
def test_a_model_that_does_more_than_its_head(config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(50)
        found = next_token_nll(model, *padded([[5, 6, 7, 8], [9, 10]], model.device))
        plain = torch.cat([plain_nll(model, ids) for ids in ([5, 6, 7, 8], [9, 10])])
    torch.testing.assert_close(found.double(), plain, rtol=1e-4, atol=1e-4)


class Largest(TorchDispatchMode):
    """The most numbers of any tensor that is made, views of the head's weight left out."""

    def __init__(self, head: nn.Linear):
        super().__init__()
        self.weight, self.numbers = head.weight.untyped_storage().data_ptr(), 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        made = isinstance(result, torch.Tensor) and result.is_floating_point()
        if made and result.untyped_storage().data_ptr() != self.weight:
            self.numbers = max(self.numbers, result.numel())
        return result


@pytest.mark.parametrize("tile", [(10, 5000), (50, 100)])
def test_logits_never_outgrow_the_tile(monkeypatch, tile):
    monkeypatch.setitem(likelihood.TILES, "cpu", tile)
    config = LlamaConfig(
        vocab_size=1000,
        hidden_size=4,
        intermediate_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
    )
    model = LlamaForCausalLM(config).eval()
    ids, mask = padded([[1] * 200, [2] * 150], model.device)
    with torch.inference_mode(), Largest(model.lm_head) as largest:
        next_token_nll(model, ids, mask)
    # A tile's logits exist; the states of the batch (400 x 4) and its attention are smaller.
    assert largest.numbers == tile[0] * min(tile[1], 1000)


@pytest.mark.parametrize("words", [64, 10_000], ids=["blocks", "whole"])
def test_a_head_that_is_more_than_its_weight(words):
    """Its bias or its adapter counts, in one block or in many."""
    torch.manual_seed(0)
    states, targets = torch.randn(9, 16), torch.randint(600, (9,))
    biased = nn.Linear(16, 600)
    adapted = get_peft_model(nn.Sequential(nn.Linear(16, 600, bias=False)), HEAD).base_model.model[
        0
    ]
    for head in (biased, adapted):
        with torch.no_grad():
            found = likelihood._head_nll(head, states, targets, words)
            expected = -head(states).log_softmax(-1)[range(9), targets]
        torch.testing.assert_close(found, expected)


def test_the_gradient_of_blocks_is_that_of_the_whole():
    torch.manual_seed(0)
    head, targets = nn.Linear(16, 600, bias=False), torch.randint(600, (9,))
    gradients = []
    for words in (64, 10_000):
        states = torch.linspace(-1, 1, 9 * 16).reshape(9, 16).requires_grad_()
        likelihood._head_nll(head, states, targets, words).sum().backward()
        gradients.append(states.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("bound", [1, 50, 300, 10_000])
def test_plan_takes_everything_once_within_its_bound(bound):
    lengths = random.Random(bound).choices(range(1, 120), k=200)
    batches = plan_batches(lengths, bound)
    assert sorted(i for batch in batches for i in batch) == list(range(200))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= bound
    # Not trivially within it: neighbours could not have shared a batch.
    for batch, after in pairwise(batches):
        assert (len(batch) + 1) * max(lengths[i] for i in [*batch, after[0]]) > bound


def test_plan_puts_like_lengths_together():
    assert plan_batches([2, 9, 2, 9, 5], 18) == [[1, 3], [4, 0, 2]]
    assert plan_batches([], 18) == []


def test_padding_is_on_the_right_and_masked():
    ids, mask = padded([[5, 6, 7], [8]], torch.device("cpu"))
    assert ids.tolist()[0] == [5, 6, 7] and ids.tolist()[1][0] == 8
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
