"""A GGUF file as a folder of safetensors: the same numbers, and a model that can be quantised."""

import json
import shutil

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from feyntune.errors import UserError
from feyntune.experiment import load
from feyntune.models.base import load_base, load_tokenizer
from feyntune.models.imported import conversion
from feyntune.runs import stages

WIDTH, INNER, HEADS, LAYERS, WORDS = 64, 128, 4, 2, 300
FILE = "tiny.Q4_1.gguf"


def write_gguf(place):
    """A tiny Llama as llama.cpp writes one: four-bit blocks, and its tokenizer inside."""
    writer = gguf.GGUFWriter(place, "llama")
    writer.add_context_length(2048)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(WORDS)
    letters = [chr(c) for c in range(ord("!"), ord("~") + 1)]
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *letters, "Ġ", "th", "the"]
    tokens += [f"w{n}" for n in range(WORDS - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (WORDS - 3))
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    generator = np.random.default_rng(0)

    def add(name, *shape):
        values = generator.normal(0, 0.3, shape).astype(np.float32)
        if len(shape) == 1:
            return writer.add_tensor(name, values + 1)
        kind = gguf.GGMLQuantizationType.Q4_1
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    add("token_embd.weight", WORDS, WIDTH)
    add("output_norm.weight", WIDTH)
    for layer in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{name}.weight", WIDTH, WIDTH)
        for name in ("ffn_gate", "ffn_up"):
            add(f"blk.{layer}.{name}.weight", INNER, WIDTH)
        add(f"blk.{layer}.ffn_down.weight", WIDTH, INNER)
        for name in ("attn_norm", "ffn_norm"):
            add(f"blk.{layer}.{name}.weight", WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return place


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / FILE)


@pytest.fixture
def converting(whole, tmp_path, monkeypatch):
    """An experiment whose base model was fetched as GGUF."""
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path))
    source = {
        **{"origin": "wheel", "id": "Tiny-Q4_1", "package": "tiny", "version": "1.0"},
        **{"file": f"tiny/{FILE}", "bytes": 1, "sha256": "0" * 64},
    }
    made = load.with_settings("smoke", {"fetch": {"base": source}, "base.model": "Tiny-Q4_1"})
    made.unconverted.mkdir(parents=True)
    shutil.copy(whole, made.unconverted)
    return made


def test_the_converted_model_gives_the_same_numbers(converting, whole):
    conversion.make(converting)
    folder = converting.paths.base
    assert sorted(p.suffix for p in folder.glob("*.*") if p.suffix != ".json") == [".safetensors"]
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    read = AutoModelForCausalLM.from_pretrained(
        whole.parent, gguf_file=FILE, dtype=torch.float32
    ).eval()
    theirs = AutoTokenizer.from_pretrained(whole.parent, gguf_file=FILE)
    ours = load_tokenizer(converting)
    model = load_base(converting, dtype="float32").eval()
    text = "the theorem, in 2024"
    ids = ours(text, return_tensors="pt").input_ids
    assert ids.tolist() == theirs(text, return_tensors="pt").input_ids.tolist()
    with torch.no_grad():
        assert torch.equal(model(ids).logits, read(ids).logits)
    assert (ours.bos_token_id, ours.eos_token_id) == (1, 2)


def test_the_converted_model_can_be_quantised(converting):
    conversion.make(converting)
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    model = load_base(converting, dtype="float32", quantization=nf4)
    assert model.is_loaded_in_4bit


def test_a_file_that_was_cut_short(converting):
    file = converting.unconverted / FILE
    file.write_bytes(file.read_bytes()[:-20_000])
    with pytest.raises(UserError) as error:
        conversion.make(converting)
    assert str(error.value).startswith(f"{file} is no whole GGUF file of a model that")
    assert "\n" not in str(error.value)
    assert not converting.paths.base.exists()


def test_it_is_a_stage_before_training_and_evaluation(converting):
    plan = stages.plan(converting)
    names = [str(run) for run in plan]
    assert "converted-base" in names
    assert "stand-in-base" not in names
    converted = stages.run(converting, stages.CONVERTED)
    assert converted.reads == {"gguf": converting.unconverted}
    for name in ("02_finetune-s1-LoRA-all", "03_perplexity-base", "04_completions-base"):
        run = plan[names.index(name)]
        assert converted in run.needs
        assert run.reads["base"] == converting.paths.base
    assert converting.stand_in == "stand-in corpus"
    assert converted not in stages.plan(load.load("smoke"))
