"""Perplexity: the negative log-likelihood of whole abstracts under a model, or under many.

Defined once: exp of the mean next-token negative log-likelihood of one abstract, BOS given, EOS
not scored. The headline is the mean over abstracts, as in the released script.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from feyntune import modeling
from feyntune.modeling import encode, next_token_nll, padded, plan
from feyntune.paths import writing
from feyntune.settings import Experiment


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
        Token ids, BOS first.
    batches
        Positions in ``sequences``, every one exactly once; see :func:`feyntune.modeling.plan`.

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
        See :func:`feyntune.modeling.plan`.
    batches
        Of an earlier run (:func:`stored_plan`), to repeat it to the bit; ``None`` to plan anew.

    Returns
    -------
    pd.DataFrame
        ``id``; ``nll``, nats summed over an abstract's tokens; ``tokens`` scored; ``bytes`` of
        the abstract in UTF-8; ``perplexity``, exp(nll / tokens). ``attrs["plan"]``, which a
        parquet file keeps, holds the batches as JSON.
    """
    sequences = encode(tokenizer, abstracts, eos=False)
    if batches is None:
        batches = plan([len(s) for s in sequences], tokens_per_batch)
    per_token = token_nll(model, sequences, batches)
    # Summed in double precision: a sum of hundreds of float32 numbers would lose its last digits.
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


# --- many models ------------------------------------------------------------------------------


class Scorer:
    """One base model in memory, on which the adapters of an experiment take turns.

    Parameters
    ----------
    on
        Its device; ``None`` for the first GPU, or else the CPU.
    """

    def __init__(self, experiment: Experiment, on: str | None = None):
        self.experiment = experiment
        self.test = pd.read_parquet(experiment.paths.split("s1", "test"))
        self.tokenizer = modeling.load_tokenizer(experiment)
        self.base = modeling.load_base(experiment, dtype=experiment.perplexity.dtype, on=on)

    def score(self, model: str) -> pd.DataFrame:
        """Scores of the s1 test set under one model: those of :func:`score`, to the bit."""
        with modeling.adapted(self.base, self.experiment, model) as loaded:
            return score(
                loaded,
                self.tokenizer,
                self.test["id"],
                self.test["abstract"],
                tokens_per_batch=self.experiment.perplexity.tokens_per_batch,
            )

    def write(self, model: str) -> str:
        """Score a model and write its file, which is complete or absent; return its name."""
        scores = self.score(model)
        with writing(self.experiment.paths.perplexity(model)) as file:
            scores.to_parquet(file)
        return model


def score_models(
    experiment: Experiment, models: Sequence[str], devices: Sequence[str] | None = None
) -> Iterator[str]:
    """Score many models as one job, and write the file of each.

    On every device one base model is loaded, by a process of its own where there are several.

    Parameters
    ----------
    models
        ``base`` and variants whose adapters are there.
    devices
        Whose names PyTorch knows; ``None`` for all visible GPUs, or else the CPU.

    Yields
    ------
    str
        Each model, as soon as its file is written; whatever fails later leaves it there.

    Raises
    ------
    Exception
        The first error of any model, once all others have been tried.
    """
    if devices is None:
        devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]
    shares = deal(models, len(devices))
    if len(shares) == 1:
        scorer = Scorer(experiment, devices[0])
        attempts = (partial(scorer.write, model) for model in models)
    else:
        attempts = _in_processes(experiment, shares, devices)
    errors = []
    for attempt in attempts:
        try:
            model = attempt()
        except Exception as error:
            errors.append(error)
        else:
            yield model
    if errors:
        raise errors[0]


def deal(models: Sequence[str], hands: int) -> list[list[str]]:
    """Deal models round robin; a hand that would be empty is left out."""
    return [list(models[i::hands]) for i in range(min(hands, len(models)))]


def _in_processes(
    experiment: Experiment, shares: list[list[str]], devices: Sequence[str]
) -> Iterator[Callable[[], str]]:
    """What gives each model's name or raises its error, as they end; a process per device."""
    with ExitStack() as stack:
        futures = []
        for share, device in zip(shares, devices, strict=False):
            # Spawned: CUDA cannot be used in a forked process.
            pool = ProcessPoolExecutor(1, get_context("spawn"), _start, (experiment, device))
            stack.callback(pool.shutdown, cancel_futures=True)
            futures += [pool.submit(_write, model) for model in share]
        for future in as_completed(futures):
            yield future.result


def _start(experiment: Experiment, device: str) -> None:
    """In the process of a device: load what all its models share."""
    global _scorer
    _scorer = Scorer(experiment, device)


def _write(model: str) -> str:
    return _scorer.write(model)
