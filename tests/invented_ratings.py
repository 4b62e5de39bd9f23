"""Invented ratings, as they are read."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd

from feyntune.experiment.sections import Statistics
from feyntune.ratings import means

SETTINGS = Statistics(resamples=199, confidence=0.95, seed=1)
CATEGORY = {ours: kind for ours, (_, kind) in means.NAMES.items()}


def rated(scores: dict[tuple[str, str, str], int]) -> pd.DataFrame:
    """Ratings as they are read, from scores by (paper, rater, system)."""
    rows = [(*unit, score, CATEGORY[unit[2]]) for unit, score in scores.items()]
    return pd.DataFrame(rows, columns=["paper", "rater", "model", "score", "category"])


def drawn(systems, papers=8, raters=("A", "B"), seed=0, noise=1.0, level=None) -> pd.DataFrame:
    """Invented: a level per system, a shift per paper, noise per rating."""
    rng = np.random.default_rng(seed)
    shift = rng.normal(0, 1, papers)
    level = level or {system: 3 + 0.2 * at for at, system in enumerate(systems)}
    scores = {
        (f"2401.{p:05}", r, s): level[s] + shift[p] + rng.normal(0, noise)
        for p, r, s in product(range(papers), raters, systems)
    }
    return rated({unit: int(np.clip(round(score), 1, 10)) for unit, score in scores.items()})


def published_shape(gaps: bool = False) -> pd.DataFrame:
    """As many ratings as the authors published: 36 papers and raters, 25 systems each.

    Five papers by all three raters, one by two, nineteen by one. With ``gaps`` every seventh
    rating is missing. The random numbers are those of ``RandomState``, which never change.
    """
    draw = np.random.RandomState(7)
    systems = [name for name in means.NAMES if name != "ChatGPT"]
    units = [(paper, rater) for paper in range(5) for rater in "ABC"] + [(5, "A"), (5, "C")]
    units += [(6 + number, "ABC"[number % 3]) for number in range(19)]
    level, shift = draw.randint(0, 5, 25), draw.randint(-1, 2, 25)
    own, strict = draw.randint(-1, 2, (25, 25)), {"A": 0, "B": 1, "C": -1}
    scores = {
        (f"2401.{paper:05}", rater, system): int(
            np.clip(
                3 + level[at] + shift[paper] + own[paper, at] + strict[rater] + draw.randint(-1, 2),
                1,
                10,
            )
        )
        for paper, rater in units
        for at, system in enumerate(systems)
    }
    return rated(scores if not gaps else {u: s for n, (u, s) in enumerate(scores.items()) if n % 7})


ROWS_SCORES = {  # (paper, rater): scores of Base, s1, s1_qkv, Claude
    ("0806.1218", "A"): (2, 4, 3, 9),
    ("0806.1218", "B"): (4, 6, 5, 7),
    ("hep-th/9912072", "A"): (3, 8, 4, 10),
}
ROWS_SYSTEMS = {"Base": "Base", "s1": "LoRA-all", "s1_qkv": "LoRA-QKV", "Claude": "Commercial"}


def rows() -> list[dict]:
    return [
        {"paper": paper, "model": model, "rater": rater, "score": str(score),
         "source": "common" if paper == "0806.1218" else "individual", "category": category}
        for (paper, rater), scores in ROWS_SCORES.items()
        for (model, category), score in zip(ROWS_SYSTEMS.items(), scores, strict=True)
    ]  # fmt: skip
