"""The notebooks as a reader finds them: one shape, short cells, nothing hidden, checked outputs."""

from __future__ import annotations

import ast

import nbformat
import pytest

from feyntune.paths import NOTEBOOKS
from feyntune.runs.stages import STAGES

MARK = "# NBVAL_CHECK_OUTPUT"
FILES = sorted(NOTEBOOKS.glob("*.ipynb"))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def notebook(request) -> nbformat.NotebookNode:
    return nbformat.read(request.param, as_version=4)


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_every_stage_with_a_notebook_has_one():
    stages = {s.name for s in STAGES.values() if not s.maker}
    assert {path.stem for path in FILES} == stages | {"explore"}


def test_opens_with_title_question_and_what_it_reads_and_writes(notebook):
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    assert all(word in first.source for word in ("**Question.**", "**Reads**", "**Writes**"))


def test_one_parameters_cell_with_one_commented_name_a_line(notebook):
    tagged = [cell for cell in code(notebook) if "parameters" in cell.metadata.get("tags", [])]
    assert tagged == [code(notebook)[0]]
    for line in tagged[0].source.splitlines():
        assignment, meaning = line.split("  # ")
        assert isinstance(ast.parse(assignment).body[0], ast.Assign) and meaning


def test_cells_are_short_and_hide_no_functions(notebook):
    for cell in code(notebook):
        assert len(cell.source.splitlines()) <= 30, cell.source
        defined = (ast.FunctionDef, ast.ClassDef, ast.Lambda)
        assert not [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, defined)]


def test_checked_cells_have_outputs_to_compare_and_others_have_none(notebook):
    """nbval passes a cell without an output, whatever it prints."""
    checked = [cell for cell in code(notebook) if cell.source.startswith(MARK)]
    assert checked
    for cell in code(notebook):
        assert bool(cell.outputs) == (cell in checked)
        assert (cell.execution_count is not None) == (cell in checked)
        assert all(output.output_type != "error" for output in cell.outputs)
