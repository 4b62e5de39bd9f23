"""Executing a notebook: folders with braces, kernels that die, memory that runs out."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from feyntune.errors import UserError
from feyntune.experiment.load import load
from feyntune.pipeline import notebooks
from feyntune.runs import stages

PARAMETERS = 'experiment = ""\nmodel = ""\ntrial = ""\noverrides = {}'
KILLED = "import os; os.kill(os.getpid(), {})"


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Executes a notebook of one cell, all in folders whose names look like templates."""
    folder = tmp_path / "{x} $HOME [1]"
    folder.mkdir()
    monkeypatch.setattr(notebooks, "NOTEBOOKS", folder)
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path / "{model} 100%"))

    def one_cell(source: str):
        parameters = new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
        spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        cells = [parameters, new_code_cell(source)]
        whole = new_notebook(cells=cells, metadata={"kernelspec": spec})
        nbformat.write(whole, folder / "03_perplexity.ipynb")
        run = stages.run(load("smoke"), stages.PERPLEXITY, "base")
        with notebooks.environment(1, offline=True):
            notebooks.execute(run)
        return run

    return one_cell


def test_folders_are_no_templates(execute):
    run = execute("print(experiment, model)")
    assert "smoke base" in run.notebook.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            KILLED.format(9),
            "was killed by the system, most likely because memory ran out: run again",
        ),
        (KILLED.format(11), "its process crashed (SIGSEGV)"),
        ("import os; os._exit(3)", "its process crashed (exit status 3)"),
        ("raise MemoryError", "MemoryError:  (run again with --jobs 1"),
        ("raise RuntimeError(\"can't allocate memory: \" + 999 * 'x')", "run again with --jobs 1"),
        ("class TerminatedWorkerError(Exception): ...\nraise TerminatedWorkerError", "--jobs 1"),
        ("raise ValueError('no')", "ValueError: no (executed notebook"),
    ],
)
def test_what_ended_it_is_said_in_one_line(execute, source, said):
    with pytest.raises(UserError) as caught:
        execute(source)
    text = str(caught.value)
    assert text.startswith("03_perplexity-base ") and said in text
    assert "\n" not in text and len(text) < 600 and "DeadKernel" not in text
