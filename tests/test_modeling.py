"""Tokenizer, stand-in Llama and its NF4 form, and the negative log-likelihood engine."""

import json
import re

import numpy as np
import pytest
import tiny
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

from feyntune.errors import UserError
from feyntune.models import adapters, base
from feyntune.models.base import encode

TEXTS = [
    "We study $N=4$ super-Yang–Mills theory; it's finite, isn't it?",
    "  leading blanks, a\ttab,\n a line break and 1234567 digits ",
    "Schrödinger, 弦理論, and \\alpha'^{2} \N{RIGHTWARDS ARROW} 0",
    "x",
]
SPECIAL = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
]
# The 16 values of a 4-bit NormalFloat (QLoRA, appendix E).
NF4 = np.array(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
        -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
        0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
        0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ]
)  # fmt: skip


HEAD = LoraConfig(target_modules=["0"], init_lora_weights=False)


@pytest.fixture(scope="module")
def tokenizer(stand_in):
    return stand_in.tokenizer


@pytest.fixture(scope="module")
def sequences(stand_in, tokenizer):
    return encode(tokenizer, stand_in.rows("test")["abstract"], eos=True)


def quantized_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: dequantize_4bit(module.weight.data, module.weight.quant_state).clone()
        for name, module in model.named_modules()
        if isinstance(module, Linear4bit)
    }


def plain_nll(model: nn.Module, ids: list[int]) -> torch.Tensor:
    """Full logits of one sequence on its own, in double precision."""
    with torch.no_grad():
        logits = model.double()(input_ids=torch.tensor([ids])).logits[0]
    return -logits.log_softmax(-1)[range(len(ids) - 1), ids[1:]]


# --- tokenizer --------------------------------------------------------------------------------


def test_bos_and_eos_exactly_once(tokenizer):
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    plain = [tokenizer.backend_tokenizer.encode(t, add_special_tokens=False).ids for t in TEXTS]
    assert encode(tokenizer, TEXTS, eos=True) == [[bos, *ids, eos] for ids in plain]
    assert encode(tokenizer, TEXTS, eos=False) == [[bos, *ids] for ids in plain]
    assert encode(tokenizer, TEXTS, bos=False, eos=False) == plain
    assert not any({bos, eos} & set(ids) for ids in plain)


def test_texts_survive_the_round_trip(stand_in, tokenizer):
    texts = [*TEXTS, *stand_in.rows("test")["abstract"]]
    for text, ids in zip(texts, encode(tokenizer, texts, eos=True), strict=True):
        assert tokenizer.decode(ids[1:-1]) == text
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_special_tokens_come_after_the_vocabulary(stand_in, tokenizer):
    size = stand_in.experiment.base.stand_in.vocabulary
    assert len(tokenizer) == size
    assert tokenizer.convert_tokens_to_ids(SPECIAL) == list(range(size - 5, size))
    assert (tokenizer.bos_token, tokenizer.eos_token) == (SPECIAL[0], SPECIAL[1])
    assert tokenizer.pad_token_id == tokenizer.eos_token_id


def test_words_are_cut_as_llama_3_cuts_them(tokenizer):
    words = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size) if i < len(tokenizer) - 5]
    assert any(re.fullmatch(" [a-z]{4,}", word) for word in words)
    assert not any(re.search(r"\d{4}|\d[a-z]|[a-z]\d|[a-z] [a-z]", word) for word in words)
    digits = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("in 1234567")
    assert [word for word, _ in digits] == ["in", "Ġ", "123", "456", "7"]


@pytest.mark.parametrize("special", SPECIAL[:2])
def test_a_special_token_inside_a_text_is_refused(tokenizer, special):
    with pytest.raises(UserError, match="special token"):
        encode(tokenizer, ["harmless", f"An abstract {special} with a token."], eos=True)


def test_chat_template(tokenizer):
    messages = [{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


# --- base model -------------------------------------------------------------------------------


def test_architecture_is_llama_3s(stand_in):
    model, settings = stand_in.base(), stand_in.experiment.base.stand_in
    attention = model.model.layers[0].self_attn
    head = settings.hidden_size // settings.attention_heads
    assert attention.q_proj.out_features == settings.attention_heads * head
    assert attention.k_proj.out_features == attention.v_proj.out_features
    assert attention.k_proj.out_features == settings.key_value_heads * head
    assert settings.key_value_heads < settings.attention_heads  # grouped queries
    assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)  # untied
    assert model.config.rope_parameters["rope_theta"] == settings.rope_theta


def test_positions_are_rotary(stand_in, sequences):
    """Only the distance of two tokens counts, and it does count."""
    model, ids = stand_in.base().double(), torch.tensor([sequences[0][:40]])
    positions = torch.arange(40)[None]
    with torch.no_grad():
        here, shifted, stretched = (
            model(input_ids=ids, position_ids=p).logits
            for p in (positions, positions + 100, positions * 3)
        )
    torch.testing.assert_close(here, shifted, atol=1e-4, rtol=0)
    assert (here - stretched).abs().max() > 0.01


def test_the_base_is_safetensors_alone_on_disk(stand_in):
    folder = stand_in.experiment.paths.base
    assert {f.suffix for f in folder.iterdir()} <= {".safetensors", ".json", ".jinja"}
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert {"lm_head.weight", "model.embed_tokens.weight"} <= set(file.keys())
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llama"


# --- NF4 --------------------------------------------------------------------------------------


def test_every_linear_layer_but_the_head_is_double_quantised_nf4(stand_in):
    model = stand_in.base(quantized=True)
    linear = {
        name.split(".")[-1] + ("" if isinstance(module, Linear4bit) else " (plain)")
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    }
    targets = stand_in.experiment.training.lora.targets["LoRA-all"]
    assert linear == {*targets, "lm_head (plain)"}
    for module in model.modules():
        if isinstance(module, Linear4bit):
            assert module.weight.dtype == torch.uint8
            assert module.weight.quant_state.quant_type == "nf4"
            assert module.weight.quant_state.nested
            assert module.weight.quant_state.blocksize == 64
            assert module.compute_dtype == torch.float32


def test_quantised_weights_are_the_nearest_normal_floats(stand_in):
    plain = stand_in.base()
    for name, found in quantized_weights(stand_in.base(quantized=True)).items():
        blocks = plain.get_submodule(name).weight.detach().double().numpy().reshape(-1, 64)
        scale = abs(blocks).max(axis=1, keepdims=True)
        nearest = NF4[abs(blocks[..., None] / scale[..., None] - NF4).argmin(-1)] * scale
        # The scales themselves are rounded to 8 bits.
        off = abs(found.double().numpy().reshape(-1, 64) - nearest) / scale
        assert np.quantile(off, 0.99) < 0.03, name
        assert (found.reshape(-1).numpy() != blocks.reshape(-1)).mean() > 0.9


def test_neither_evaluation_nor_training_moves_the_quantised_weights(stand_in, sequences):
    """On AVX512-BF16 processors bitsandbytes would repack and round them at an evaluation."""
    model = stand_in.base(quantized=True)
    before = quantized_weights(model)
    ids, mask = base.padded(sequences[:4], model.device)
    with torch.inference_mode():
        first = base.next_token_nll(model.eval(), ids, mask)
    for name, weight in quantized_weights(model).items():
        assert torch.equal(weight, before[name]), name

    lora = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "down_proj"])
    adapted = get_peft_model(model, lora).train()
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        base.next_token_nll(adapted, ids, mask).mean().backward()
        optimizer.step()
    with torch.inference_mode():
        trained = base.next_token_nll(adapted.eval(), ids, mask)
        with adapted.disable_adapter():
            last = base.next_token_nll(adapted, ids, mask)
    after = quantized_weights(adapted)
    assert len(after) == len(before)
    for name, weight in after.items():
        short = name.removeprefix("base_model.model.").removesuffix(".base_layer")
        assert torch.equal(weight, before[short]), name
    assert (trained - first).abs().max() > 0.01
    assert torch.equal(first, last)


def test_parameters_counts_a_quantised_weight_as_what_it_stands_for(stand_in):
    s = stand_in.experiment.base.stand_in
    keys = s.hidden_size * s.key_value_heads // s.attention_heads
    layer = 2 * s.hidden_size**2 + 2 * s.hidden_size * keys
    layer += 3 * s.hidden_size * s.intermediate_size + 2 * s.hidden_size
    expected = 2 * s.vocabulary * s.hidden_size + s.layers * layer + s.hidden_size
    quantized = stand_in.base(quantized=True)
    assert base.parameters(stand_in.base()) == expected
    assert base.parameters(quantized) == expected
    assert sum(p.numel() for p in quantized.parameters()) < expected  # two weights a byte


# --- the engine -------------------------------------------------------------------------------


@pytest.mark.parametrize("tile", [base.TILES["cpu"], (7, 4096), (7, 599), (1024, 1)])
def test_next_token_nll_equals_the_plain_computation(stand_in, sequences, monkeypatch, tile):
    monkeypatch.setitem(base.TILES, "cpu", tile)
    rows = [sequences[0], sequences[1][:2], sequences[2]]
    model = stand_in.base()
    with torch.no_grad():
        found = base.next_token_nll(model, *base.padded(rows, model.device))
    assert found.dtype == torch.float32
    expected = torch.cat([plain_nll(model, ids) for ids in rows])
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_next_token_nll_with_an_adapter_on_top(stand_in, sequences):
    model = adapters.load_model(stand_in.experiment, tiny.VARIANT, dtype="float32")
    assert not model.training
    assert "lora_A" in "".join(dict(model.named_parameters()))  # not merged
    with torch.no_grad():
        found = base.next_token_nll(model, *base.padded(sequences[:2], model.device))
    expected = torch.cat([plain_nll(model, ids) for ids in sequences[:2]])
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    assert (expected - torch.cat([plain_nll(stand_in.base(), i) for i in sequences[:2]])).std() > 0


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
    monkeypatch.setitem(base.TILES, "cpu", tile)
    config = LlamaConfig(
        vocab_size=1000,
        hidden_size=4,
        intermediate_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
    )
    model = LlamaForCausalLM(config).eval()
    ids, mask = base.padded([[1] * 200, [2] * 150], model.device)
    with torch.inference_mode(), Largest(model.lm_head) as largest:
        base.next_token_nll(model, ids, mask)
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
            found = base._head_nll(head, states, targets, words)
            expected = -head(states).log_softmax(-1)[range(9), targets]
        torch.testing.assert_close(found, expected)


def test_the_gradient_of_blocks_is_that_of_the_whole():
    torch.manual_seed(0)
    head, targets = nn.Linear(16, 600, bias=False), torch.randint(600, (9,))
    gradients = []
    for words in (64, 10_000):
        states = torch.linspace(-1, 1, 9 * 16).reshape(9, 16).requires_grad_()
        base._head_nll(head, states, targets, words).sum().backward()
        gradients.append(states.grad)
    torch.testing.assert_close(*gradients)


def test_padding_is_on_the_right_and_masked():
    ids, mask = base.padded([[5, 6, 7], [8]], torch.device("cpu"))
    assert ids.tolist()[0] == [5, 6, 7] and ids.tolist()[1][0] == 8
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
