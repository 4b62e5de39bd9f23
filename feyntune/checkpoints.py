"""Checkpoints that can be trusted: whole, and of the configuration that asks for them."""

from __future__ import annotations

from pathlib import Path

from feyntune import provenance
from feyntune.paths import remove

HASHES = "feyntune-hashes.json"
KEY = "feyntune-key.json"


def seal(checkpoint: Path) -> None:
    """Write the hashes of a checkpoint's files beside them: until then it is not whole."""
    provenance.write(checkpoint / HASHES, _hashes(checkpoint))


def _hashes(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): provenance.sha256(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != HASHES
    }


def resume_point(folder: Path, key: str) -> str | None:
    """The last whole checkpoint of a run with this ``key``, or ``None``.

    A checkpoint that is not whole is removed; all are, if they are of another configuration.
    """
    if provenance.read(folder / KEY) != {"key": key}:
        remove(folder)
        provenance.write(folder / KEY, {"key": key})
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for checkpoint in reversed(found):
        if provenance.read(checkpoint / HASHES) == _hashes(checkpoint):
            return str(checkpoint)
        remove(checkpoint)
    return None
