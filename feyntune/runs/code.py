"""The code that a result depends on, as one hash.

Comments, docstrings, layout and Markdown do not count: rewording a notebook retrains nothing.
"""

from __future__ import annotations

import ast
import json
from functools import cache
from pathlib import Path

from feyntune.experiment.files import fingerprint
from feyntune.paths import NOTEBOOKS, PACKAGE


@cache
def of_notebook(name: str) -> str:
    """SHA-256 of a notebook's code cells and of every room that they reach by imports."""
    return _fingerprint(_code_cells(NOTEBOOKS / f"{name}.ipynb"))


@cache
def of_module(module: str) -> str:
    """SHA-256 of a module and of every room that it reaches by imports."""
    return _fingerprint(_module_file(module).read_text(encoding="utf-8"))


def _fingerprint(source: str) -> str:
    reached: dict[str, str] = {}
    waiting = [("", source)]
    while waiting:
        module, text = waiting.pop()
        tree = ast.parse(text)
        reached[module] = ast.unparse(_without_docstrings(tree))
        found = _imported_rooms(tree) - reached.keys()
        waiting += [(m, _module_file(m).read_text(encoding="utf-8")) for m in sorted(found)]
    return fingerprint(reached)


def _code_cells(notebook: Path) -> str:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    lines = [
        line
        for cell in cells
        if cell["cell_type"] == "code"
        for line in "".join(cell["source"]).splitlines()
    ]
    # IPython's own commands are no Python; none of ours moves a result.
    return "\n".join(line for line in lines if not line.startswith(("%", "!")))


def _module_file(module: str) -> Path:
    return PACKAGE.parent / (module.replace(".", "/") + ".py")


def _imported_rooms(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {n for n in names if n.startswith("feyntune.") and _module_file(n).is_file()}


def _without_docstrings(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        node.body = [
            item
            for item in body
            if not (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant))
        ] or [ast.Pass()]
    return tree
