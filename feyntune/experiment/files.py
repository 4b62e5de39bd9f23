"""Writing files whole, finding and removing them, and the hash of a value."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel


@contextmanager
def writing(target: Path) -> Iterator[Path]:
    """Yield a temporary place next to ``target`` that takes its name when the block succeeds.

    A file (or folder) that exists under its final name is therefore complete: a killed run leaves
    only a ``.partial-`` name, which the next run removes.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".partial-{target.name}")
    remove(partial)
    try:
        yield partial
    except BaseException:
        remove(partial)
        raise
    if target.is_dir():
        # A folder cannot be replaced in one step; the moment between is covered by the run
        # record, which is written last.
        shutil.rmtree(target)
    os.replace(partial, target)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def free_name(wanted: Path) -> Path:
    """``wanted``, or the first of ``wanted-2``, ``wanted-3``, ... that does not exist."""
    place, number = wanted, 2
    while place.exists():
        place, number = wanted.with_name(f"{wanted.name}-{number}"), number + 1
    return place


def only_file(folder: Path) -> Path | None:
    """The file in a folder of one file; ``None`` where there is none, or more than one."""
    files = [path for path in folder.glob("*") if path.is_file()]
    return files[0] if len(files) == 1 else None


def fingerprint(value: Any) -> str:
    """SHA-256 of a JSON-like value or a pydantic section, independent of key order."""
    if isinstance(value, BaseModel):
        value = value.model_dump()
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
