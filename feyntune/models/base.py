"""Tokenizer and base model, as the paper uses them, and the device that they run on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate.utils.memory import should_reduce_batch_size
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from feyntune.errors import UserError
from feyntune.experiment.schema import Experiment
from feyntune.experiment.sections import StandInBase


def load_tokenizer(experiment: Experiment) -> PreTrainedTokenizerBase:
    """The base model's tokenizer; padding is the EOS token, as in the paper.

    Nothing tells padding from EOS by its id: masks and labels come from the lengths of abstracts.
    Its attribute ``start_ids`` holds what ``base.start`` puts before every abstract.
    """
    tokenizer = AutoTokenizer.from_pretrained(
        experiment.base_source, revision=experiment.base.revision
    )
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.start_ids = find_start(tokenizer, experiment.base.start)
    return tokenizer


def find_start(tokenizer: PreTrainedTokenizerBase, start: str) -> list[int]:
    """The token that ``base.start`` puts before every abstract, as a list; empty for ``none``.

    Raises
    ------
    UserError
        If the tokenizer has no such token.
    """
    if start == "none":
        return []
    if start in ("bos", "eos"):
        token = getattr(tokenizer, f"{start}_token_id")
        if token is None:
            raise UserError(
                f"base.start is {start}, but the tokenizer has no {start.upper()}: set base.start "
                "to bos, eos or none, or to the text of one token of its vocabulary."
            )
        return [token]
    ids = tokenizer(start, add_special_tokens=False)["input_ids"]
    known = len(ids) == 1 and ids[0] != tokenizer.unk_token_id
    found = ids[0] if known else tokenizer.get_vocab().get(start)
    if found is None:
        raise UserError(
            f"base.start is {start!r}, which is no single token of the tokenizer ({len(ids)} "
            "tokens): set it to bos, eos or none, or to the text of one token."
        )
    return [found]


def start_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What stands before every abstract: of a tokenizer from elsewhere, its BOS."""
    return getattr(tokenizer, "start_ids", [tokenizer.bos_token_id])


def ends_of_text(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> list[int]:
    """Tokens at which a model's completion ends: the tokenizer's EOS first, and its own."""
    own = model.generation_config.eos_token_id
    own = own if isinstance(own, list) else [own]
    return [token for token in dict.fromkeys([tokenizer.eos_token_id, *own]) if token is not None]


def compare_special_tokens(
    tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig
) -> tuple[bool, str]:
    """Whether EOS of a tokenizer, and BOS where it is used, are those of a model; what both are.

    A model whose configuration names none fits every tokenizer.
    """
    bos, eos = config.bos_token_id, config.eos_token_id
    ends = eos if isinstance(eos, list) else [eos]
    used = start_ids(tokenizer) == [tokenizer.bos_token_id]
    same = not used or bos in (None, tokenizer.bos_token_id)
    same = same and (eos is None or tokenizer.eos_token_id in ends)
    own = f"tokenizer {tokenizer.bos_token_id} and {tokenizer.eos_token_id}"
    return same, f"{own}, model {bos} and {ends}"


def check_special_tokens(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> None:
    """Raise a UserError if a tokenizer's BOS or EOS are not those of the model."""
    same, found = compare_special_tokens(tokenizer, config)
    if not same:
        raise UserError(f"BOS and EOS differ ({found}): this tokenizer is another model's.")


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, start: bool = True, eos: bool
) -> list[list[int]]:
    """Token ids of whole texts, with start and EOS exactly once each where they are asked for.

    The start is that of ``base.start``, see :func:`load_tokenizer`. The tokenizer's own rules for
    special tokens changed between versions of its library (and TRL's with them), so they are not
    used. Nothing is truncated.

    Raises
    ------
    UserError
        If a text itself contains BOS, EOS or another special token that texts start with, or the
        tokenizer has no EOS where it is asked for.
    """
    before = start_ids(tokenizer)
    added = tokenizer.added_tokens_decoder
    special = {token for token in before if token in added and added[token].special}
    special |= {tokenizer.bos_token_id, tokenizer.eos_token_id}
    if eos and tokenizer.eos_token_id is None:
        raise UserError("The tokenizer has no EOS, the end of every abstract in training.")
    sequences = []
    for text, ids in zip(
        texts, tokenizer(list(texts), add_special_tokens=False)["input_ids"], strict=True
    ):
        if special & set(ids):
            raise UserError(f"A text contains a special token of the model: {text[:80]!r}.")
        sequences.append(before * start + ids + [tokenizer.eos_token_id] * eos)
    return sequences


def padded(
    sequences: Sequence[Sequence[int]], device: torch.device | str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids and attention mask, both (rows, longest)."""
    rows = [torch.tensor(sequence) for sequence in sequences]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    return ids.to(device), mask.to(device)


def device() -> torch.device:
    """The first GPU that this process may use, else the CPU.

    The GPU has its number: on a device without one, accelerate refuses to train a 4-bit model.
    """
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def out_of_memory(error: Exception) -> bool:
    """Whether an exception says that a device has no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)


def stand_in_configuration(settings: StandInBase, **special: int) -> LlamaConfig:
    """The stand-in's architecture, with or without what its tokenizer says."""
    return LlamaConfig(
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.attention_heads,
        num_key_value_heads=settings.key_value_heads,
        max_position_embeddings=settings.max_positions,
        rope_parameters={"rope_type": "default", "rope_theta": settings.rope_theta},
        hidden_act="silu",
        rms_norm_eps=settings.norm_epsilon,
        initializer_range=settings.initializer_range,
        attention_dropout=0.0,
        tie_word_embeddings=False,
        **special,
    )


def load_base(
    experiment: Experiment,
    *,
    dtype: str,
    quantization: BitsAndBytesConfig | None = None,
) -> PreTrainedModel:
    """Load the base model onto :func:`device`, quantised or not.

    Parameters
    ----------
    dtype
        Type of the weights that are not quantised: ``float32``, ``bfloat16`` or ``float16``.
    quantization
        How the linear layers are stored, as notebook 02 says; ``None`` for unquantised ones.
    """
    options = {"quantization_config": quantization} if quantization else {}
    model = AutoModelForCausalLM.from_pretrained(
        experiment.base_source,
        revision=experiment.base.revision,
        dtype=getattr(torch, dtype),
        device_map={"": device()},
        **options,
    )
    for module in model.modules():
        # On processors with AVX512-BF16, bitsandbytes repacks the weights at the first evaluation
        # and rounds their scales: another model from then on, and another on every processor.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def trainable_parameters(model: torch.nn.Module) -> int:
    """Number of parameters that training changes."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def parameters(model: torch.nn.Module) -> int:
    """Number of parameters; a quantised weight counts as the numbers that it stands for."""
    return sum(
        p.quant_state.shape.numel() if getattr(p, "quant_state", None) is not None else p.numel()
        for p in model.parameters()
    )
