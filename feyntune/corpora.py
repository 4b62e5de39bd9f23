"""The ten datasets from curated abstracts: splits, mixtures, overlap with the test set.

Splitting, concatenating and shuffling are the released notebooks' own library calls, so that from
the paper's snapshot they give the paper's rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import count
from typing import Any

import pandas as pd
from datasets import Dataset, concatenate_datasets

from feyntune.errors import UserError
from feyntune.paths import SPLITS
from feyntune.settings import Data
from feyntune.variants import FILL, RECIPES, SOURCES, Part, Recipe

Splits = dict[str, Dataset]
COLUMNS = ("id", "title", "categories", "primary", "year", "abstract")


def sample(rows: Mapping[str, list[dict]], data: Data) -> dict[str, pd.DataFrame]:
    """Take each field's share of abstracts, as the paper took 200,000 of cs.

    Raises
    ------
    UserError
        If a field has too few: which datasets need it, how many, and how many there are.
    """
    sampled = {}
    fewest = _fewest(data.train_share)
    for name, wanted in data.sample.items():
        frame = pd.DataFrame(rows[name], columns=["line", *COLUMNS]).set_index("line")
        needed, available = max(wanted or 0, fewest), min(len(frame), wanted or len(frame))
        if available < needed:
            using = [d for d, recipe in RECIPES.items() if name in _fields(recipe)]
            raise UserError(
                f"Too few {name} abstracts for {', '.join(using)}: {needed} are needed, there are "
                f"{available} (data.sample: {wanted or 'all'} of {len(frame)} after curation)."
            )
        sampled[name] = frame.sample(wanted, random_state=data.sample_seed) if wanted else frame
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


def split_sources(sampled: Mapping[str, pd.DataFrame], data: Data) -> dict[str, Splits]:
    """Split every source into train, validation and test.

    ``train_test_split`` twice with one seed. The second call's test part is ``test`` and its
    train part ``validation``, as in the released data.
    """
    sources = {}
    for name in SOURCES:
        fields = name.split("+")
        frame = pd.concat([sampled[field] for field in fields])
        # A source of two fields has them in the snapshot's order, as if selected at once.
        frame = frame.sort_index() if len(fields) > 1 else frame
        whole = Dataset.from_pandas(frame, preserve_index=False)
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
        taken = _take(dataset, recipe, sources, split)
        for counted, rows in zip(counts, taken, strict=True):
            counted["rows"][split] = len(rows)
        mixed = len(taken) > 1
        splits[split] = (
            concatenate_datasets(taken).shuffle(seed=data.shuffle_seed) if mixed else taken[0]
        )
    return splits, counts


def _take(dataset: str, recipe: Recipe, sources: Mapping[str, Splits], split: str) -> list[Dataset]:
    """What each part gives to a split, the part that fills up last of all but in its place."""
    size = sum(len(sources[name][split]) for name in recipe.size_of)
    pools = [_pool(sources[part.source][split], part) for part in recipe.parts]
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


def _pool(rows: Dataset, part: Part) -> Dataset:
    """The rows that a part takes its first ones from."""
    if part.only is None:
        return rows
    # [:] reads a column at once; iterating it reads row by row.
    keep = [i for i, category in enumerate(rows["primary"][:]) if category == part.only]
    return rows.select(keep)


def _rows_wanted(
    part: Part, available: int, size: int, sources: Mapping[str, Splits]
) -> int | None:
    """Rows of a part by its rule; ``None`` for whatever the others leave."""
    if part.take is None:
        return available
    if part.take == FILL:
        return None
    if part.take == "scaled":
        whole = {name: sum(len(s) for s in sources[name].values()) for name in sources}
        return int(available * whole["hep-th"] / whole["hep-ph+gr-qc"])
    return int(part.take * size)


def overlap(training: Dataset, test: Dataset) -> dict[str, int]:
    """Test abstracts that a training set also has: by id, and by text without case and spacing."""
    return {
        "ids": len(set(training["id"][:]) & set(test["id"][:])),
        "texts": len(_texts(training) & _texts(test)),
    }


def _texts(rows: Dataset) -> set[str]:
    return {normalised(text) for text in rows["abstract"][:]}


def normalised(text: str) -> str:
    """Text reduced to what two copies of one abstract share."""
    return re.sub(r"\W+", " ", text).strip().lower()


def described(dataset: str, splits: Splits, parts: list[dict], test: Dataset) -> dict[str, Any]:
    """What ``curation.json`` says of a dataset."""
    recipe = RECIPES[dataset]
    return {
        "title": recipe.title,
        "hub": recipe.hub,
        "certainty": recipe.certainty,
        "paper_rows": list(recipe.paper_rows) if recipe.paper_rows else None,
        "rows_certainty": recipe.rows_certainty,
        "rows": {split: len(rows) for split, rows in splits.items()},
        "parts": parts,
        "overlap_with_s1_test": overlap(splits["train"], test),
    }
