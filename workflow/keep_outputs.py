"""Commit what nbval compares: copy the outputs of checked cells from a run into the notebooks.

    ./run_all.sh --experiment smoke && python workflow/keep_outputs.py

Only cells marked ``# NBVAL_CHECK_OUTPUT`` keep an output; every other output is dropped.
`explore.ipynb` is no stage, so no run has executed it: it is executed here.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import nbformat
import papermill

from feyntune.paths import NOTEBOOKS, Paths

MARK = "# NBVAL_CHECK_OUTPUT"
EXPLORE = NOTEBOOKS / "explore.ipynb"


def main() -> None:
    executed = {
        path: nbformat.read(path, as_version=4)
        for path in sorted(Paths("smoke").results.glob("notebooks/*.ipynb"))
    }
    for source in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = nbformat.read(source, as_version=4)
        if source == EXPLORE:
            run = _explored()
        else:
            # Of a notebook that runs per variant or model, the run with the default parameters.
            runs = [run for path, run in executed.items() if path.stem.startswith(source.stem)]
            run = next(run for run in runs if _is_default(run, notebook))
        checked = _checked_cells(run)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        # nbval refuses outputs of a cell that does not say it ran. Numbers are those of a run in a
        # kernel of its own, where the runner's parameters are a cell, too.
        for number, cell in enumerate(code, start=2):
            ran = cell.source in checked
            cell.execution_count = number if ran else None
            cell.outputs = checked[cell.source].outputs if ran else []
        nbformat.write(notebook, source)


def _explored() -> nbformat.NotebookNode:
    """`explore.ipynb`, executed on the results of `smoke`."""
    with tempfile.TemporaryDirectory() as folder:
        return papermill.execute_notebook(
            str(EXPLORE),
            str(Path(folder) / EXPLORE.name),
            parameters={"experiment": "smoke"},
            cwd=str(NOTEBOOKS),
            progress_bar=False,
        )


def _is_default(run: nbformat.NotebookNode, notebook: nbformat.NotebookNode) -> bool:
    """Whether a run's parameters are those that the notebook itself has."""
    default = next(cell.source for cell in notebook.cells if "parameters" in _tags(cell))
    values = run.metadata.papermill.parameters.items()
    return all(f"{name} = {json.dumps(value)}" in default for name, value in values)


def _tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def _checked_cells(run: nbformat.NotebookNode) -> dict[str, nbformat.NotebookNode]:
    return {
        cell.source: cell
        for cell in run.cells
        if cell.cell_type == "code" and cell.source.startswith(MARK)
    }


if __name__ == "__main__":
    main()
