"""The datasets from curated abstracts: samples, splits, mixtures.

Splitting, concatenating and shuffling are the released notebooks' own library calls, so that from
the paper's snapshot they give the released rows. What they do depends on the number of rows and the
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
from feyntune.experiment.recipes import FILL, SCALED, Part, Recipe
from feyntune.experiment.schema import Experiment
from feyntune.experiment.sections import Data
from feyntune.paths import SPLITS

# Row numbers, and the field of each row.
COLUMNS = ("row", "field")
Splits = dict[str, Dataset]


def sample(rows: Mapping[str, np.ndarray], experiment: Experiment) -> dict[str, np.ndarray]:
    """Take each field's share of abstracts, as the released notebook took 200,000 of cs.

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
        If fields have too few: which datasets need them, how many, and how many there are.
    """
    sampled, lacking, data = {}, [], experiment.data
    fewest = _fewest(data.train_share)
    for name, wanted in data.sample.items():
        every = pd.Series(rows[name])
        needed, available = max(wanted or 0, fewest), min(len(every), wanted or len(every))
        if available < needed:
            using = [d for d, r in experiment.recipes.items() if name in _fields(r, experiment)]
            lacking.append(
                f"Too few {name} abstracts for {', '.join(using)}: {needed} are needed, there are "
                f"{available} (data.sample: {wanted or 'all'} of {len(every)} after curation)."
            )
            continue
        drawn = every.sample(wanted, random_state=data.sample_seed) if wanted else every
        sampled[name] = drawn.to_numpy()
    if lacking:
        raise UserError(" ".join(lacking))
    return sampled


def _fewest(train_share: float) -> int:
    """The fewest rows that leave none of the three splits empty."""
    return next(n for n in count(1) if int(n * train_share) >= 1 and n - int(n * train_share) >= 2)


def _fields(recipe: Recipe, experiment: Experiment) -> set[str]:
    """The fields whose abstracts a recipe takes."""
    return {
        field
        for part in recipe.parts
        for field in ([part.only] if part.only else experiment.fields_of(part.source))
    }


def split_sources(sampled: Mapping[str, np.ndarray], experiment: Experiment) -> dict[str, Splits]:
    """Split every source into train, validation and test.

    ``train_test_split`` twice with one seed. The second call's test part is ``test`` and its
    train part ``validation``, as in the released data.
    """
    sources, data = {}, experiment.data
    for name in experiment.sources:
        fields = experiment.fields_of(name)
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


def mix(
    dataset: str, sources: Mapping[str, Splits], experiment: Experiment
) -> tuple[Splits, list[dict]]:
    """Build one dataset.

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
    recipe, data = experiment.recipes[dataset], experiment.data
    splits: Splits = {}
    counts: list[dict] = [
        {"source": part.source, "only": part.only, "rows": {}} for part in recipe.parts
    ]
    for split in SPLITS:
        taken = _take(dataset, experiment, sources, split)
        for counted, rows in zip(counts, taken, strict=True):
            counted["rows"][split] = len(rows)
        mixed = len(taken) > 1
        splits[split] = (
            concatenate_datasets(taken).shuffle(seed=data.shuffle_seed) if mixed else taken[0]
        )
    return splits, counts


def _take(
    dataset: str, experiment: Experiment, sources: Mapping[str, Splits], split: str
) -> list[Dataset]:
    """What each part gives to a split, the part that fills up last of all but in its place."""
    recipe = experiment.recipes[dataset]
    size = _size(dataset, experiment, sources, split)
    pools = _pools(recipe, experiment, sources, split)
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
    if not sum(numbers):
        raise UserError(f"The {split} split of {dataset} would be empty: raise data.sample.")
    return [pool.select(range(rows)) for pool, rows in zip(pools, numbers, strict=True)]


def _size(dataset: str, experiment: Experiment, sources: Mapping[str, Splits], split: str) -> int:
    """The rows that a split of a dataset has, or reaches up to."""
    recipe = experiment.recipes[dataset]
    if isinstance(recipe.size_of, str):
        return _size(recipe.size_of, experiment, sources, split)
    if recipe.size_of is not None:
        return sum(len(sources[name][split]) for name in recipe.size_of)
    pools = _pools(recipe, experiment, sources, split)
    if not recipe.mixes_shares:
        return sum(map(len, pools))
    # As large as the scarcest part allows.
    sizes = [len(pool) / part.take for part, pool in zip(recipe.parts, pools, strict=True)]
    return int(min(sizes))


def _pools(
    recipe: Recipe, experiment: Experiment, sources: Mapping[str, Splits], split: str
) -> list[Dataset]:
    """What each part takes its rows from."""
    return [_pool(sources[p.source][split], p, experiment.data) for p in recipe.parts]


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


def described(recipe: Recipe, splits: Splits, parts: list[dict]) -> dict[str, Any]:
    """What ``curation.json`` says of a dataset's making."""
    return {
        "title": recipe.title,
        "hub": recipe.hub,
        "certainty": recipe.certainty,
        "paper_rows": list(recipe.paper_rows) if recipe.paper_rows else None,
        "rows_certainty": recipe.rows_certainty,
        "rows": {split: len(rows) for split, rows in splits.items()},
        "parts": parts,
    }
