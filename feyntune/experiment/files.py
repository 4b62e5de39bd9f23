"""Writing files whole, finding and removing them, reading YAML, and the hash of a value."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from feyntune.errors import UserError


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


# libyaml's where there is one, which is ten times as quick.
class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """YAML in which ``1e-2`` is a number, and which refuses a key written twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            # The first would be dropped silently.
            raise yaml.constructor.ConstructorError(
                None, None, f"written twice: {', '.join(twice)}", node.start_mark
            )
        return super().construct_mapping(node, deep)


# YAML 1.2's numbers, which YAML 1.1 reads as text where there is no dot. To the end of it: a hash
# may begin like a number.
_EXPONENT = re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9]*)?[eE][-+]?[0-9]+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))


def from_yaml(text: str, place: str) -> Any:
    """The value of a text in YAML.

    Raises
    ------
    UserError
        If it is none; ``place`` says which text.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{place} is not YAML: {' '.join(str(error).split())}") from None


def read_yaml(path: Path) -> Any:
    """The value of a YAML file."""
    place = f"{path.parent.name}/{path.name}"
    try:
        return from_yaml(path.read_text(encoding="utf-8"), place)
    except UnicodeDecodeError as error:
        raise UserError(f"{place} is not YAML: {error}") from None


def number_or_text(value: Any) -> Any:
    """A text that is a number, as papermill and YAML 1.1 leave ``1e-2``, as that number."""
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    return value
