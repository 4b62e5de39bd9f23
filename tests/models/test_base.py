"""Tokenizer, stand-in Llama and its NF4 form, and the device that they run on."""

import json
import re

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from torch import nn

from feyntune.errors import UserError
from feyntune.models import base
from feyntune.models.base import encode, padded
from feyntune.models.likelihood import next_token_nll

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


# --- tokenizer --------------------------------------------------------------------------------


def test_bos_and_eos_exactly_once(tokenizer):
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    plain = [tokenizer.backend_tokenizer.encode(t, add_special_tokens=False).ids for t in TEXTS]
    assert encode(tokenizer, TEXTS, eos=True) == [[bos, *ids, eos] for ids in plain]
    assert encode(tokenizer, TEXTS, eos=False) == [[bos, *ids] for ids in plain]
    assert encode(tokenizer, TEXTS, start=False, eos=False) == plain
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


# --- what stands before an abstract -----------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("bos", ["<|begin_of_text|>"]),
        ("eos", ["<|end_of_text|>"]),
        ("none", []),
        ("<|eot_id|>", ["<|eot_id|>"]),
        ("\n", ["Ċ"]),  # as byte-level tokenizers call a line break
        ("Ċ", ["Ċ"]),
    ],
)
def test_an_abstract_starts_with_what_the_experiment_says(stand_in, start, expected):
    settings = stand_in.experiment
    section = settings.base.model_copy(update={"start": start})
    tokenizer = base.load_tokenizer(settings.model_copy(update={"base": section}))
    before = tokenizer.convert_tokens_to_ids(expected)
    text = TEXTS[0]
    plain = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
    eos = tokenizer.eos_token_id
    assert encode(tokenizer, [text], eos=True) == [[*before, *plain, eos]]
    assert encode(tokenizer, [text], start=False, eos=False) == [plain]


def test_a_special_token_that_texts_start_with_is_refused_inside_and_a_plain_one_is_not(tokenizer):
    texts = ["One <|eot_id|> two", "One\ntwo"]
    starts = [base.find_start(tokenizer, start) for start in ("<|eot_id|>", "\n")]
    try:
        tokenizer.start_ids = starts[0]
        with pytest.raises(UserError, match="special token"):
            encode(tokenizer, texts[:1], eos=False)
        tokenizer.start_ids = starts[1]
        assert encode(tokenizer, texts[1:], eos=False)[0].count(starts[1][0]) == 2
    finally:
        tokenizer.start_ids = [tokenizer.bos_token_id]


@pytest.mark.parametrize("start", ["two words", "", "<|none_such|>"])
def test_a_start_that_is_no_single_token(tokenizer, start):
    with pytest.raises(UserError, match=r"is no single token of the tokenizer \(\d+ tokens\)"):
        base.find_start(tokenizer, start)


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


def test_a_quantised_model_may_be_trained_on_its_device(monkeypatch):
    """accelerate compares the device of a 4-bit model with its own, number included."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    place = base.device()
    assert place == torch.device("cuda", 0)
    monkeypatch.undo()
    accelerator = Accelerator(cpu=True)
    before = accelerator.state.device
    try:
        accelerator.state.device = torch.device("cuda", 0)
        model = nn.Linear(2, 2)
        model.is_loaded_in_4bit, model.hf_device_map = True, {"": place}
        assert accelerator.prepare_model(model, device_placement=False) is model
    finally:
        accelerator.state.device = before


# --- NF4 --------------------------------------------------------------------------------------


def test_every_linear_layer_but_the_head_is_double_quantised_nf4(stand_in):
    model = stand_in.base(quantized=True)
    linear = {
        name.split(".")[-1] + ("" if isinstance(module, Linear4bit) else " (plain)")
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    }
    targets = stand_in.experiment.lora("s1-LoRA-all").target_modules
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
    ids, mask = padded(sequences[:4], model.device)
    with torch.inference_mode():
        first = next_token_nll(model.eval(), ids, mask)
    for name, weight in quantized_weights(model).items():
        assert torch.equal(weight, before[name]), name

    lora = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "down_proj"])
    adapted = get_peft_model(model, lora).train()
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        next_token_nll(adapted, ids, mask).mean().backward()
        optimizer.step()
    with torch.inference_mode():
        trained = next_token_nll(adapted.eval(), ids, mask)
        with adapted.disable_adapter():
            last = next_token_nll(adapted, ids, mask)
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
