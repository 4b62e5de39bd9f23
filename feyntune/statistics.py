"""Bootstrap, paired comparison, entropy and summaries: pure functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

# scipy.stats and statsmodels are imported where they are used: loading them takes longer than
# all that a notebook does with the light functions below.

# Elements held at a time while resampling. scipy draws all resamples at once by default, which
# at 15,808 abstracts is 1.3 GB per model; its random stream does not depend on the batch.
BATCH_ELEMENTS = 4_000_000


def bootstrap_means(
    values: pd.DataFrame, *, resamples: int, confidence: float, seed: int
) -> pd.DataFrame:
    """Percentile bootstrap of the mean of every model, as in the released notebooks.

    Each model is resampled from the same seed and therefore with the same indices, so that
    models are compared on the same resampled test sets.

    Parameters
    ----------
    values
        Scores, abstracts x models; no missing values.
    resamples
        Number of bootstrap resamples (scipy's default, which the released notebooks keep: 9,999).
    confidence
        Coverage of the interval (released: 0.95).
    seed
        ``random_state`` of :func:`scipy.stats.bootstrap` (released: 1).

    Returns
    -------
    DataFrame
        Index ``model``; columns ``mean``, ``bootstrap_mean`` (of the resampled means), ``low``
        and ``high`` (ends of the interval), in the units of ``values``. Fewer than two abstracts
        have no interval: NaN.
    """
    from scipy import stats

    rows = {}
    for model in values.columns:
        scores = values[model].to_numpy(dtype=float)
        if len(scores) < 2:
            rows[model] = {"mean": values[model].mean()}
            continue
        result = stats.bootstrap(
            (scores,),
            np.mean,
            method="percentile",
            n_resamples=resamples,
            confidence_level=confidence,
            random_state=seed,
            batch=_batch(len(scores)),
        )
        rows[model] = {
            "mean": scores.mean(),
            "bootstrap_mean": result.bootstrap_distribution.mean(),
            "low": result.confidence_interval.low,
            "high": result.confidence_interval.high,
        }
    columns = ["mean", "bootstrap_mean", "low", "high"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("model")


def paired_differences(
    values: pd.DataFrame,
    pairs: Sequence[tuple[str, str]],
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    """Compare models on the same abstracts.

    Parameters
    ----------
    values
        Scores, abstracts x models; no missing values.
    pairs
        ``(model, reference)``: one comparison each.
    resamples, confidence, seed
        As for :func:`bootstrap_means`; the permutation test uses as many resamples.

    Returns
    -------
    DataFrame
        One row per pair: ``model``, ``reference``, ``difference`` (mean of model - reference, in
        the units of ``values``), ``low`` and ``high`` (percentile bootstrap interval of it),
        ``relative_percent`` (difference in percent of the reference's mean), ``p`` (two-sided
        sign-flip permutation test of a difference symmetric about zero) and ``p_holm`` (Holm's
        correction over all rows).
    """
    from statsmodels.stats.multitest import multipletests

    columns = ["model", "reference", "difference", "low", "high", "relative_percent"]
    if not pairs:
        return pd.DataFrame(columns=[*columns, "p", "p_holm"])
    models, references = (list(names) for names in zip(*pairs, strict=True))
    differences = pd.DataFrame(values[models].to_numpy() - values[references].to_numpy())
    frame = bootstrap_means(differences, resamples=resamples, confidence=confidence, seed=seed)
    frame = frame.rename(columns={"mean": "difference"}).assign(
        model=models,
        reference=references,
        relative_percent=lambda row: 100 * row.difference / values[references].mean().to_numpy(),
    )[columns]
    p = sign_flip_p_values(differences.to_numpy(), resamples=resamples, seed=seed)
    frame = frame.assign(p=p, p_holm=multipletests(p, method="holm")[1])
    return frame.reset_index(drop=True)


def sign_flip_p_values(differences: np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
    """Two-sided p values of the paired permutation test of a zero mean difference.

    Equal to ``scipy.stats.permutation_test((column,), np.mean, permutation_type="samples")`` of
    every column. scipy flips the signs of a vector of ones, the same for every comparison, and
    one matrix product turns a batch of them into the means of all columns: minutes become
    seconds at 15,808 abstracts and 30 comparisons.

    Parameters
    ----------
    differences
        Abstracts x comparisons.
    resamples
        Random sign assignments; if there are no more than that in all, each is taken once.
    seed
        Seed of the sign assignments.
    """
    from scipy import stats

    count = len(differences)
    result = stats.permutation_test(
        (np.ones(count),),
        lambda signs, axis: signs @ differences / count,
        permutation_type="samples",
        alternative="two-sided",
        vectorized=True,
        n_resamples=resamples,
        batch=_batch(count),
        rng=np.random.default_rng(seed),
    )
    return np.asarray(result.pvalue)


def _batch(count: int) -> int:
    return max(1, BATCH_ELEMENTS // count)


def moving_average(values: Sequence[float], window: int) -> np.ndarray:
    """Centred moving average whose window shrinks, still centred, towards both ends.

    The first and last value are kept as they are, so that a falling curve is not bent at its
    ends. An even window counts as the odd one below it.
    """
    values = np.asarray(values, dtype=float)
    position = np.arange(len(values))
    reach = np.minimum((window - 1) // 2, np.minimum(position, position[::-1]))
    total = np.concatenate([[0.0], np.cumsum(values)])
    return (total[position + reach + 1] - total[position - reach]) / (2 * reach + 1)


def exponentiated_entropy(tokens: Sequence[int]) -> float:
    """Exponential of the Shannon entropy of the token ids of one text.

    The number of equally frequent tokens that would be as diverse: 1 for one token repeated,
    ``len(tokens)`` if no token occurs twice, NaN for no token.
    """
    if len(tokens) == 0:
        return float("nan")
    shares = np.unique(np.asarray(tokens), return_counts=True)[1] / len(tokens)
    return float(np.exp(-np.sum(shares * np.log(shares))))


def summary(values: pd.DataFrame) -> pd.DataFrame:
    """Mean, std, min, quartiles and max per model: the form of the released table notebook.

    ``values`` is abstracts x models; models are the rows of the result. As there, std is
    pandas' (``n - 1``) and quartiles are linearly interpolated.
    """
    return values.describe().drop(index="count").T.rename_axis("model")


def corpus_perplexity(nll: Sequence[float], tokens: Sequence[int]) -> float:
    """Perplexity per token of all abstracts together, from summed NLLs in nats."""
    return float(np.exp(np.sum(nll) / np.sum(tokens)))


def bits_per_byte(nll: Sequence[float], size: Sequence[int]) -> float:
    """Bits per byte of text, comparable across tokenizers, from NLLs in nats and bytes."""
    return float(np.sum(nll) / np.log(2) / np.sum(size))
