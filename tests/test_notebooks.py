"""The notebooks as a reader finds them: one shape, short cells, nothing hidden, checked outputs."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys

import nbformat
import pytest

from feyntune.paths import NOTEBOOKS, REPOSITORY
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


def test_one_title_and_no_heading_twice(notebook):
    text = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    headings = re.findall(r"(?m)^(#+) (.*)$", "\n".join(text))
    assert [level for level, _ in headings].count("#") == 1
    assert len({title.lower() for _, title in headings}) == len(headings)


def test_the_notebooks_are_one_walk():
    """From README to explore and back."""
    walk = ["../README.md", *(path.name for path in FILES), "../README.md"]
    assert walk[-2] == "explore.ipynb"
    for before, path, after in zip(walk, FILES, walk[2:], strict=False):
        first = nbformat.read(path, as_version=4).cells[0].source
        assert f"]({before})" in first and f"]({after})" in first


@pytest.mark.parametrize(
    ("stage", "formulas"),
    [
        ("02_finetune", [r"\frac{\alpha}{r}\, B A\, x"]),
        ("03_perplexity", [r"\mathrm{PPL}(x) = \exp", r"\mathrm{PPL}_\mathrm{corpus}"]),
        ("04_completions", [r"\mathrm{SemScore}(a, m) =", r"\exp H ="]),
        ("07_figures_and_tables", [r"q_{(1-c)/2}"]),
    ],
)
def test_formulas_stand_where_they_are_computed(stage, formulas):
    cells = nbformat.read(NOTEBOOKS / f"{stage}.ipynb", as_version=4).cells
    for formula in formulas:
        (place,) = (n for n, cell in enumerate(cells) if formula in cell.source)
        assert cells[place].cell_type == "markdown" and cells[place + 1].cell_type == "code"


def test_without_results_one_line_says_what_to_run_first(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval-lax", "-p", "no:cacheprovider", "notebooks/"],
        cwd=REPOSITORY, env={**os.environ, "FEYNTUNE_OUTPUT": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    (line,) = (done.stdout + done.stderr).split("\n\n")[0].strip().splitlines()
    assert line.startswith("ERROR: 01_data_curation needs stand-in-snapshot, which is missing")
    assert "./run_all.sh --experiment smoke" in line
