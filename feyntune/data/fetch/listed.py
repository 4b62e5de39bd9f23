"""Abstracts listed by id: from arXiv's API, or from any snapshot that holds them.

They become a small snapshot of their own (``abstracts.jsonl``, in the order of the list), which
notebook 01 reads like any other. The lock has a hash of every abstract. One that changed since, or
is gone, is named and counted and stops nothing: authors revise their papers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

from feyntune.data import snapshot
from feyntune.data.fetch import pins, revisions
from feyntune.errors import UserError
from feyntune.experiment import load as experiments
from feyntune.experiment.files import writing
from feyntune.experiment.schema import Experiment
from feyntune.experiment.sources import ListedAbstracts


def bring(
    experiment: Experiment,
    name: str,
    source: ListedAbstracts,
    entry: pins.Entry | None,
    snapshots: list[Path],
    report: Callable[[str], None],
) -> pins.Entry:
    """Bring the abstracts that an experiment lists, unless they are here, and compare them.

    Parameters
    ----------
    entry
        What the lock has of them, if anything.
    snapshots
        Files to take them from; arXiv's API where there are none.
    report
        Called with a line on what changed since the lock was written, if anything did.

    Raises
    ------
    UserError
        If the list is not in order or is not that of the lock, or none of the abstracts is found.
    """
    ids = read_ids(source)
    if entry is not None and list(entry.abstracts) != ids:
        raise UserError(
            f"{name}: {source.id} lists other ids than the lock: `feyntune fetch --experiment "
            f"{experiment.name} --update` renews it."
        )
    folder = experiment.paths.fetched(name)
    if entry is None or not revisions.in_place(folder):
        _write(experiment, name, ids, snapshots)
    now = revisions.hashes(folder)
    if entry is None:
        lacking = [each for each in ids if each not in now]
        if lacking:
            raise UserError(
                f"{name}: there is no abstract {lacking[0]}{_more(lacking)}: remove it from "
                f"{source.id}."
            )
        return pins.Entry(source=source, commit=None, files={}, abstracts=now)
    changes = revisions.compare(entry.abstracts, now)
    if changes.changed or changes.gone:
        report(f"{name}: {changes}")
    return entry


def read_ids(source: ListedAbstracts) -> list[str]:
    """The ids of a list, in its order; ``#`` starts a comment.

    Raises
    ------
    UserError
        If there is no list, or an id in it is no arXiv id or listed twice.
    """
    place = experiments.beside(source.id)
    if not place.is_file():
        raise UserError(f"The list of ids {place} does not exist.")
    lines = place.read_text(encoding="utf-8").splitlines()
    ids = [line.split("#", 1)[0].strip() for line in lines]
    for number, given in enumerate(ids, 1):
        if given and not snapshot.ARXIV_ID.fullmatch(given):
            raise UserError(f"{source.id}, line {number}: {given!r} is no arXiv id.")
    ids = [given for given in ids if given]
    twice = [given for given, times in Counter(ids).items() if times > 1]
    if twice or not ids:
        raise UserError(f"{source.id} {f'lists {twice[0]} twice' if twice else 'lists no id'}.")
    return ids


def _write(experiment: Experiment, name: str, ids: list[str], snapshots: list[Path]) -> None:
    """Bring the papers and write those that there are, in the order of the list."""
    folder = experiment.paths.fetched(name)
    answers = folder.with_name(f".{name}-answers.jsonl")
    if snapshots:
        allowed = experiment.data.bad_lines_allowed
        found = _from_files(name, snapshots, ids, allowed)
    else:
        from feyntune.data.fetch import arxiv_api  # half a second that only the network needs

        found = arxiv_api.papers(name, ids, answers)
    with writing(folder) as partial:
        partial.mkdir()
        lines = [msgspec.json.encode(found[each]) + b"\n" for each in ids if each in found]
        (partial / revisions.FILE).write_bytes(b"".join(lines))
    answers.unlink(missing_ok=True)


def _from_files(
    name: str, files: list[Path], ids: list[str], bad_lines_allowed: float
) -> dict[str, snapshot.Paper]:
    """The listed papers of snapshots, by id."""
    wanted, found = set(ids), {}
    for file in files:
        reading = snapshot.Reading()
        for paper, _, _ in snapshot.papers(file, reading, bad_lines_allowed=bad_lines_allowed):
            if paper.id in wanted and paper.abstract.strip():
                found.setdefault(paper.id, paper)
    if not found:
        places = ", ".join(map(str, files))
        raise UserError(f"{name}: {places} holds none of the {len(ids):,} listed abstracts.")
    return found


def _more(found: list[str]) -> str:
    return f" (and {len(found) - 1} more)" if len(found) > 1 else ""
