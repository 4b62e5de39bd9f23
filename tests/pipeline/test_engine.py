"""The smoke experiment through the real workflow: Snakemake, papermill, kernels, SFTTrainer.

The experiment is run once (by ``run_tests.sh``, or here); each test works on a copy of its results.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import own_experiments
import psutil
import pytest
from filelock import FileLock

from feyntune.paths import REPOSITORY

RESULTS = (
    "finetune/s1-LoRA-QKV/adapter/adapter_model.safetensors",
    "finetune/s1-LoRA-QKV/adapter/adapter_config.json",
    "finetune/s1-LoRA-QKV/log.parquet",
    "perplexity/s1-LoRA-QKV.parquet",
    "completions/s1-LoRA-QKV.parquet",
)
TABLES = (
    "datasets",
    "hyperparameters",
    "perplexity",
    "perplexity-differences",
    "semscore",
    "nearness",
    "pairwise-cosine",
    "completions",
    "commercial",
    "compute",
)


def environment(output: Path, **more: str) -> dict[str, str]:
    shared = {"FEYNTUNE_OUTPUT": str(output), "PYTHONPATH": str(REPOSITORY)}
    return {**os.environ, **shared, **more}


def reproduce(output: Path, *options: str, **more: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "feyntune", "reproduce", "--experiment", "smoke", *options]
    return subprocess.run(
        command, env=environment(output, **more), capture_output=True, text=True, timeout=600
    )


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """The output folder of a finished smoke run."""
    given = os.environ.get("FEYNTUNE_SMOKE_OUTPUT")
    output = Path(given) if given else tmp_path_factory.mktemp("smoke")
    (output / "results/smoke").mkdir(parents=True, exist_ok=True)
    with FileLock(output / "results/smoke/.lock"):  # `run_tests.sh` may still be at it
        pass
    done = reproduce(output)
    assert done.returncode == 0, done.stdout + done.stderr
    return output


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """A copy of the finished run to break."""
    shutil.copytree(finished, tmp_path / "output", ignore=shutil.ignore_patterns(".snakemake"))
    return tmp_path / "output"


def records(output: Path) -> dict[str, str]:
    """Every run record, by its place."""
    found = [*output.glob("results/smoke/runs/*.json"), *output.glob("results/smoke/*/*/run.json")]
    return {str(path.relative_to(output)): path.read_text() for path in found}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """Names of the stages whose record is another one."""
    return {Path(p).stem if "runs" in p else p for p in after if before.get(p) != after[p]}


def test_smoke_makes_everything_that_the_readme_promises(finished):
    results = finished / "results" / "smoke"
    assert len(records(finished)) == 15
    for figure in (
        "fig-3.1-learning-curves",
        "fig-3.2-validation-perplexity",
        "fig-3.3-bootstrap-perplexity",
        "fig-3.4-completion-entropy",
    ):
        assert (finished / "figures/smoke" / f"{figure}.png").stat().st_size > 10_000
        assert (finished / "figures/smoke" / f"{figure}.pdf").stat().st_size > 5_000
    for table in TABLES:
        for ending in ("csv", "md", "tex"):
            text = (finished / "tables/smoke" / f"{table}.{ending}").read_text()
            assert "stand-in" in text
    executed = [nbformat.read(p, 4) for p in (results / "notebooks").glob("*.ipynb")]
    assert len(executed) == 13
    assert all("papermill" in notebook.metadata for notebook in executed)
    assert not list(finished.rglob(".partial-*"))


def test_records_say_what_made_a_result(finished):
    record = json.loads((finished / "results/smoke/finetune/s1-LoRA-all/run.json").read_text())
    assert record["stage"] == "02_finetune" and record["subject"] == "s1-LoRA-all"
    assert record["stand_in"] == "stand-in corpus and model"
    assert record["packages"]["torch"].split("+")[0] == "2.13.0"
    assert record["facts"]["steps"] == 20 and record["facts"]["tokens"] > 10_000
    assert 1e8 < record["peak_memory_bytes"] < 8 * 2**30
    assert {"adapter/adapter_model.safetensors", "log"} <= set(record["outputs"])
    assert {"data/s1/train", "base/model.safetensors"} <= set(record["inputs"])


def test_a_training_says_how_far_it_is(finished):
    """In its folder, in its job's log and, as a table alone, in its executed notebook."""
    results, run = finished / "results/smoke", "02_finetune-s1-LoRA-all"
    lines = (results / "finetune/s1-LoRA-all/log.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert len(steps) == 10 and steps == sorted(set(steps)) and steps[-1] == 20
    logs = "".join(path.read_text() for path in (results / "logs").glob("*.log"))
    assert all(f"{run}: step {step}/20 (" in logs for step in steps)
    cells = nbformat.read(results / "notebooks" / f"{run}.ipynb", 4).cells
    (cell,) = (cell for cell in cells if "trainer.train(" in cell.source)
    (table,) = (out["data"] for out in cell.outputs if out.output_type == "display_data")
    assert table["text/html"].count("<tr>") == 11
    assert not any("step 2/20" in out.get("text", "") for out in cell.outputs)


def test_a_second_run_does_nothing(copied):
    """Stamps and Snakemake's own folder may go, too: the run records decide."""
    shutil.rmtree(copied / "results/smoke/done")
    before = records(copied)
    done = reproduce(copied)
    assert done.returncode == 0
    assert "nothing to do" in done.stdout
    assert records(copied) == before


def test_one_failing_variant_stops_no_other_and_is_all_that_reruns(copied):
    before = records(copied)
    broken = {"name": "s1-LoRA-QKV", "training": {"max_length": 5}}
    own_experiments.changed(copied, "smoke", {"variants": ["s1-LoRA-all", broken]})
    failed = reproduce(copied)
    shutil.rmtree(copied / "experiments")
    assert failed.returncode != 0
    assert "training.max_length = 5" in failed.stderr
    assert failed.stderr.count("FAILED") == 1, "what needs it is not said again"
    notebook = copied / "results/smoke/notebooks/02_finetune-s1-LoRA-QKV.ipynb"
    outputs = [o for cell in nbformat.read(notebook, 4).cells for o in cell.get("outputs", [])]
    assert any(output.output_type == "error" for output in outputs)
    untouched = {p for p, text in records(copied).items() if before.get(p) == text}
    assert "results/smoke/finetune/s1-LoRA-all/run.json" in untouched

    mended = reproduce(copied)
    assert mended.returncode == 0, mended.stderr
    assert changed(before, records(copied)) <= {
        "results/smoke/finetune/s1-LoRA-QKV/run.json",
        "03_perplexity-s1-LoRA-QKV",
        "04_completions-s1-LoRA-QKV",
        "06_human_evaluation",
        "07_figures_and_tables",
        "08_reproduction_report",
    }


def test_killed_while_training_ends_as_if_it_had_not_been(finished, copied):
    """Nor does it matter that it began in a kernel that had trained another variant."""
    finetune, other = (copied / "results/smoke/finetune" / f"s1-LoRA-{f}" for f in ("QKV", "all"))
    shutil.rmtree(finetune)
    (other / "run.json").unlink()  # its last checkpoint is there: it ends at once
    running = subprocess.Popen(
        [sys.executable, "-m", "feyntune", "reproduce", "--experiment", "smoke", "--jobs", "1"],
        env=environment(copied),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    children = wait_for(
        lambda: checkpointed(finetune) and psutil.Process(running.pid).children(True)
    )
    running.send_signal(signal.SIGKILL)
    running.wait()
    # Nothing that the killed run started may go on writing beside the next one.
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive, [process.cmdline() for process in alive]
    assert not (finetune / "run.json").exists() and (other / "run.json").exists()

    again = reproduce(copied)
    assert again.returncode == 0, again.stderr
    record = json.loads((finetune / "run.json").read_text())
    assert record["facts"]["resumed"] is True
    for name in RESULTS:
        path = Path("results/smoke") / name
        assert (copied / path).read_bytes() == (finished / path).read_bytes(), name
    for picture in (finished / "figures/smoke").glob("*"):
        assert (copied / "figures/smoke" / picture.name).read_bytes() == picture.read_bytes()


def test_ctrl_c_keeps_checkpoints_and_says_that_the_same_command_goes_on(copied):
    """As from a shell's background, without a terminal, where SIGINT would be ignored."""
    finetune = copied / "results/smoke/finetune/s1-LoRA-QKV"
    shutil.rmtree(finetune)
    running = subprocess.Popen(
        [sys.executable, "-m", "feyntune", "reproduce", "--experiment", "smoke"],
        env=environment(copied),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    children = wait_for(
        lambda: checkpointed(finetune) and psutil.Process(running.pid).children(True)
    )
    running.send_signal(signal.SIGINT)
    said, errors = running.communicate(timeout=120)
    assert running.returncode == 130
    assert not psutil.wait_procs(children, timeout=20)[1]
    assert "Stopped by Ctrl-C: " in said and " of 15 stages of smoke are done" in said
    assert said.strip().endswith("The same command goes on from there.")
    assert "is saved; start again to go on from it" in errors and "Using profile" not in errors
    assert "FAILED" not in errors and checkpointed(finetune)


def checkpointed(finetune: Path) -> bool:
    return any(finetune.glob("checkpoints/checkpoint-*/feyntune-hashes.json"))


def wait_for(condition, seconds: float = 120):
    """Wait until ``condition`` holds and return what it gave."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise TimeoutError


def run_alone(output: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "feyntune", "run", *arguments, "--experiment", "smoke"]
    return subprocess.run(
        command, env=environment(output, **more), capture_output=True, text=True, timeout=300
    )


# Settings of the user's that would stop a notebook, make it wait or move its numbers.
USERS_FILES = {
    ".config/matplotlib/matplotlibrc": "text.usetex: True\n",
    ".ipython/profile_default/startup/mine.py": "raise SystemExit('mine')\n",
}
LEFT_BY_OTHERS = {
    **{"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29511"},
    **{"ACCELERATE_MIXED_PRECISION": "bf16", "PYTHONOPTIMIZE": "2", "USE_TORCH": "0"},
    **{"ALL_PROXY": "socks5://nowhere:1", "SSL_CERT_FILE": "/gone", "MPLBACKEND": "QtAgg"},
}


def test_a_kernel_of_its_own_gives_the_bytes_of_a_shared_one(finished, copied, tmp_path):
    """And it runs this checkout's code, whatever kernels, packages and settings the user has.

    In the workflow perplexity is measured in the kernel that has trained.
    """
    spec = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": ["false"], "display_name": "x", "language": "python"}))
    other = tmp_path / "other" / "feyntune"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise RuntimeError('another checkout')\n")
    path = os.pathsep.join([str(REPOSITORY), str(other.parent)])
    home = tmp_path / "home"
    for name, text in USERS_FILES.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    surroundings = {
        "JUPYTER_PATH": str(tmp_path / "jupyter"),
        "PYTHONPATH": path,
        "HOME": str(home),
        "MATPLOTLIBRC": str(home / ".config" / "matplotlib"),
        **LEFT_BY_OTHERS,
    }
    path = Path("results/smoke/perplexity/s1-LoRA-QKV.parquet")
    (copied / path).unlink()
    done = run_alone(copied, "03", "--model", "s1-LoRA-QKV", **surroundings)
    assert done.returncode == 0, done.stderr
    assert (copied / path).read_bytes() == (finished / path).read_bytes()


def test_figures_only_draws_what_is_there_and_names_the_rest(copied):
    (copied / "results/smoke/perplexity/s1-LoRA-QKV.parquet").unlink()
    done = reproduce(copied, "--figures-only")
    assert done.returncode == 0, done.stderr
    assert "not run" not in (copied / "tables/smoke/perplexity.csv").read_text()
    table = (copied / "results/smoke/partial/tables/perplexity.csv").read_text()
    assert "not run" in next(line for line in table.splitlines() if "s1-LoRA-QKV" in line)
    said = json.loads((copied / "results/smoke/report/claims.json").read_text())["claims"]
    verdicts = {each["claim"]: each["verdict"] for each in said}
    assert verdicts["both variants have a lower mean perplexity than base"] == "not run"
    assert "1 of 2 values in table perplexity-differences (not run)" in {e["why"] for e in said}
    page = (copied / "results/smoke/report/index.html").read_text()
    assert "03_perplexity-s1-LoRA-QKV" in page and "have no result that is up to date" in page
