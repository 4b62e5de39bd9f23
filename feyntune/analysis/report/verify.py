"""``feyntune verify``: recorded hashes, fetched files, claims and released rows, checked again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from feyntune.analysis.report import claims
from feyntune.analysis.report.expectations import MET, MISSED, NOT_RUN, UNDECIDED
from feyntune.data.fetch import download, pins, revisions
from feyntune.errors import UserError
from feyntune.experiment.schema import Experiment
from feyntune.paths import SPLITS, output_root
from feyntune.runs import records, stages
from feyntune.runs.freshness import FRESH, MISSING, Freshness, is_recorded

OK, WRONG, UNCHECKED = "ok", "WRONG", "not checked"


@dataclass(frozen=True)
class Finding:
    """One line of the answer: what was checked, and its state."""

    text: str
    state: str = OK


def verify(
    experiment: Experiment, *, mirror: Path | None, report: Callable[[str], None]
) -> list[Finding]:
    """Recheck every recorded hash and every claim of an experiment.

    Parameters
    ----------
    mirror
        Where released datasets are taken from instead of the Hub, as for ``feyntune fetch``.
    report
        Called with a line for each download.

    Raises
    ------
    UserError
        If the experiment has neither results nor anything fetched.
    """
    recorded = list(_results(experiment))
    fetched = list(_fetched(experiment))
    if {finding.state for finding in [*recorded, *fetched]} <= {UNCHECKED}:
        raise UserError(f"Experiment {experiment.name} has no results to verify.")
    states = {MET: OK, MISSED: WRONG, UNDECIDED: UNCHECKED, NOT_RUN: UNCHECKED}
    judged = [
        Finding(f"claim   {verdict.described()}", states[verdict.verdict])
        for verdict in claims.judge(experiment)
    ]
    return [*recorded, *fetched, *judged, *_released_rows(experiment, mirror, report)]


def _results(experiment: Experiment) -> Iterator[Finding]:
    """Every recorded file hashed again, and whether today's code and settings made the result."""
    freshness, planned = Freshness(experiment), stages.plan(experiment)
    made = {file for each in planned for file in records.files(each.writes).values()}
    hashed = cache(records.sha256)
    for each in planned:
        record = each.record
        if record is None:
            yield Finding(f"result  {each}: no record of the run that made it", UNCHECKED)
            continue
        known = record["outputs"] if is_recorded(record) else None
        changed = records.differences(record["outputs"], records.states(each.writes, known))
        for role in changed:
            yield Finding(f"result  {each}: {_place(each, role)} is not as recorded", WRONG)
        state, why = freshness.status(each)
        if state not in (FRESH, MISSING) and not changed:
            yield Finding(f"result  {each}: {state} ({why})", WRONG)
            continue
        # Freshness trusts an input's size and time; here its bytes are read.
        given = {
            role: file
            for role, file in records.files(each.reads).items()
            if role in record["inputs"] and file not in made and not is_recorded(record)
        }
        other = [r for r, file in given.items() if hashed(file) != record["inputs"][r]["sha256"]]
        for role in other:
            yield Finding(f"result  {each}: its input {role} was another", WRONG)
        if not changed and not other:
            yield _whole(each, record)


def _whole(of: stages.Run, record: dict) -> Finding:
    """What is said of a result that is as recorded; some of one that is committed is not here."""
    count, here = len(record["outputs"]), len(records.files(of.writes))
    if not is_recorded(record) or here == count:
        return Finding(f"result  {of}: {count} files")
    text = f"result  {of}: {here} of {count} files, the others are not committed"
    return Finding(text, OK if here else UNCHECKED)


def _place(of: stages.Run, role: str) -> str:
    """Where a result is, from the output folder; a file in a folder has the folder's role first."""
    name = next(name for name in of.writes if f"{role}/".startswith(f"{name}/"))
    place = of.writes[name] / role[len(name) + 1 :]
    return place.relative_to(output_root()).as_posix()


def _fetched(experiment: Experiment) -> Iterator[Finding]:
    """Every fetched file hashed again, against the lock."""
    if not pins.read(experiment):
        return
    differing = download.differences(experiment)
    changes = revisions.changes(experiment)
    if changes is not None:
        state = WRONG if changes.too_many else OK
        yield Finding(f"fetched {experiment.listed}: {changes}", state)
    absent = download.missing(experiment, experiment.outside)
    for line in differing:
        yield Finding(f"fetched {line}", WRONG)
    for name in experiment.outside:
        if name in absent:
            yield Finding(f"fetched {name}: not on this machine", UNCHECKED)
        elif name == experiment.listed:
            continue
        elif not any(line.startswith(f"{name}: ") for line in differing):
            yield Finding(f"fetched {name}: every byte as locked")


def _released_rows(
    experiment: Experiment, mirror: Path | None, report: Callable[[str], None]
) -> Iterator[Finding]:
    """The row ids of our ten datasets beside those of the released ones, in order."""
    if not experiment.compared:
        return
    ours = [d for d in experiment.compared if experiment.paths.split(d, "train").is_file()]
    if not ours:
        yield Finding("rows    the datasets are not curated yet", UNCHECKED)
        return
    try:
        download.fetch(experiment, experiment.compared, mirror=mirror, report=report)
    except UserError as error:
        yield Finding(f"rows    {error}", UNCHECKED)
        return
    for dataset in ours:
        for split in SPLITS:
            yield _compared(experiment, dataset, split)


def _compared(experiment: Experiment, dataset: str, split: str) -> Finding:
    folder = experiment.paths.fetched(dataset)
    files = sorted(folder.rglob(f"{split}-*.parquet"))
    name = f"rows    {dataset} {split} ({experiment.recipes[dataset].hub})"
    if not files:
        return Finding(f"{name}: the released dataset has no such split", WRONG)
    released = pd.concat(pd.read_parquet(file, columns=["id"]) for file in files)["id"].tolist()
    ours = pd.read_parquet(experiment.paths.split(dataset, split), columns=["id"])["id"].tolist()
    if ours == released:
        return Finding(f"{name}: {len(ours):,} ids, the same in the same order")
    if sorted(ours) == sorted(released):
        return Finding(f"{name}: {len(ours):,} ids, the same in another order", WRONG)
    common = len(set(ours) & set(released))
    return Finding(
        f"{name}: {len(ours):,} ids against {len(released):,} released, {common:,} in common",
        WRONG,
    )
