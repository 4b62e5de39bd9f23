"""The package has the layout of CONTRIBUTING.md: imports in one direction, small folders."""

import ast
from pathlib import Path

import pytest

import feyntune
from feyntune.paths import PACKAGE
from feyntune.runs import code

# From the bottom up: each imports only from those before it.
ORDER = [
    *("errors", "paths", "surroundings", "machine", "experiment", "runs", "data", "models"),
    *("training", "evaluation", "ratings", "analysis", "explore", "pipeline", "cli", "__main__"),
]
NOT_FROM_EACH_OTHER = {("training", "evaluation"), ("evaluation", "training")}
COMPUTING = {"numpy", "pandas", "pyarrow", "datasets", "scipy", "torch"}
MODULES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = sorted({path.parent for path in MODULES})


def part(path: Path) -> str:
    """The sub-package or module at the top that a file is of."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Dotted names of everything a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_imports_go_in_one_direction():
    wrong = []
    for path in MODULES:
        mine = part(path)
        for name in imported(path):
            other = name.split(".")[1] if name.startswith("feyntune.") else mine
            down = mine == "__init__" or ORDER.index(other) <= ORDER.index(mine)
            if not down or (mine, other) in NOT_FROM_EACH_OTHER:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert wrong == []


def test_nothing_is_computed_where_the_code_hash_does_not_look():
    for path in MODULES:
        if f"feyntune.{part(path)}" in code.LEFT_OUT:
            assert not {name.split(".")[0] for name in imported(path)} & COMPUTING, path


def test_folders_are_small_and_names_are_unique():
    for folder in FOLDERS:
        entries = [p for p in folder.iterdir() if not p.name.startswith((".", "__pycache__"))]
        assert folder == PACKAGE or len(entries) <= 9, folder
    names = [path.stem for path in MODULES if not path.stem.startswith("__")]
    names += [folder.name for folder in FOLDERS if folder != PACKAGE]
    assert sorted(names) == sorted(set(names)), "going to a file gives one hit"


@pytest.mark.parametrize("folder", [f for f in FOLDERS if f != PACKAGE], ids=lambda f: f.name)
def test_every_sub_package_is_a_map(folder):
    """Its ``__init__`` imports nothing, and names every module of the folder in its docstring."""
    tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
    assert len(tree.body) == 1, "a docstring alone"
    text = ast.get_docstring(tree)
    for path in folder.iterdir():
        if path.suffix == ".py" and path.stem != "__init__":
            assert f"`{path.stem}`" in text, f"{path.stem} is not in the map"


def test_the_package_is_this_checkouts():
    assert Path(feyntune.__file__).parent == PACKAGE
