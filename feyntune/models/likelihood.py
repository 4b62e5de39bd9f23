"""The likelihood engine: negative log-likelihood of every token, and batches of like length."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

# Logits held at a time, as positions by words of the vocabulary. A processor is fastest while they
# stay in its cache (4 MB in float32). A GPU wants large products: there a tile and the copies that
# its logarithm needs are a third of a GB, of the half that 1,024 positions x 128,256 words take.
TILES = {"cpu": (256, 4096), "cuda": (1024, 32_768)}
# Names in configurations of what some models do to the logits after the head (Gemma 2, Cohere,
# Falcon-H1, Granite): there the head alone is not enough.
AFTER_HEAD = (
    "final_logit_softcapping",
    "logit_scale",
    "output_multiplier",
    "lm_head_multiplier",
    "logits_scaling",
)


def next_token_nll(model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of every real token but the first of each row, in float32.

    The head is applied to real positions alone and to a tile of them at a time, so that the
    logits of a whole batch never exist at once; of a model that is more than layers and head, the
    logits are its own.

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
    scored = mask[:, 1:].bool()
    targets = ids[:, 1:][scored]
    if not ends_with_head(causal):
        logits = causal(input_ids=ids, use_cache=False).logits[:, :-1][scored]
        return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
    hidden = causal.base_model(input_ids=ids, use_cache=False).last_hidden_state
    states = hidden[:, :-1][scored]
    positions, words = TILES.get(states.device.type, TILES["cuda"])
    head = causal.get_output_embeddings()
    tiles = zip(states.split(positions), targets.split(positions), strict=True)
    return torch.cat([_head_nll(head, *tile, words) for tile in tiles])


def ends_with_head(causal: PreTrainedModel) -> bool:
    """Whether a model's logits are its head applied to its last hidden layer, and no more."""
    text = causal.config.get_text_config(decoder=True)
    plain = all(getattr(text, name, None) in (None, 1) for name in AFTER_HEAD)
    apart = causal.base_model is not causal and causal.get_output_embeddings() is not None
    return plain and apart


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


def plan_batches(lengths: Sequence[int], tokens_per_batch: int) -> list[list[int]]:
    """Group sequences of like length into batches of bounded size, the longest first.

    Parameters
    ----------
    lengths
        Tokens of each sequence.
    tokens_per_batch
        Bound on rows times the longest row; a longer sequence is a batch by itself.

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
