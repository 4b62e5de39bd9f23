"""Tiny random models of other shapes than the stand-in's, with tokenizers like those of the Hub."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    set_seed,
)

from feyntune.experiment import load
from feyntune.experiment.schema import Experiment

TEXT, CHAT, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SIZES = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 2048, "initializer_range": 0.2,
}  # fmt: skip
LLAMA = {
    "LoRA-all": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "LoRA-QKV": ["q_proj", "k_proj", "v_proj"],
}
NEOX = {
    "LoRA-all": ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"],
    "LoRA-QKV": ["query_key_value"],
}


@dataclass(frozen=True)
class Shape:
    """A kind of base model.

    Attributes
    ----------
    bos, eos
        Of the tokenizer, as text; ``adds_bos``: by its own post-processor.
    start
        The setting ``base.start``, and ``before``: the token that it stands for.
    ends
        Of the model's generation file, beside ``eos``.
    """

    config: type[PretrainedConfig]
    more: dict[str, Any]
    bos: str | None
    eos: str
    start: str
    before: str | None
    adds_bos: bool = False
    ends: tuple[str, ...] = ()
    targets: dict[str, list[str]] = field(default_factory=lambda: LLAMA)
    quantised: bool = True


SHAPES = {
    "llama": Shape(
        LlamaConfig, {"num_key_value_heads": 4}, CHAT, TEXT, "bos", CHAT, adds_bos=True
    ),
    "mistral": Shape(
        MistralConfig, {"num_key_value_heads": 2, "sliding_window": 9}, CHAT, TEXT, "bos", CHAT,
        adds_bos=True, quantised=False,
    ),
    "qwen2": Shape(
        Qwen2Config, {"num_key_value_heads": 2, "tie_word_embeddings": True}, None, TEXT, "eos",
        TEXT,
    ),
    "qwen3": Shape(
        Qwen3Config, {"num_key_value_heads": 2, "head_dim": 32}, None, END, CHAT, CHAT,
        ends=(TEXT,),
    ),
    "smollm2": Shape(
        LlamaConfig, {"num_key_value_heads": 2, "tie_word_embeddings": True}, CHAT, END, "none",
        None,
    ),
    "gpt_neox": Shape(
        GPTNeoXConfig, {"rotary_pct": 0.25, "use_parallel_residual": True}, TEXT, TEXT, "eos",
        TEXT, targets=NEOX,
    ),
}  # fmt: skip


def tokenizer(shape: Shape, texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE of 400 tokens; padding is EOS."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=[TEXT, CHAT, END], initial_alphabet=alphabet,
            show_progress=False,
        ),
    )  # fmt: skip
    if shape.adds_bos:
        made.post_processor = processors.TemplateProcessing(
            single=f"{shape.bos} $A", special_tokens=[(shape.bos, made.token_to_id(shape.bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=shape.bos, eos_token=shape.eos, pad_token=shape.eos
    )


def make(shape: Shape, texts: list[str], folder: Path) -> Path:
    """Model and tokenizer as one folder, as a Hub repository has them."""
    words = tokenizer(shape, texts)
    # Qwen's configuration names a BOS though its tokenizer has none.
    ids = {"bos_token_id": words.convert_tokens_to_ids(TEXT if shape.bos is None else shape.bos)}
    ids["eos_token_id"] = words.eos_token_id
    set_seed(0)
    model = AutoModelForCausalLM.from_config(
        shape.config(vocab_size=len(words) + 24, **SIZES, **shape.more, **ids)
    )
    if shape.ends:
        others = words.convert_tokens_to_ids(list(shape.ends))
        model.generation_config.eos_token_id = [words.eos_token_id, *others]
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def experiment(shape: Shape, folder: Path, **more: Any) -> Experiment:
    """`smoke` with such a model as base; ``base__start="eos"`` changes one of its settings."""
    quantization = {"type": "nf4", "double": True, "compute_dtype": "float32"}
    overrides = {
        "base.model": str(folder),
        "base.start": shape.start,
        "base.quantization": quantization if shape.quantised else None,
        "flavours": {name: {"target_modules": names} for name, names in shape.targets.items()},
        "training.per_device_train_batch_size": 4,
        "training.num_train_epochs": 1,
        "training.evaluations": 2,
        "training.learning_rate": 1.0e-2,
        "completions.max_new_tokens": 8,
    }
    overrides |= {key.replace("__", "."): value for key, value in more.items()}
    return load.with_settings("smoke", overrides)
