"""Tokenizer and base model, as the paper uses them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from feyntune.errors import UserError
from feyntune.experiment.schema import Experiment
from feyntune.experiment.sections import Quantization
from feyntune.pipeline import gpus

# Logits held at a time, as positions by words of the vocabulary. A processor is fastest while they
# stay in its cache (4 MB in float32). A GPU wants large products: there a tile and the copies that
# its logarithm needs are a third of a GB, of the half that 1,024 positions x 128,256 words take.
TILES = {"cpu": (256, 4096), "cuda": (1024, 32_768)}


def load_tokenizer(experiment: Experiment) -> PreTrainedTokenizerBase:
    """The base model's tokenizer; padding is the EOS token, as in the paper."""
    tokenizer = AutoTokenizer.from_pretrained(
        experiment.base_source, revision=experiment.base.revision
    )
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def special_tokens(
    tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig
) -> tuple[bool, str]:
    """Whether BOS and EOS of a tokenizer are those that a model knows, and what both are.

    A model whose configuration names none contradicts no tokenizer.
    """
    bos, eos = config.bos_token_id, config.eos_token_id
    ends = eos if isinstance(eos, list) else [eos]
    same = bos in (None, tokenizer.bos_token_id) and (eos is None or tokenizer.eos_token_id in ends)
    own = f"tokenizer {tokenizer.bos_token_id} and {tokenizer.eos_token_id}"
    return same, f"{own}, model {bos} and {ends}"


def refuse_strange(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> None:
    """Raise a UserError if a tokenizer's BOS or EOS are not those of the model."""
    same, found = special_tokens(tokenizer, config)
    if not same:
        raise UserError(f"BOS and EOS differ ({found}): this tokenizer is another model's.")


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, bos: bool = True, eos: bool
) -> list[list[int]]:
    """Token ids of whole texts, with BOS and EOS exactly once each where they are asked for.

    The tokenizer's own rules for special tokens changed between versions of its library (and
    TRL's with them), so they are not used. Nothing is truncated.

    Raises
    ------
    UserError
        If a text itself contains BOS or EOS.
    """
    special = {tokenizer.bos_token_id, tokenizer.eos_token_id}
    sequences = []
    for text, ids in zip(
        texts, tokenizer(list(texts), add_special_tokens=False)["input_ids"], strict=True
    ):
        if special & set(ids):
            raise UserError(f"A text contains a special token of the model: {text[:80]!r}.")
        sequences.append([tokenizer.bos_token_id] * bos + ids + [tokenizer.eos_token_id] * eos)
    return sequences


def device() -> torch.device:
    """This process's GPU if there is one, else the CPU.

    The GPU has its number: on a device without one, accelerate refuses to train a 4-bit model.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", gpus.own_gpu())


def quantization_config(settings: Quantization) -> BitsAndBytesConfig:
    """NF4 for bitsandbytes; the block size of 64 is its only one for LoRA training."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=settings.type,
        bnb_4bit_use_double_quant=settings.double,
        bnb_4bit_compute_dtype=getattr(torch, settings.compute_dtype),
    )


def load_base(
    experiment: Experiment,
    *,
    dtype: str,
    quantization: Quantization | None = None,
    on: str | torch.device | None = None,
) -> PreTrainedModel:
    """Load the base model onto this machine's device, quantised or not.

    Parameters
    ----------
    dtype
        Of the weights that are not quantised: ``float32``, ``bfloat16`` or ``float16``.
    on
        Another device than :func:`device` says.
    """
    options = {"quantization_config": quantization_config(quantization)} if quantization else {}
    model = AutoModelForCausalLM.from_pretrained(
        experiment.base_source,
        revision=experiment.base.revision,
        dtype=getattr(torch, dtype),
        device_map={"": on or device()},
        **options,
    )
    for module in model.modules():
        # On processors with AVX512-BF16, bitsandbytes repacks the weights at the first evaluation
        # and rounds their scales: another model from then on, and another on every processor.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def next_token_nll(model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of every real token but the first of each row, in float32.

    The head is applied to real positions alone and to a tile of them at a time, so that the
    logits of a whole batch never exist at once.

    Right padding needs no attention mask: causal attention looks back only, and behind a real
    token all are real. Without one, attention takes its fastest kernel.

    Parameters
    ----------
    model
        A causal language model, with or without adapters on it.
    ids, mask
        Right-padded token ids and attention mask, both (rows, longest).

    Returns
    -------
    torch.Tensor
        Nats, (real tokens - rows,), row after row.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = causal.model(input_ids=ids, use_cache=False).last_hidden_state
    scored = mask[:, 1:].bool()
    states, targets = hidden[:, :-1][scored], ids[:, 1:][scored]
    positions, words = TILES.get(states.device.type, TILES["cuda"])
    tiles = zip(states.split(positions), targets.split(positions), strict=True)
    return torch.cat([_head_nll(causal.lm_head, *tile, words) for tile in tiles])


def _head_nll(
    head: torch.nn.Module, states: torch.Tensor, targets: torch.Tensor, words: int
) -> torch.Tensor:
    """Negative log-likelihood of ``targets`` (n,) after ``states`` (n, hidden), in float32.

    A vocabulary of more than ``words`` is taken a block at a time: the logarithm of the sum over
    all words is that of the sums over blocks, and of the rest only the target's logit is needed.
    """
    # A head with a bias, or with an adapter on it, is more than its weight.
    plain = type(head) is torch.nn.Linear and head.bias is None
    if not plain or len(head.weight) <= words:
        return torch.nn.functional.cross_entropy(head(states).float(), targets, reduction="none")
    blocks = [(states @ part.T).float().logsumexp(-1) for part in head.weight.split(words)]
    logits = (states.float() * head.weight[targets].float()).sum(-1)
    return torch.stack(blocks).logsumexp(0) - logits


def plan(lengths: Sequence[int], tokens_per_batch: int) -> list[list[int]]:
    """Group sequences of like length into batches of bounded size, the longest first.

    Parameters
    ----------
    lengths
        Tokens of each sequence.
    tokens_per_batch
        Bound on rows times the longest row; a longer sequence is a batch of its own.

    Returns
    -------
    list of list of int
        Positions in ``lengths``, every one exactly once.
    """
    batches: list[list[int]] = []
    for position in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        longest = lengths[batches[-1][0]] if batches else 0
        if batches and longest * (len(batches[-1]) + 1) <= tokens_per_batch:
            batches[-1].append(position)
        else:
            batches.append([position])
    return batches


def padded(
    sequences: Sequence[Sequence[int]], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids and attention mask, both (rows, longest)."""
    rows = [torch.tensor(sequence) for sequence in sequences]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    return ids.to(device), mask.to(device)


def trainable_parameters(model: torch.nn.Module) -> int:
    """Number of parameters that training changes."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def parameters(model: torch.nn.Module) -> int:
    """Number of parameters, a quantised weight counted as the numbers that it stands for."""
    return sum(
        p.quant_state.shape.numel() if getattr(p, "quant_state", None) is not None else p.numel()
        for p in model.parameters()
    )
