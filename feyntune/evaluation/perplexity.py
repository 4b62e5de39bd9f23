"""Perplexity: the negative log-likelihood of whole abstracts under a model.

Defined once: exp of the mean next-token negative log-likelihood of one abstract, BOS given, EOS
not scored. The headline is the mean over abstracts, as in the released script.

In place of BOS stands what ``base.start`` says. Where that is nothing, the first token of an
abstract has no context and is not scored: all sums and means are over its other tokens, and a
perplexity is conditional on the first one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from feyntune.errors import UserError
from feyntune.models.architecture import context_length
from feyntune.models.base import check_special_tokens, encode, padded
from feyntune.models.likelihood import next_token_nll, plan_batches


@torch.inference_mode()
def token_nll(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]], batches: Sequence[Sequence[int]]
) -> list[np.ndarray]:
    """Negative log-likelihood of every token but the first of each sequence.

    Parameters
    ----------
    model
        A causal language model, with or without adapters on it.
    sequences
        Token ids, the start first.
    batches
        Positions in ``sequences``, each exactly once, as
        :func:`feyntune.models.likelihood.plan_batches` gives them.

    Returns
    -------
    list of np.ndarray
        For a sequence of n tokens, n - 1 numbers in nats, float32; independent of which
        sequences share a batch up to rounding.

    Raises
    ------
    ValueError
        If the batches are not of these sequences.
    """
    if sorted(position for batch in batches for position in batch) != list(range(len(sequences))):
        raise ValueError("The batches do not take every sequence exactly once.")
    results: list[np.ndarray] = [np.empty(0)] * len(sequences)
    for batch in batches:
        nll = next_token_nll(model, *padded([sequences[i] for i in batch], model.device))
        ends = np.cumsum([len(sequences[i]) - 1 for i in batch])
        for position, values in zip(batch, np.split(nll.cpu().numpy(), ends[:-1]), strict=True):
            results[position] = values
    return results


def check_context_length(
    ids: Sequence[str], sequences: Sequence[Sequence[int]], context: float
) -> None:
    """Raise a UserError for the first abstract that does not fit, or has nothing to score."""
    for name, sequence in zip(ids, sequences, strict=True):
        if len(sequence) < 2:
            raise UserError(
                f"Abstract {name} has no token with another before it, so none to score: leave it "
                "out (data.excluded_ids)."
            )
        if len(sequence) > context:
            raise UserError(
                f"Abstract {name} has {len(sequence):,} tokens, more than the model's context of "
                f"{context:,}: leave it out (data.excluded_ids)."
            )


def score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[str],
    abstracts: Sequence[str],
    *,
    tokens_per_batch: int,
    batches: Sequence[Sequence[int]] | None = None,
) -> pd.DataFrame:
    """Score abstracts under a model.

    Parameters
    ----------
    tokens_per_batch
        See :func:`feyntune.models.likelihood.plan_batches`.
    batches
        Of an earlier run (:func:`stored_plan`), to repeat it to the bit; ``None`` to plan them.

    Returns
    -------
    pd.DataFrame
        ``id``; ``nll``, nats summed over an abstract's tokens; ``tokens`` scored; ``bytes`` of
        the abstract in UTF-8; ``perplexity``, exp(nll / tokens). ``attrs["plan"]`` holds the
        batches as JSON; a parquet file keeps it.

    Raises
    ------
    UserError
        If the tokenizer's BOS or EOS are not the model's, or an abstract exceeds its context.
    """
    check_special_tokens(tokenizer, model.config)
    sequences = encode(tokenizer, abstracts, eos=False)
    check_context_length(ids, sequences, context_length(model.config))
    if batches is None:
        batches = plan_batches([len(s) for s in sequences], tokens_per_batch)
    per_token = token_nll(model, sequences, batches)
    # In double precision: a float32 sum of hundreds of numbers loses its last digits.
    nll = np.array([values.astype(np.float64).sum() for values in per_token])
    tokens = np.array([len(values) for values in per_token])
    scores = pd.DataFrame(
        {
            "id": list(ids),
            "nll": nll,
            "tokens": tokens,
            "bytes": [len(text.encode()) for text in abstracts],
            "perplexity": np.exp(nll / tokens),
        }
    )
    # As text: pandas copies the attributes of a frame with every operation on it.
    scores.attrs["plan"] = json.dumps([list(batch) for batch in batches])
    return scores


def stored_plan(scores: pd.DataFrame) -> list[list[int]]:
    """The batches, as row numbers, in which scores were computed.

    Parameters
    ----------
    scores
        From :func:`score`, or read back from the file it was written to.
    """
    return json.loads(scores.attrs["plan"])
