"""The code that a result depends on, as hashes by module.

A stage depends on the code cells of its notebook, but for the cell of parameters (those are
settings), and on every module that they reach by imports. What only describes, finds, orders and
records the work is left out: `errors`, `paths`, `surroundings`, `machine`, and the sub-packages
`experiment`, `runs` and `pipeline`, in which nothing is computed. So are comments, docstrings,
layout, and what is said to people: the arguments of ``raise``, of errors, warnings, ``print`` and
progress.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib.util import cache_from_source
from pathlib import Path

from feyntune.paths import NOTEBOOKS, PACKAGE

# Modules and sub-packages whose code changes no result.
LEFT_OUT = tuple(
    f"feyntune.{name}"
    for name in ("errors", "paths", "surroundings", "machine", "experiment", "runs", "pipeline")
)
# Calls that only say something, by the last part of their name.
SAYING = {"print", "warn", "echo", "report", "display", "debug", "info", "warning", "exception"}
# Arguments by which a progress bar describes itself.
BARS = {"tqdm", "trange", "track"}
CELLS = "code cells"
# Hashes of texts, beside the bytecode of this module.
KEPT = Path(cache_from_source(__file__)).with_suffix(".hashes")
# How a notebook calls the end of its run.
FINISH = "run.finish("


@cache
def of_notebook(name: str) -> dict[str, str]:
    """Hash of a notebook's code cells and of every module they reach, by name."""
    return _hashes(CELLS, "\n".join(code_cells(NOTEBOOKS / f"{name}.ipynb")))


@cache
def of_module(module: str) -> dict[str, str]:
    """Hash of a module and of every module it reaches, by name."""
    return _hashes(module, _module_file(module).read_text(encoding="utf-8"))


def code_cells(notebook: Path) -> list[str]:
    """The code cells that count, in order: all but the one tagged ``parameters``."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [
        "".join(cell["source"])
        for cell in cells
        if cell["cell_type"] == "code" and "parameters" not in cell["metadata"].get("tags", [])
    ]


def tagged_cell(notebook: Path, tag: str) -> str:
    """The one code cell that has a tag."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    (cell,) = (each for each in cells if tag in each["metadata"].get("tags", []))
    return "".join(cell["source"])


def normalised(source: str) -> ast.Module:
    """Python code without what changes no result; IPython's own commands are left out, too."""
    lines = (line for line in source.splitlines() if not line.startswith(("%", "!")))
    return _Normaliser().visit(ast.parse("\n".join(lines)))


def digest(tree: ast.AST) -> str:
    """SHA-256 of normalised code, in hexadecimal."""
    return _hash(ast.unparse(tree))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _hashes(name: str, source: str) -> dict[str, str]:
    own, waiting = _read(source)
    found, waiting = {name: own}, list(waiting)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found[module], reached = _module(module)
            waiting += reached
    return dict(sorted(found.items()))


@cache
def _module(module: str) -> tuple[str, tuple[str, ...]]:
    """The hash of one module, and the modules it imports."""
    return _read(_module_file(module).read_text(encoding="utf-8"))


def _read(source: str) -> tuple[str, tuple[str, ...]]:
    own, names = _parsed(source)
    return own, tuple(name for name in names if _module_file(name).is_file())


@cache
def _parsed(source: str) -> tuple[str, tuple[str, ...]]:
    """The hash of code, and the names of the package's that it imports: modules, or in modules.

    Kept for other processes, as Python keeps what it compiles: most of their start went into it.
    """
    kept = KEPT / _hash(_hash(source) + _how())
    with suppress(OSError, ValueError):
        own, *names = json.loads(kept.read_text(encoding="utf-8"))
        return own, tuple(names)
    tree = normalised(source)
    own, names = digest(tree), tuple(_names_in(tree))
    with suppress(OSError):
        if not sys.dont_write_bytecode:
            KEPT.mkdir(parents=True, exist_ok=True)
            partial, path = tempfile.mkstemp(dir=KEPT)
            with os.fdopen(partial, "w", encoding="utf-8") as file:
                json.dump([own, *names], file)
            os.replace(path, kept)
    return own, names


@cache
def _how() -> str:
    """What else decides on a text's hash: this module and Python."""
    return _hash(Path(__file__).read_text(encoding="utf-8")) + sys.version


def forget() -> None:
    """Read every file anew at the next call; what a text was parsed to stays known."""
    for kept in (of_notebook, of_module, _module):
        kept.cache_clear()


def _module_file(module: str) -> Path:
    return PACKAGE.parent / (module.replace(".", "/") + ".py")


def _names_in(tree: ast.AST) -> Iterator[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    for name in sorted(names):
        if name.startswith("feyntune.") and not left_out(name):
            yield name


def left_out(module: str) -> bool:
    """Whether a module's code changes no result."""
    return any(module == name or module.startswith(f"{name}.") for name in LEFT_OUT)


class _Normaliser(ast.NodeTransformer):
    """Leaves out of code what is said to people, and where plumbing is imported from."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [item for item in body if not _is_constant(item)] or [ast.Pass()]
        return node

    def visit_Import(self, node: ast.Import) -> ast.AST | None:
        node.names = [alias for alias in node.names if not left_out(alias.name)]
        return node if node.names else None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        module = node.module or ""
        node.names = [a for a in node.names if not left_out(f"{module}.{a.name}")]
        return node if node.names and not left_out(module) else None

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.exc, ast.Call):
            node.exc = _silent(node.exc)
        return node

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        node.msg = None
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        name = _last_name(node.func)
        if name in SAYING or name.endswith(("Error", "Warning")):
            return _silent(node)
        if name in BARS:
            node.keywords = [word for word in node.keywords if word.arg == "iterable"]
        return node


def _silent(call: ast.Call) -> ast.Call:
    """A call without its arguments, but for values that these give a name."""
    named = [n for a in _arguments(call) for n in ast.walk(a) if isinstance(n, ast.NamedExpr)]
    return ast.Call(func=call.func, args=named, keywords=[])


def _arguments(call: ast.Call) -> Iterable[ast.expr]:
    return [*call.args, *(word.value for word in call.keywords)]


def _is_constant(item: ast.AST) -> bool:
    return isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant)


def _last_name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def cells_not_run(stage: str) -> int:
    """How many of a notebook's saved code cells, up to the record, this kernel has not run."""
    from IPython import get_ipython

    shell = get_ipython()
    ran = set(map(_meaning, shell.history_manager.input_hist_raw if shell else []))
    cells = code_cells(NOTEBOOKS / f"{stage}.ipynb")
    last = next(n for n, source in enumerate(cells) if FINISH in source)
    return sum(_meaning(source) not in ran for source in cells[: last + 1])


def _meaning(source: str) -> str:
    """What a cell computes, as a hash; empty for what is not Python alone."""
    try:
        return digest(normalised(source))
    except SyntaxError:
        return ""
