"""Commit what nbval compares: copy the outputs of checked cells from a run into the notebooks.

    ./run_all.sh --experiment smoke && python workflow/keep_outputs.py

Only cells marked ``# NBVAL_CHECK_OUTPUT`` keep an output; every other output is dropped.
"""

from __future__ import annotations

import nbformat

from feyntune.paths import NOTEBOOKS, Paths

MARK = "# NBVAL_CHECK_OUTPUT"


def main() -> None:
    executed = {
        path: nbformat.read(path, as_version=4)
        for path in sorted(Paths("smoke").results.glob("notebooks/*.ipynb"))
    }
    for source in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = nbformat.read(source, as_version=4)
        # Of a notebook that runs per variant or model, the run with the default parameters.
        runs = [run for path, run in executed.items() if path.stem.startswith(source.stem)]
        checked = _checked_cells(next(run for run in runs if _is_default(run, notebook)))
        for cell in notebook.cells:
            if cell.cell_type == "code":
                ran = cell.source in checked
                # nbval refuses outputs of a cell that does not say it ran.
                cell.execution_count = checked[cell.source].execution_count if ran else None
                cell.outputs = checked[cell.source].outputs if ran else []
        nbformat.write(notebook, source)


def _is_default(run: nbformat.NotebookNode, notebook: nbformat.NotebookNode) -> bool:
    """Whether a run's parameters are those that the notebook itself has."""
    default = next(cell.source for cell in notebook.cells if "parameters" in _tags(cell))
    values = run.metadata.papermill.parameters.items()
    return all(f'{name} = "{value}"' in default for name, value in values)


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
