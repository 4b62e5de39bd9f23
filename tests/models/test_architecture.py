"""What a configuration says: targets of LoRA, context; and arguments of LoraConfig."""

import math

import pytest
from transformers import BloomConfig, GPT2Config, GPTNeoXConfig, LlamaConfig, MptConfig, Qwen3Config

from feyntune.errors import UserError
from feyntune.models.architecture import check_lora_arguments, context_length, missing_modules

SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
         "num_attention_heads": 4, "vocab_size": 300}  # fmt: skip
LLAMA = LlamaConfig(**SMALL)
NEOX = GPTNeoXConfig(**SMALL)
GPT2 = GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=300)
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
FUSED = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]


@pytest.mark.parametrize(
    ("config", "targets", "missing", "there"),
    [
        (LLAMA, SEVEN, [], SEVEN),
        (Qwen3Config(**SMALL), SEVEN, [], SEVEN),
        (NEOX, SEVEN, SEVEN, FUSED),
        (NEOX, FUSED, [], FUSED),
        (LLAMA, ["q_proj", "qproj"], ["qproj"], SEVEN),
        (LLAMA, {"self_attn.q_proj"}, [], SEVEN),
        (LLAMA, ["self_attn"], ["self_attn"], SEVEN),  # no layer that LoRA can be put on
        (LLAMA, ["proj"], ["proj"], SEVEN),  # a whole part of a name, not some of its letters
        (LLAMA, ["lm_head", "embed_tokens"], ["lm_head"], SEVEN),
        (LLAMA, r".*\.[qv]_proj", [], SEVEN),
        (LLAMA, r"[qv]_proj", [r"[qv]_proj"], SEVEN),  # for the whole name
        (LLAMA, "all-linear", [], SEVEN),
        (GPT2, ["c_attn"], [], ["c_attn", "c_proj", "c_fc"]),
        (GPT2, None, [], ["c_attn", "c_proj", "c_fc"]),
    ],
)
def test_missing_modules_in_every_form_of_peft(config, targets, missing, there):
    assert missing_modules(config, targets) == (missing, there)


def test_context_length():
    assert context_length(LlamaConfig(max_position_embeddings=128)) == 128
    assert context_length(GPT2) == 1024
    assert context_length(MptConfig(max_seq_len=99)) == 99
    assert context_length(BloomConfig()) == math.inf


@pytest.mark.parametrize(
    "arguments",
    [
        {"r": 8, "target_modules": SEVEN, "use_dora": True},
        {"init_lora_weights": True},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": False},
        {"bias": "none", "lora_bias": True, "rank_pattern": {"q_proj": 2}},
    ],
)
def test_arguments_of_lora_config_that_may_be_used(arguments):
    check_lora_arguments(arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"lora_alhpa": 8}, r"argument of LoraConfig 'lora_alhpa'. Did you mean 'lora_alpha'"),
        ({"init_lora_weights": "pissa_niter_16"}, "pissa_niter_16 changes the base model's own"),
        ({"init_lora_weights": "olora"}, "changes the base"),
        ({"init_lora_weights": "loftq"}, "changes the base"),
        ({"init_lora_weights": "corda"}, "changes the base"),
        ({"init_lora_weights": "eva"}, "not computed here"),
        ({"init_lora_weights": "orthogonal"}, "orthogonal is not supported: use true, false or"),
        ({"init_lora_weights": "gausian"}, "gausian is not supported"),
        ({"bias": "all"}, "bias: all trains the base model's own weights"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is not supported: r, lora_alpha"),
    ],
)
def test_arguments_of_lora_config_that_may_not(arguments, said):
    with pytest.raises(UserError, match=said) as error:
        check_lora_arguments(arguments)
    assert "\n" not in str(error.value)
