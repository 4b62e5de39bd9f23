"""The floors that CONTRIBUTING.md draws are those of the code: imports go down only."""

from __future__ import annotations

import ast
import re

import pytest

from feyntune.paths import PACKAGE, REPOSITORY

ROOMS = sorted(path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__"))


def floors() -> dict[str, int]:
    """Floor of every room, as the table in CONTRIBUTING.md says."""
    rows = re.findall(r"^\| (\d) \| ([^|]+) \|", (REPOSITORY / "CONTRIBUTING.md").read_text(), re.M)
    return {room: int(floor) for floor, rooms in rows for room in re.findall(r"`(\w+)`", rooms)}


def imported(room: str) -> set[str]:
    """The rooms that a room imports anywhere in its files."""
    folder = PACKAGE / room
    files = folder.glob("*.py") if folder.is_dir() else [PACKAGE / f"{room}.py"]
    found: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "feyntune":
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("feyntune."):
                found.add(node.module.split(".")[1])
    return found - {room}


def test_every_room_has_a_floor():
    assert set(floors()) == {*ROOMS, "demo"}


@pytest.mark.parametrize("room", [*ROOMS, "demo"])
def test_imports_go_down(room):
    floor = floors()
    assert {other for other in imported(room) if floor[other] >= floor[room]} == set()
