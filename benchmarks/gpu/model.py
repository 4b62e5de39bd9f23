"""A Llama of random weights, made on the device itself, in the form that loading would give it."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.quantizers import AutoHfQuantizer

from feyntune.experiment.schema import Experiment
from feyntune.pipeline import notebooks
from feyntune.runs.stages import FINETUNE

# config.json of meta-llama/Llama-3.1-8B.
LLAMA_8B = {
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}
# Widths are multiples of 64, NF4's block.
TINY = LLAMA_8B | {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
DEVIATION = 0.02  # of the weights, as Llama's are initialised


def config(*, tiny: bool) -> LlamaConfig:
    """Of the 8B model or of one that a processor runs in seconds; BOS and EOS are the last ids."""
    shape = TINY if tiny else LLAMA_8B
    last = shape["vocab_size"] - 1
    return LlamaConfig(**shape, tie_word_embeddings=False, bos_token_id=last - 1, eos_token_id=last)


def tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """One whose words are the token ids themselves, so that a text is a row of numbers."""
    words = Tokenizer(models.WordLevel({str(i): i for i in range(vocabulary)}, unk_token="0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    bos, eos = str(vocabulary - 2), str(vocabulary - 1)
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token=bos, eos_token=eos, pad_token=eos
    )


def nf4(settings: Experiment) -> BitsAndBytesConfig | None:
    """How notebook 02 quantises the base."""
    return notebooks.executed(FINETUNE, "quantization", settings=settings)["nf4"]


def build(
    shape: LlamaConfig,
    *,
    dtype: str,
    quantization: BitsAndBytesConfig | None,
    device: torch.device,
) -> PreTrainedModel:
    """What :func:`feyntune.models.base.load_base` gives, with random weights instead of a file's.

    The model is laid out without memory, then filled one weight after another on the device, and
    each is quantised before the next is made: host memory is not needed, and of the device's no
    more than the result and one layer.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shape, dtype=getattr(torch, dtype))
    quantizer = None
    if quantization:
        quantizer = AutoHfQuantizer.from_config(quantization, pre_quantized=False)
        quantizer.preprocess_model(model=model, device_map={"": device})
    torch.manual_seed(0)
    with torch.no_grad():
        for module in list(model.modules()):
            _fill(module, getattr(torch, dtype), device)
    # Its frequencies are computed, not stored: they are made anew where there is memory.
    with torch.device(device):
        model.model.rotary_emb = type(model.model.rotary_emb)(shape)
    if quantizer:
        model.hf_quantizer = quantizer
        quantizer.postprocess_model(model)
    model.hf_device_map = {"": device}
    return model.eval()


def _fill(module: torch.nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Give a module's own parameters memory and values."""
    for name, empty in list(module.named_parameters(recurse=False)):
        values = torch.empty(empty.shape, dtype=dtype, device=device)
        if empty.ndim == 1:  # of a norm
            filled = torch.nn.Parameter(values.fill_(1))
        elif hasattr(empty, "quant_state"):
            # As transformers does while it reads a file: moving the parameter quantises it.
            state = empty.__dict__
            filled = type(empty)(values.normal_(std=DEVIATION), requires_grad=False, **state)
            filled = filled.to(device)
            # See `load_base`.
            module.support_avx512bf16_for_cpu = False
        else:
            filled = torch.nn.Parameter(values.normal_(std=DEVIATION))
        setattr(module, name, filled)
