"""How fast the bootstrap of all models is, beside scipy's, at the paper's size.

    python benchmarks/bootstrap.py                   # 21 models, 15,808 abstracts, 9,999 resamples
    python benchmarks/bootstrap.py --quick           # small, only to see that it runs

Every row is measured in a process of its own, on the same invented scores. Seconds leave out
imports; memory is the peak of the process since its scores were there. All intervals are compared
with scipy's, `random_state=1`: one that is off by more than 1e-12 is an error.

A row of scipy takes its columns one by one, as the released notebooks do. Those that say so took
some columns only; their seconds for all are scaled by the number of columns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from perplexity import forget_peak, peak_memory

TOLERANCE = 1e-12  # relative, of either end of any interval
SIZES = {"full": (15_808, 9_999), "quick": (300, 199)}  # abstracts, resamples
CONFIDENCE, SEED = 0.95, 1  # as released
Intervals = dict[str, list[float]]  # of every column: low, high
Work = Callable[[], Intervals]


# --- the scores -------------------------------------------------------------------------------


def scores(abstracts: int):
    """Perplexities of 21 models on the same abstracts: log-normal, and correlated as real ones."""
    import numpy as np
    import pandas as pd

    from feyntune.experiment.recipes import BASE, VARIANTS

    rng = np.random.default_rng(2)
    models = [BASE, *VARIANTS]
    difficulty = rng.normal(2.3, 0.35, (abstracts, 1))
    gains = np.r_[0, rng.uniform(0.05, 0.2, len(models) - 1)]
    own = rng.normal(0, 0.03, (abstracts, len(models)))
    return pd.DataFrame(np.exp(difficulty - gains + own), columns=models)


def pairs() -> list[tuple[str, str]]:
    """Every variant beside base, and the two flavours of every dataset: 30 comparisons."""
    from feyntune.experiment.recipes import BASE, DATASETS, FLAVOURS, VARIANTS

    flavours = [tuple(f"{name}-{flavour}" for flavour in FLAVOURS) for name in DATASETS]
    return [*((variant, BASE) for variant in VARIANTS), *flavours]


def with_differences(values):
    """The scores, and the differences of every pair as further columns."""
    import pandas as pd

    columns = {f"{model} - {other}": values[model] - values[other] for model, other in pairs()}
    return pd.concat([values, pd.DataFrame(columns)], axis=1)


# --- the ways: each imports what it needs, then returns what is to be timed -------------------


def ours(values, resamples: int) -> Work:
    from feyntune.evaluation import statistics

    settings = {"resamples": resamples, "confidence": CONFIDENCE, "seed": SEED}

    def work() -> Intervals:
        return _rows(statistics.bootstrap_means(values, **settings))

    return work


def ours_with_differences(values, resamples: int) -> Work:
    from feyntune.evaluation import statistics

    settings = {"resamples": resamples, "confidence": CONFIDENCE, "seed": SEED}

    def work() -> Intervals:
        return _rows(statistics.bootstrap_means(with_differences(values), **settings))

    return work


def ours_with_tests(values, resamples: int) -> Work:
    """As notebook 07: the models, then the comparisons with a permutation test of each."""
    import statsmodels.stats.multitest  # noqa: F401  (its import is not part of the time)

    from feyntune.evaluation import statistics

    settings = {"resamples": resamples, "confidence": CONFIDENCE, "seed": SEED}

    def work() -> Intervals:
        means = _rows(statistics.bootstrap_means(values, **settings))
        compared = statistics.paired_differences(values, pairs(), **settings)
        compared.index = compared["model"] + " - " + compared["reference"]
        return means | _rows(compared)

    return work


def _rows(frame) -> Intervals:
    return {name: [low, high] for name, low, high in zip(frame.index, frame.low, frame.high,
                                                         strict=True)}  # fmt: skip


def scipy(values, resamples: int, batch: int | None = None, columns: int | None = None) -> Work:
    """scipy's call of the released notebooks, column by column."""
    import numpy as np
    from scipy import stats

    given = {"n_resamples": resamples, "confidence_level": CONFIDENCE, "method": "percentile"}
    columns = columns or values.shape[1]

    def interval(column) -> list[float]:
        found = stats.bootstrap(
            (column.to_numpy(),), np.mean, batch=batch, random_state=SEED, **given
        ).confidence_interval
        return [found.low, found.high]

    return lambda: {name: interval(values[name]) for name in values.columns[:columns]}


def scipy_default(values, resamples: int) -> Work:
    return scipy(values, resamples, columns=1)


def scipy_in_batches(values, resamples: int) -> Work:
    return scipy(with_differences(values), resamples, batch=100)


# Title, function, how many intervals it stands for.
MODELS, ALL = 21, 21 + 30
ROWS = {
    "ours": ("FeynTune: 21 models", ours, MODELS),
    "differences": ("FeynTune: 21 models, 30 paired differences", ours_with_differences, ALL),
    "tests": ("FeynTune: the same, and permutation tests with p values", ours_with_tests, ALL),
    "default": ("scipy, its default (all resamples at once)", scipy_default, MODELS),
    "batches": ("scipy, `batch=100`, differences included", scipy_in_batches, ALL),
}


# --- measuring --------------------------------------------------------------------------------


def measure(row: str, folder: Path, threads: int) -> dict:
    """What a row's own process says of itself."""
    counted = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    env = {**os.environ, **dict.fromkeys(counted, str(threads))}
    command = [sys.executable, __file__, "--row", row, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        raise SystemExit(f"{ROWS[row][0]} failed.\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def run_row(row: str, folder: Path) -> None:
    """In the process of a row: load, time, and print what came out as one line of JSON."""
    import pandas as pd

    values = pd.read_parquet(folder / "scores.parquet")
    work = ROWS[row][1](values, json.loads((folder / "resamples.json").read_text()))
    forget_peak()
    start = time.perf_counter()
    found = work()
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak": peak_memory(), "intervals": found}))


def largest_difference(found: Intervals, expected: Intervals) -> float:
    """Relative, of either end of any interval that both have; none in common is an error."""
    shared = [name for name in found if name in expected]
    if not shared:
        raise SystemExit("Two rows have no interval in common.")
    return max(
        abs(value / right - 1)
        for name in shared
        for value, right in zip(found[name], expected[name], strict=True)
    )


def table(folder: Path, rows: list[str], threads: int, rounds: int) -> list[str]:
    """Measure, and describe in Markdown: of several rounds the least time, the highest peak."""
    results: dict[str, list[dict]] = {row: [] for row in rows}
    for _ in range(rounds):
        for row in rows:
            results[row].append(measure(row, folder, threads))
    heads = ("way", "intervals", "seconds", "of ours", "peak memory", "largest difference")
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "--:|" * 5]
    expected, least = results["batches"][0]["intervals"], {}
    for row, runs in results.items():
        title, _, stands_for = ROWS[row]
        intervals, seconds = runs[0]["intervals"], min(run["seconds"] for run in runs)
        off = largest_difference(intervals, expected)
        if off > TOLERANCE:
            raise SystemExit(f"{title} gives other intervals: off by {off:.1e}.")
        least[row] = seconds * stands_for / len(intervals)
        shown = f"{least[row]:.2f}"
        if len(intervals) < stands_for:
            shown = f"{seconds:.2f} for {len(intervals)}: {least[row]:.0f}"
        # As many intervals of ours.
        ratio = least[row] / least["ours" if stands_for == MODELS else "differences"]
        peak = max(run["peak"] for run in runs) / 2**20
        lines.append(
            f"| {title} | {stands_for} | {shown} | {ratio:.1f} x | {peak:,.0f} MiB | {off:.0e} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small: only to see that it runs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="of all rows; the best counts")
    parser.add_argument("--row", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.row:
        run_row(given.row[0], Path(given.row[1]))
        return
    abstracts, resamples = SIZES["quick" if given.quick else "full"]
    with tempfile.TemporaryDirectory(prefix="feyntune-benchmark-") as name:
        folder = Path(name)
        scores(abstracts).to_parquet(folder / "scores.parquet")
        (folder / "resamples.json").write_text(json.dumps(resamples))
        load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
        print(f"{abstracts:,} abstracts, {resamples:,} resamples, {given.threads} thread(s), "
              f"load before: {load}\n")  # fmt: skip
        rounds = 1 if given.quick else given.rounds
        print("\n".join(table(folder, list(ROWS), given.threads, rounds)))


if __name__ == "__main__":
    main()
