"""Checking what lies on disk against everything that was ever said of it.

Recorded hashes of results and of what was fetched, the claims of the experiment, and row for row
the authors' released datasets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from feyntune import claims, hub, provenance, stages
from feyntune.errors import UserError
from feyntune.paths import SPLITS, named
from feyntune.settings import Experiment
from feyntune.survey import FRESH, MISSING, Survey
from feyntune.variants import RECIPES


@dataclass(frozen=True)
class Finding:
    """One line of the answer, and whether it is a mismatch."""

    text: str
    wrong: bool = False


def verify(
    experiment: Experiment, *, mirror: Path | None, report: Callable[[str], None]
) -> list[Finding]:
    """Recheck every recorded hash and every claim of an experiment.

    Parameters
    ----------
    mirror
        Where released datasets are taken from instead of the Hub, as for ``feyntune fetch``.
    report
        Told what is going on.

    Raises
    ------
    UserError
        If the experiment has neither results nor anything fetched.
    """
    recorded = list(_results(experiment))
    fetched = list(_fetched(experiment))
    if not recorded and not fetched:
        raise UserError(f"Experiment {experiment.name} has no results to verify.")
    judged = [
        Finding(f"claim   {verdict.described()}", wrong=verdict.verdict == claims.MISSED)
        for verdict in claims.judge(experiment)
    ]
    return [*recorded, *fetched, *judged, *_released_rows(experiment, mirror, report)]


def _results(experiment: Experiment) -> Iterator[Finding]:
    """Every recorded output hashed again, and whether today's code and settings made it."""
    survey = Survey(experiment)
    for name, subject in stages.plan(experiment):
        record = provenance.read(experiment.paths.record(name, subject))
        if record is None:
            continue
        writes = stages.STAGES[name].writes(experiment.paths, subject)
        changed = provenance.differences(record["outputs"], provenance.states(writes))
        for file in changed:
            yield Finding(f"result  {named(name, subject)}: {file} is not as recorded", wrong=True)
        state, why = survey.state(name, subject)
        if state not in (FRESH, MISSING) and not changed:
            yield Finding(f"result  {named(name, subject)}: {state} ({why})", wrong=True)
        elif not changed:
            yield Finding(f"result  {named(name, subject)}: {len(record['outputs'])} files")


def _fetched(experiment: Experiment) -> Iterator[Finding]:
    """Every fetched file hashed again, against the lock."""
    if not hub.locked(experiment):
        return
    for line in hub.differences(experiment):
        yield Finding(f"fetched {line}", wrong=True)
    absent = hub.missing(experiment, experiment.sources)
    here = len(experiment.sources) - len(absent)
    yield Finding(f"fetched {here} of {len(experiment.sources)} sources are here, hashed")


def _released_rows(
    experiment: Experiment, mirror: Path | None, report: Callable[[str], None]
) -> Iterator[Finding]:
    """The row ids of our ten datasets beside those of the released ones, in order."""
    if not experiment.compared:
        return
    ours = [d for d in experiment.compared if experiment.paths.split(d, "train").is_file()]
    if not ours:
        yield Finding("rows    not compared: the datasets are not curated yet")
        return
    try:
        hub.fetch(experiment, experiment.compared, mirror=mirror, report=report)
    except UserError as error:
        yield Finding(f"rows    not compared: {error}")
        return
    for dataset in ours:
        for split in SPLITS:
            yield _compared(experiment, dataset, split)


def _compared(experiment: Experiment, dataset: str, split: str) -> Finding:
    folder = experiment.paths.fetched(dataset)
    files = sorted(folder.rglob(f"{split}-*.parquet"))
    name = f"rows    {dataset} {split} ({RECIPES[dataset].hub})"
    if not files:
        return Finding(f"{name}: the released dataset has no such split", wrong=True)
    released = pd.concat(pd.read_parquet(file, columns=["id"]) for file in files)["id"].tolist()
    ours = pd.read_parquet(experiment.paths.split(dataset, split), columns=["id"])["id"].tolist()
    if ours == released:
        return Finding(f"{name}: {len(ours):,} ids, the same in the same order")
    if sorted(ours) == sorted(released):
        return Finding(f"{name}: {len(ours):,} ids, the same in another order", wrong=True)
    common = len(set(ours) & set(released))
    return Finding(
        f"{name}: {len(ours):,} ids against {len(released):,} released, {common:,} in common",
        wrong=True,
    )
