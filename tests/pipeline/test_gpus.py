"""GPUs that stages reserve, with names that no driver has to know."""

import os
import subprocess
import sys
import threading
import time

import pytest

from feyntune.experiment import load
from feyntune.pipeline import gpus as machine
from feyntune.pipeline import notebooks
from feyntune.pipeline.gpus import VISIBLE, reserved
from feyntune.runs import signals, stages


@pytest.fixture(autouse=True)
def two(monkeypatch, tmp_path):
    monkeypatch.setenv(VISIBLE, "GPU-a,GPU/b")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_a_stage_sees_what_it_reserved():
    with reserved(1):
        assert os.environ[VISIBLE] == "GPU-a"
        with reserved(1):  # a stage of a share that has reserved it
            assert os.environ[VISIBLE] == "GPU-a"
        with reserved(0):
            assert machine.gpus() == []
        assert os.environ[VISIBLE] == "GPU-a"
    assert machine.gpus() == ["GPU-a", "GPU/b"]


HOLD = """
import sys, time
from feyntune.pipeline.gpus import reserved
with reserved(1):
    print(flush=True)
    time.sleep(float(sys.argv[1]))
"""


def holding(seconds: float) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(seconds)],
        env={**os.environ, "TMPDIR": os.fspath(machine.tempfile.gettempdir())},
        stdout=subprocess.PIPE,
    )
    process.stdout.readline()
    return process


def test_two_processes_never_share_one_and_the_third_waits():
    first = holding(60)
    try:
        with reserved(1):
            assert os.environ[VISIBLE] == "GPU/b"
        second = holding(1.5)
        with reserved(1):  # only when one of the others has ended
            assert second.poll() is not None or second.wait(5) == 0
            assert os.environ[VISIBLE] == "GPU/b"
    finally:
        first.kill()


def test_a_machine_without_any_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(machine, "gpus", list)
    with reserved(1):
        assert os.environ[VISIBLE] == "GPU-a,GPU/b"


@pytest.mark.parametrize(
    ("workers", "sizes"), [(None, [7, 7, 7]), (1, [7, 7, 7]), (8, [3] * 7), (30, [1] * 21)]
)
def test_jobs_use_every_gpu_and_every_model_once(workers, sizes):
    paper = load.load("paper")
    parts = stages.shared(stages.every(paper, stages.PERPLEXITY), workers)
    assert [len(part) for part in parts] == sizes
    assert sorted(each.subject for part in parts for each in part) == sorted(paper.models)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import time; print('ready', flush=True); time.sleep(60)", "Asked to end"),
        (
            "from feyntune.runs import signals\n"
            "import time\n"
            "with signals.listening() as request:\n"
            "    while not request.received: time.sleep(0.1)\n"
            "raise signals.Preempted('checkpoint-7 is saved')",
            "checkpoint-7 is saved",
        ),
    ],
    ids=["a cell that does not listen", "one that does"],
)
def test_sigterm_reaches_the_kernel(tmp_path, monkeypatch, source, said):
    import nbformat

    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path / "out"))
    monkeypatch.setattr(notebooks, "NOTEBOOKS", tmp_path)
    parameters = nbformat.v4.new_code_cell(
        'experiment = "smoke"  # e\nmodel = "base"  # m', metadata={"tags": ["parameters"]}
    )
    mark = tmp_path / "ready"
    cell = nbformat.v4.new_code_cell(f"open({str(mark)!r}, 'w').close()\n{source}")
    notebook = nbformat.v4.new_notebook(
        cells=[parameters, cell],
        metadata={
            "kernelspec": {"name": "python3", "language": "python", "display_name": "Python"}
        },
    )
    nbformat.write(notebook, tmp_path / "03_perplexity.ipynb")

    def ask() -> None:
        while not mark.exists():
            time.sleep(0.1)
        time.sleep(0.5)
        os.kill(os.getpid(), signals.signal.SIGTERM)

    threading.Thread(target=ask, daemon=True).start()
    with pytest.raises(signals.Preempted, match=said):
        notebooks.execute(stages.run(load.load("smoke"), stages.PERPLEXITY, "base"))
