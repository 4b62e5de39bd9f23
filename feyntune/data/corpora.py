"""The ten datasets from curated abstracts: samples, splits, mixtures.

Splitting, concatenating and shuffling are the released notebooks' own library calls, so that from
the paper's snapshot they give the paper's rows. What they do depends on the number of rows and the
seed alone, so here a dataset is the row numbers of its abstracts (see `abstracts`).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset, concatenate_datasets

from feyntune.errors import UserError
from feyntune.experiment.recipes import FILL, RECIPES, SCALED, SOURCES, Part, Recipe
from feyntune.experiment.sections import Data
from feyntune.paths import SPLITS

# Row numbers, and the field of each row.
COLUMNS = ("row", "field")
Splits = dict[str, Dataset]


def sample(rows: Mapping[str, np.ndarray], data: Data) -> dict[str, np.ndarray]:
    """Take each field's share of abstracts, as the paper took 200,000 of cs.

    Parameters
    ----------
    rows
        Row numbers of every field, increasing.

    Returns
    -------
    sampled
        Row numbers of every field: all as they are, or those drawn in the order drawn.

    Raises
    ------
    UserError
        If a field has too few: which datasets need it, how many, and how many there are.
    """
    sampled = {}
    fewest = _fewest(data.train_share)
    for name, wanted in data.sample.items():
        every = pd.Series(rows[name])
        needed, available = max(wanted or 0, fewest), min(len(every), wanted or len(every))
        if available < needed:
            using = [d for d, recipe in RECIPES.items() if name in _fields(recipe)]
            raise UserError(
                f"Too few {name} abstracts for {', '.join(using)}: {needed} are needed, there are "
                f"{available} (data.sample: {wanted or 'all'} of {len(every)} after curation)."
            )
        drawn = every.sample(wanted, random_state=data.sample_seed) if wanted else every
        sampled[name] = drawn.to_numpy()
    return sampled


def _fewest(train_share: float) -> int:
    """The fewest rows that leave none of the three splits empty."""
    return next(n for n in count(1) if int(n * train_share) >= 1 and n - int(n * train_share) >= 2)


def _fields(recipe: Recipe) -> set[str]:
    """The fields whose abstracts a recipe takes."""
    return {
        field
        for part in recipe.parts
        for field in ([part.only] if part.only else part.source.split("+"))
    }


def split_sources(sampled: Mapping[str, np.ndarray], data: Data) -> dict[str, Splits]:
    """Split every source into train, validation and test.

    ``train_test_split`` twice with one seed. The second call's test part is ``test`` and its
    train part ``validation``, as in the released data.
    """
    sources = {}
    for name in SOURCES:
        fields = name.split("+")
        rows = np.concatenate([sampled[field] for field in fields])
        labels = np.repeat(fields, [len(sampled[field]) for field in fields])
        if len(fields) > 1:
            # In the snapshot's order, as if selected at once.
            order = np.argsort(rows)
            rows, labels = rows[order], labels[order]
        whole = Dataset.from_dict({"row": rows, "field": labels})
        first = whole.train_test_split(
            train_size=data.train_share, seed=data.split_seed, shuffle=True
        )
        rest = first["test"].train_test_split(test_size=0.5, seed=data.split_seed, shuffle=True)
        sources[name] = {
            "train": first["train"],
            "validation": rest["train"],
            "test": rest["test"],
        }
    return sources


def rows_of(split: Dataset) -> np.ndarray:
    """The row numbers of a split, in its order."""
    return split.with_format("numpy")["row"][:]


def mix(dataset: str, sources: Mapping[str, Splits], data: Data) -> tuple[Splits, list[dict]]:
    """Build one of the ten datasets.

    Returns
    -------
    splits
        Its three splits. A mixture is concatenated split by split, then shuffled.
    parts
        Rows that each part of the recipe gave to each split.

    Raises
    ------
    UserError
        If a source has too few rows for the recipe.
    """
    recipe = RECIPES[dataset]
    splits: Splits = {}
    counts: list[dict] = [
        {"source": part.source, "only": part.only, "rows": {}} for part in recipe.parts
    ]
    for split in SPLITS:
        taken = _take(dataset, recipe, sources, split, data)
        for counted, rows in zip(counts, taken, strict=True):
            counted["rows"][split] = len(rows)
        mixed = len(taken) > 1
        splits[split] = (
            concatenate_datasets(taken).shuffle(seed=data.shuffle_seed) if mixed else taken[0]
        )
    return splits, counts


def _take(
    dataset: str, recipe: Recipe, sources: Mapping[str, Splits], split: str, data: Data
) -> list[Dataset]:
    """What each part gives to a split, the part that fills up last of all but in its place."""
    size = sum(len(sources[name][split]) for name in recipe.size_of)
    pools = [_pool(sources[part.source][split], part, data) for part in recipe.parts]
    wanted = [
        _rows_wanted(part, len(pool), size, sources)
        for part, pool in zip(recipe.parts, pools, strict=True)
    ]
    left = size - sum(rows for rows in wanted if rows is not None)
    if left < 0:
        raise UserError(
            f"The {split} split of {dataset} is to have {size} abstracts, but the parts that it "
            f"takes first have {size - left}: lower data.sample."
        )
    numbers = [left if rows is None else rows for rows in wanted]
    for part, pool, rows in zip(recipe.parts, pools, numbers, strict=True):
        if len(pool) < rows:
            raise UserError(
                f"Too few {part.only or part.source} abstracts for the {split} split of {dataset}: "
                f"{rows} are needed, there are {len(pool)}."
            )
    return [pool.select(range(rows)) for pool, rows in zip(pools, numbers, strict=True)]


def _pool(rows: Dataset, part: Part, data: Data) -> Dataset:
    """The rows that a part takes its first ones from."""
    if part.only:
        # [:] reads a column at once; iterating it reads row by row.
        rows = rows.select([i for i, name in enumerate(rows["field"][:]) if name == part.only])
    return rows.shuffle(seed=data.shuffle_seed) if part.shuffled else rows


def _rows_wanted(
    part: Part, available: int, size: int, sources: Mapping[str, Splits]
) -> int | None:
    """Rows of a part by its rule; ``None`` for whatever the others leave."""
    if part.take is None:
        return available
    if part.take == FILL:
        return None
    if part.take == SCALED:
        whole = {name: sum(len(s) for s in sources[name].values()) for name in sources}
        # The share first and then the product, as released: the other way round rounds otherwise.
        share = whole["hep-th"] / (whole["gr-qc"] + whole["hep-ph"])
        return int(share * available)
    return int(part.take * size)


def described(dataset: str, splits: Splits, parts: list[dict]) -> dict[str, Any]:
    """What ``curation.json`` says of a dataset's making."""
    recipe = RECIPES[dataset]
    return {
        "title": recipe.title,
        "hub": recipe.hub,
        "certainty": recipe.certainty,
        "paper_rows": list(recipe.paper_rows) if recipe.paper_rows else None,
        "rows_certainty": recipe.rows_certainty,
        "rows": {split: len(rows) for split, rows in splits.items()},
        "parts": parts,
    }
