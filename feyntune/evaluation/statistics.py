"""Bootstrap, paired comparison and summaries: pure functions of arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from feyntune.errors import UserError

# statsmodels is imported where it is used: loading it takes longer than all that a notebook does
# with the light functions below.

# Elements drawn at a time while resampling, few enough to stay in a processor's cache. All at once
# would be gigabytes; no random stream below depends on it.
BATCH_ELEMENTS = 200_000


def aligned(frames: Mapping[str, pd.DataFrame], wanted: Sequence[str], column: str) -> pd.DataFrame:
    """One column of the results of several models, abstracts x models.

    Parameters
    ----------
    frames
        Results by model, each with ``id`` and ``column``.
    wanted
        The models to take, in this order, where there are results.

    Raises
    ------
    UserError
        If models were evaluated on different abstracts.
    """
    found = {name: frames[name].set_index("id")[column] for name in wanted if name in frames}
    values = pd.DataFrame(found)
    uneven = values.columns[values.isna().any()]
    if len(uneven):
        raise UserError(
            f"Models were evaluated on different abstracts: {', '.join(uneven)} lack some that "
            "others have. Evaluate all of them again."
        )
    return values


def bootstrap_means(
    values: pd.DataFrame, *, resamples: int, confidence: float, seed: int
) -> pd.DataFrame:
    """Percentile bootstrap of the mean of every model, as in the released notebooks.

    All models are compared on the same resampled test sets: see :func:`resampled_means`.

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

    Raises
    ------
    ValueError
        If a score is missing.
    """
    frame = pd.DataFrame({"mean": values.mean()}).rename_axis("model")
    if len(values) < 2 or values.columns.empty:
        return frame.assign(bootstrap_mean=np.nan, low=np.nan, high=np.nan)
    means = resampled_means(values.to_numpy(dtype=float), resamples=resamples, seed=seed)
    low, high = percentile_interval(means, confidence)
    return frame.assign(bootstrap_mean=means.mean(axis=0), low=low, high=high)


def resampled_means(values: np.ndarray, *, resamples: int, seed: int | Sequence[int]) -> np.ndarray:
    """Means of every column over the same bootstrap resamples of the rows.

    Column by column the ``bootstrap_distribution`` of ``scipy.stats.bootstrap((column,), np.mean,
    random_state=seed)``. A resample is how often it draws each row, so that one matrix product
    gives its means of all columns: 21 models of 15,808 abstracts take two seconds, not minutes.

    Parameters
    ----------
    values
        Rows x columns; no missing values.
    resamples
        Number of bootstrap resamples.
    seed
        Of :class:`numpy.random.RandomState`.

    Returns
    -------
    ndarray
        Resamples x columns, in the units of ``values``.

    Raises
    ------
    ValueError
        If a value is missing.
    """
    if np.isnan(values).any():
        raise ValueError("cannot resample rows of which some values are missing")
    rng, rows = np.random.RandomState(seed), len(values)
    means = np.empty((resamples, values.shape[1]))
    for batch in _batches(resamples, rows):
        drawn = rng.randint(0, rows, (len(batch), rows))
        drawn += rows * np.arange(len(batch))[:, None]  # one count of all resamples of the batch
        counts = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        means[batch] = counts.astype(float) @ values
    return means / rows


def resampled_ratios(
    sums: np.ndarray, counts: np.ndarray, *, resamples: int, seed: int
) -> np.ndarray:
    """Means of groups of values over bootstrap resamples of the rows that hold them.

    A row may hold several values of a group, or none: a paper with the ratings of it. The mean
    over resampled rows is the ratio of the resampled sums and counts.

    Parameters
    ----------
    sums, counts
        Rows x groups: the sum of the values that a row holds of each group, and their number.
    resamples, seed
        As for :func:`resampled_means`.

    Returns
    -------
    ndarray
        Resamples x groups; NaN where a resample holds no value of the group.
    """
    # Column by column in memory, as pandas holds them: the order moves a product's last digit.
    both = np.asfortranarray(np.hstack([sums, counts]), dtype=float)
    sums, counts = np.hsplit(resampled_means(both, resamples=resamples, seed=seed), 2)
    with np.errstate(invalid="ignore"):
        return sums / counts


def percentile_interval(resampled: np.ndarray, confidence: float) -> np.ndarray:
    """Ends (low, high) of the percentile bootstrap interval, for each column.

    ``resampled`` is resamples x columns; the result is 2 x columns.
    """
    tail = (1 - confidence) / 2
    return np.quantile(resampled, [tail, 1 - tail], axis=0)


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
    return frame.assign(p=p, p_holm=holm(p)).reset_index(drop=True)


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's correction of p values over all that are known; the others stay NaN."""
    from statsmodels.stats.multitest import multipletests

    p = np.asarray(p, dtype=float)
    known = ~np.isnan(p)
    corrected = np.full(len(p), np.nan)
    if known.any():
        corrected[known] = multipletests(p[known], method="holm")[1]
    return corrected


def sign_flip_p_values(differences: np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
    """Two-sided p values of the paired permutation test of a zero mean difference.

    Equal to ``scipy.stats.permutation_test((column,), np.mean, permutation_type="samples",
    rng=numpy.random.default_rng(seed))`` of every column. scipy flips the signs of each column in
    turn, by the same stream; here one matrix product turns a batch of signs into the means of all
    columns: minutes become seconds at 15,808 abstracts and 30 comparisons.

    Parameters
    ----------
    differences
        Abstracts x comparisons.
    resamples
        Random sign assignments; if there are no more than that in all, each is taken once.
    seed
        Seed of the sign assignments.
    """
    count = len(differences)
    exact = 2**count <= resamples
    assignments = 2**count if exact else resamples
    observed = differences.mean(axis=0)
    # Theoretically equal means may differ by rounding; scipy's tolerance.
    tolerance = 100 * np.finfo(float).eps * np.abs(observed)
    below, above = np.zeros((2, differences.shape[1]), dtype=int)
    rng = np.random.default_rng(seed)
    for batch in _batches(assignments, count):
        flipped = _every_flip(batch, count) if exact else _random_flips(rng, len(batch), count)
        means = (1.0 - 2.0 * flipped) @ differences / count
        below += np.count_nonzero(means <= observed + tolerance, axis=0)
        above += np.count_nonzero(means >= observed - tolerance, axis=0)
    # The observed signs count among random ones, so that no p value is zero; listed, they are.
    own = 0 if exact else 1
    return np.minimum(2 * (np.minimum(below, above) + own) / (assignments + own), 1)


def _every_flip(batch: range, count: int) -> np.ndarray:
    """Which of ``count`` signs the assignments of these numbers flip: their binary digits."""
    return np.array(batch)[:, None] >> np.arange(count) & 1


def _random_flips(rng: np.random.Generator, assignments: int, count: int) -> np.ndarray:
    """Flips as ``rng.permuted`` would swap pairs, which is how scipy draws them.

    It takes the lowest bit of the next 32 for each pair, and swaps where that is zero.
    """
    bits = rng.integers(0, 2**32, (assignments, count), dtype=np.uint32)
    return 1 - (bits & 1)


def _batches(resamples: int, rows: int) -> Iterator[range]:
    """Numbers of the resamples to draw together."""
    size = max(1, BATCH_ELEMENTS // rows)
    for start in range(0, resamples, size):
        yield range(start, min(start + size, resamples))


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


def summary(values: pd.DataFrame) -> pd.DataFrame:
    """Mean, std, min, quartiles and max per model: the form of the released table notebook.

    ``values`` is abstracts x models; models are the rows of the result. As there, std is
    pandas' (``n - 1``) and quartiles are linearly interpolated.
    """
    return values.describe().drop(index="count").T.rename_axis("model")


def corpus_perplexity(nll: Sequence[float], tokens: Sequence[int]) -> float:
    """Perplexity per token of all abstracts together, from summed NLLs in nats.

    NaN if one is not known: a sum that passes over it would be of other abstracts.
    """
    return float(np.exp(_sum(nll) / _sum(tokens)))


def bits_per_byte(nll: Sequence[float], size: Sequence[int]) -> float:
    """Bits per byte of text, comparable across tokenizers, from NLLs in nats and bytes.

    NaN if one is not known.
    """
    return float(_sum(nll) / np.log(2) / _sum(size))


def _sum(values: Sequence[float]) -> float:
    """The sum of all values; pandas' own leaves out what is missing."""
    return pd.Series(values).astype(float).sum(skipna=False)
