"""From which checkpoint a training resumes: a whole one, of a training with the same key.

A key is a mapping of named parts, such as ``{"settings": ..., "data": ..., "code": ...}``: what a
checkpoint was trained with. Checkpoints of another key, and damaged ones, are set aside under a
name and never deleted; they come back into use when their key is today's again.

    checkpoints/feyntune-key.json                            the key of the checkpoints beside it
    checkpoints/checkpoint-<step>/feyntune-hashes.json       written last: the checkpoint is whole
    checkpoints/set-aside/<when>-<why>/feyntune-key.json     the key of those set aside
    checkpoints/set-aside/<when>-<why>/checkpoint-<step>/
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from feyntune.experiment.files import free_name, remove
from feyntune.runs import records

HASHES = "feyntune-hashes.json"
KEY = "feyntune-key.json"
DIVERGED = "feyntune-diverged.json"
SET_ASIDE = "set-aside"
DAMAGED = "damaged"


def mark_complete(checkpoint: Path) -> None:
    """Write the hashes of a checkpoint's files into it: it is whole only from then on.

    The files are on the disk before their hashes are, so that a power failure cannot leave hashes
    without files.
    """
    for file in _files(checkpoint):
        _flush(file)
    records.write(checkpoint / HASHES, _hashes(checkpoint))
    for place in (checkpoint / HASHES, checkpoint, checkpoint.parent):
        _flush(place)


def _flush(place: Path) -> None:
    """Write a file, or the names in a folder, through to the disk."""
    descriptor = os.open(place, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _files(folder: Path) -> list[Path]:
    found = sorted(folder.rglob("*"))
    return [file for file in found if file.is_file() and file.name != HASHES]


def _hashes(folder: Path) -> dict[str, str]:
    return {str(f.relative_to(folder)): records.sha256(f) for f in _files(folder)}


def resume_point(
    folder: Path, key: dict[str, str], report: Callable[[str], None] = print
) -> str | None:
    """The last whole checkpoint of a training with this ``key``, or ``None``.

    Parameters
    ----------
    folder
        The checkpoints of one variant.
    key
        What the training depends on, as named parts.
    report
        Is given one line about each thing that was set aside or taken back into use.
    """
    _set_aside_other_keys(folder, key, report)
    records.write(folder / KEY, key)
    _take_back(folder, key, report)
    found = _checkpoints(folder)
    for checkpoint in reversed(found):
        damage = _damage(checkpoint)
        if damage is None:
            report(f"Going on from {checkpoint.name}.")
            return str(checkpoint)
        place = _set_aside(folder, [checkpoint], DAMAGED)
        report(f"{checkpoint.name} is not whole ({damage}): set aside in {place}.")
    if found:
        report("No whole checkpoint is left: starting from the beginning.")
    return None


def _set_aside_other_keys(folder: Path, key: dict[str, str], report: Callable[[str], None]) -> None:
    """Set the folder's checkpoints aside unless they were trained with this key."""
    stored = records.read(folder / KEY)
    others = [*_checkpoints(folder), *folder.glob(DIVERGED)]
    if stored == key or not others:
        return
    if stored is None:
        differing, why = ["unknown"], "what they were trained with cannot be read"
    else:
        differing = [name for name in {**key, **stored} if stored.get(name) != key.get(name)]
        why = f"trained with other {', '.join(differing)} than today's"
    place = _set_aside(folder, others, "-".join(differing), stored)
    names = ", ".join(path.name for path in others)
    report(f"{names} set aside in {place}: {why}.")


def _take_back(folder: Path, key: dict[str, str], report: Callable[[str], None]) -> None:
    """Move checkpoints that were set aside back into use, if their key is this one."""
    for place in sorted(folder.glob(f"{SET_ASIDE}/*/{KEY}")):
        if records.read(place) != key:
            continue
        names = sorted(path.name for path in place.parent.iterdir() if path != place)
        back = [name for name in names if not (folder / name).exists()]
        for name in back:
            (place.parent / name).rename(folder / name)
        if back:
            report(f"{', '.join(back)} taken back from {_shown(place.parent)}: the same key again.")
        if back == names:
            remove(place.parent)  # nothing but the key is left in it


def _set_aside(
    folder: Path, paths: Iterable[Path], why: str, key: dict[str, str] | None = None
) -> str:
    """Move paths into a new folder that is named after the time and a reason; returns its name."""
    name = f"{time.strftime('%Y-%m-%d-%H%M%S')}-{why}"
    place = free_name(folder / SET_ASIDE / name)
    place.mkdir(parents=True)
    if key is not None:
        records.write(place / KEY, key)
    for path in paths:
        path.rename(place / path.name)
    return _shown(place)


def _shown(place: Path) -> str:
    return f"{SET_ASIDE}/{place.name}"


def _checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, in the order of their steps."""
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))


def _damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint; ``None`` if it is whole."""
    written, found = records.read(checkpoint / HASHES), _hashes(checkpoint)
    if written is None:
        return "it was never finished, or its hashes cannot be read"
    wrong = sorted(name for name in {*written, *found} if written.get(name) != found.get(name))
    return f"{', '.join(wrong)} changed or missing" if wrong else None
