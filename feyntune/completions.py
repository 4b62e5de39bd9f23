"""Completing an abstract from its first half: the released prompt split, and generation."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from feyntune.modeling import encode
from feyntune.sections import Completions

SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def split_prompt(abstract: str) -> tuple[str, str]:
    """Split an abstract into prompt and continuation.

    The prompt is the first half of its sentences, rounded up; of an abstract of one sentence, the
    first half of its words, rounded up (released ``utils/processing.py``).
    """
    pieces = SENTENCE_END.split(abstract)
    if len(pieces) == 1:
        pieces = abstract.split()
    half = math.ceil(len(pieces) / 2)
    return " ".join(pieces[:half]), " ".join(pieces[half:])


def generation_config(
    settings: Completions, tokenizer: PreTrainedTokenizerBase
) -> GenerationConfig:
    """Sampling with every setting spelled out rather than left to the model's own file."""
    return GenerationConfig(
        do_sample=True,
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        min_new_tokens=settings.min_new_tokens,
        max_new_tokens=settings.max_new_tokens,
        num_return_sequences=1,
        repetition_penalty=1.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    settings: Completions,
) -> list[list[int]]:
    """Sample one completion per prompt, in batches of prompts of like length.

    Returns
    -------
    list of list of int
        Token ids of the completions alone, without EOS and what follows it.
    """
    set_seed(settings.seed)
    # What a config leaves open, `generate` takes from the model's own, which came with its weights.
    config = model.generation_config = generation_config(settings, tokenizer)
    encoded = encode(tokenizer, prompts, bos=settings.bos, eos=False)
    order = sorted(range(len(encoded)), key=lambda i: (len(encoded[i]), i))
    completions: list[list[int]] = [[] for _ in encoded]
    for start in range(0, len(order), settings.batch_size):
        batch = order[start : start + settings.batch_size]
        ids, mask = _left_padded([encoded[i] for i in batch], tokenizer.pad_token_id, model.device)
        output = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
        for position, row in zip(batch, output[:, ids.shape[1] :].tolist(), strict=True):
            completions[position] = until(row, tokenizer.eos_token_id)
    return completions


def _left_padded(
    sequences: Sequence[Sequence[int]], pad: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask, both (rows, longest), every prompt ending in the last column."""
    longest = max(map(len, sequences))
    ids = [[pad] * (longest - len(sequence)) + list(sequence) for sequence in sequences]
    mask = [[0] * (longest - len(sequence)) + [1] * len(sequence) for sequence in sequences]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def until(ids: Sequence[int], end: int) -> list[int]:
    """The ids before the first ``end``."""
    ids = list(ids)
    return ids[: ids.index(end)] if end in ids else ids
