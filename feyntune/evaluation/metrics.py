"""What each completion is measured by: one row of a table per metric.

A new metric is one more row of :data:`OF_COMPLETIONS`, and becomes a column of the results of
notebooks 04 and 05. A library that it needs is imported in its function: the analysis imports this
module and needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

# Texts in, (texts, width) out.
Embedder = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Completed:
    """Completions of abstracts, beside what the authors wrote; all sequences of one length.

    Attributes
    ----------
    abstracts
        As the authors wrote them, whole.
    prompts, truths
        Their first halves, and how the authors went on.
    texts, ids
        The completions, and their token ids.
    truth_ids
        Token ids of ``truths``; needed by :data:`OF_TRUTHS` only.
    embed
        Turns texts into vectors; ``None`` where no metric asks for it.
    """

    abstracts: Sequence[str]
    prompts: Sequence[str]
    truths: Sequence[str]
    texts: Sequence[str]
    ids: Sequence[Sequence[int]]
    truth_ids: Sequence[Sequence[int]] = ()
    embed: Embedder | None = None


Metric = Callable[[Completed], Sequence[float]]


def semscore(completed: Completed) -> np.ndarray:
    """Cosine of the embeddings of the authors' continuation and the model's."""
    left, right = completed.embed(completed.truths), completed.embed(completed.texts)
    return cosine(left, right).astype(float)


def semscore_with_prompt(completed: Completed) -> np.ndarray:
    """The same with the prompt on both sides, as released; the shared prompt raises it."""
    pairs = zip(completed.prompts, completed.texts, strict=True)
    whole = [f"{prompt} {text}" for prompt, text in pairs]
    return cosine(completed.embed(completed.abstracts), completed.embed(whole)).astype(float)


def cosine(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Cosine similarity row by row: (n, width) against (n, width) gives (n,)."""
    return (unit_length(left) * unit_length(right)).sum(axis=1)


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def exponentiated_entropy(tokens: Sequence[int]) -> float:
    """Exponential of the Shannon entropy of the token ids of one text.

    The number of equally frequent tokens that would be as diverse: 1 for one token repeated,
    ``len(tokens)`` if no token occurs twice, NaN for no token.
    """
    if len(tokens) == 0:
        return float("nan")
    shares = np.unique(np.asarray(tokens), return_counts=True)[1] / len(tokens)
    return float(np.exp(-np.sum(shares * np.log(shares))))


OF_COMPLETIONS: dict[str, Metric] = {
    "tokens": lambda completed: [len(ids) for ids in completed.ids],
    "semscore": semscore,
    "semscore_with_prompt": semscore_with_prompt,
    "entropy_exp": lambda completed: [exponentiated_entropy(ids) for ids in completed.ids],
}
OF_TRUTHS: dict[str, Metric] = {
    "truth_tokens": lambda completed: [len(ids) for ids in completed.truth_ids],
    "truth_entropy_exp": lambda completed: [
        exponentiated_entropy(ids) for ids in completed.truth_ids
    ],
}


def measure(completed: Completed, metrics: Mapping[str, Metric]) -> pd.DataFrame:
    """Every metric of every completion: a row per completion, a column per metric."""
    return pd.DataFrame({name: metric(completed) for name, metric in metrics.items()})
