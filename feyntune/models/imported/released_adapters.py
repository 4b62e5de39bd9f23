"""The authors' adapters and test set, linked to where those that are made here would be."""

from __future__ import annotations

import os
from pathlib import Path

from feyntune.data import released_datasets
from feyntune.errors import UserError
from feyntune.experiment.files import writing
from feyntune.experiment.schema import TEST_SET, Experiment
from feyntune.models.adapters import FILES, check_adapter
from feyntune.runs import records


def make(experiment: Experiment) -> None:
    """Write the released test set in the format of ours, and link every released adapter.

    Raises
    ------
    UserError
        If the test set cannot be read, or an adapter lacks a file or has another base model or
        other LoRA settings; it names all such adapters.
    """
    paths = experiment.paths
    test = released_datasets.abstracts(released_datasets.read(paths, TEST_SET))
    with writing(paths.split("s1", "test")) as partial:
        test.to_parquet(partial, index=False)
    errors = []
    for variant in experiment.variants:
        try:
            _link(paths.fetched(variant), paths.adapter(variant))
            check_adapter(experiment, variant)
        except UserError as error:
            errors.append(str(error))
    if errors:
        raise UserError("\n".join(errors))
    records.note(abstracts=len(test), adapters=len(experiment.variants))


def _link(fetched: Path, adapter: Path) -> None:
    lacking = [name for name in FILES if not (fetched / name).is_file()]
    if lacking:
        raise UserError(f"There is no {' and no '.join(lacking)} in {fetched}: fetch again.")
    with writing(adapter) as folder:
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            # In a cache the file may be a link itself, with another name.
            os.symlink((fetched / name).resolve(), folder / name)
