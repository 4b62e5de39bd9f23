"""Checkpoints that can be trusted: whole, and of the configuration that asks for them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from feyntune.experiment.files import remove
from feyntune.runs import records

HASHES = "feyntune-hashes.json"
KEY = "feyntune-key.json"
DIVERGED = "feyntune-diverged.json"


def seal(checkpoint: Path) -> None:
    """Write the hashes of a checkpoint's files beside them: until then it is not whole.

    The files are on the disk before their hashes are: a machine that dies loses neither alone.
    """
    for file in _contents(checkpoint):
        _to_disk(file)
    records.write(checkpoint / HASHES, _hashes(checkpoint))
    for place in (checkpoint / HASHES, checkpoint, checkpoint.parent):
        _to_disk(place)


def _to_disk(place: Path) -> None:
    """Let a file, or the names in a folder, survive the machine."""
    descriptor = os.open(place, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _contents(folder: Path) -> list[Path]:
    found = sorted(folder.rglob("*"))
    return [file for file in found if file.is_file() and file.name != HASHES]


def _hashes(folder: Path) -> dict[str, str]:
    return {str(f.relative_to(folder)): records.sha256(f) for f in _contents(folder)}


def resume_point(
    folder: Path, key: dict[str, str], report: Callable[[str], None] = print
) -> str | None:
    """The last whole checkpoint of a run with this ``key``, or ``None``.

    A checkpoint that is not whole is removed, and named to ``report``; all are removed, and that
    is said, if they are of other settings, code or inputs.
    """
    if records.read(folder / KEY) != {"key": key}:
        others = sorted(path.name for path in folder.glob("checkpoint-*"))
        if others:
            report(
                f"{', '.join(others)} removed: of other settings, code or inputs than today's. "
                "Starting anew."
            )
        remove(folder)
        records.write(folder / KEY, {"key": key})
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for checkpoint in reversed(found):
        damage = _damage(checkpoint)
        if damage is None:
            report(f"Going on from {checkpoint.name}.")
            return str(checkpoint)
        report(f"{checkpoint.name} is not whole ({damage}): removed.")
        remove(checkpoint)
    if found:
        report("No whole checkpoint is left: starting anew.")
    return None


def _damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint; ``None`` if it is whole."""
    sealed, found = records.read(checkpoint / HASHES), _hashes(checkpoint)
    if sealed is None:
        return "it was never finished, or its hashes cannot be read"
    wrong = sorted(name for name in {*sealed, *found} if sealed.get(name) != found.get(name))
    return f"{', '.join(wrong)} changed or missing" if wrong else None
