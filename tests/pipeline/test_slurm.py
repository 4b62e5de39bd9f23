"""The workflow on SLURM: on a real cluster of one node where its packages are installed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import own_experiments
import psutil
import pytest
import slurm_cluster
import yaml
from test_engine import (  # noqa: F401 (`finished` is a fixture)
    RESULTS,
    checkpointed,
    environment,
    finished,
    reproduce,
    wait_for,
)

from feyntune.errors import UserError
from feyntune.experiment import load
from feyntune.paths import WORKFLOW
from feyntune.pipeline import slurm as cluster
from feyntune.runs import stages

PROFILE = WORKFLOW / "profiles" / "slurm"
# The cluster of the test answers at once; the profile spares a real one.
SLURM = ("--profile", "slurm")
AT_ONCE = ("--", "--slurm-init-seconds-before-status-checks", "1")
# What the e2e run asks for on top of smoke's own requests, as a user would.
ASKED = {
    "resources.finetune": {"gpus": 1, "cores": 1, "memory_gb": 5, "minutes": 77},
    "resources.variants_per_job": 1,
}
GRANTED = ("TresPerJob=gres:gpu:1", "MinMemoryNode=5G", "TimeLimit=01:17:00", "NumCPUs=1")


# --- without a cluster ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["demo", "smoke", "released", "paper"])
def test_models_are_trained_and_measured_on_a_gpu_where_they_are_real(name):
    resources = load.load(name).resources
    for stage in stages.STAGES:
        asked = resources.of(stage)
        trains = stage in (stages.FINETUNE, stages.PERPLEXITY, stages.COMPLETIONS)
        assert asked.gpus == int(trains and name not in ("demo", "smoke")), stage


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """A folder first on PATH, to put commands in; no other command of SLURM is found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "env", "which", "cat"):
        (folder / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(folder))

    def put(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return put


def test_dry_run_needs_no_cluster(tmp_path, commands):
    done = reproduce(tmp_path, *SLURM, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("would run") == 15


def test_no_slurm_is_one_line(tmp_path, commands):
    done = reproduce(tmp_path, *SLURM)
    assert done.returncode == 2
    assert done.stderr.startswith("feyntune: Found no sbatch on PATH")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({"default-resources": ["slurm_partition=mian", "slurm_account=x"]}, []),
        ({"default-resources": {"slurm_partition": "mian"}}, []),
        ({"set-resources": {"finetune": {"slurm_partition": "other,mian"}}}, []),
        ({"set-resources": ["finetune:slurm_partition=mian"]}, []),
        ({}, ["--default-resources", "slurm_partition=mian"]),
        ({}, ["--set-resources", "finetune:slurm_partition='mian'"]),
    ],
)
def test_unknown_partition_is_named(commands, settings, options):
    commands("sbatch", "")
    commands("sinfo", "echo 'main*'; echo other")
    with pytest.raises(UserError, match=r"partition 'mian'\. Did you mean 'main'\? Valid: main, o"):
        cluster.check(settings, options)


@pytest.mark.parametrize(
    ("settings", "options", "there"),
    [
        ({}, [], "main* other"),
        ({"default-resources": ["slurm_partition=other"]}, [], "main other"),
        # What the command line says replaces the profile's.
        (
            {"default-resources": ["slurm_partition=gone"]},
            ["--default-resources", "slurm_partition=main"],
            "main",
        ),
        ({}, ["--default-resources=slurm_partition=main"], "main"),
    ],
)
def test_known_partitions_pass(commands, settings, options, there):
    commands("sbatch", "")
    commands("sinfo", f"echo '{there}'")
    cluster.check(settings, options)


def test_no_default_partition_is_said(commands):
    commands("sbatch", "")
    commands("sinfo", "echo main")
    with pytest.raises(UserError, match="no default partition: set slurm_partition"):
        cluster.check(cluster.settings_of(PROFILE), [])


def test_a_silent_controller_is_one_line(commands):
    commands("sbatch", "")
    commands("sinfo", "echo 'slurm_load_partitions:' >&2; echo 'timed out' >&2; exit 1")
    with pytest.raises(UserError, match=r"sinfo failed: slurm_load_partitions: timed out$"):
        cluster.check({}, [])


def test_the_example_in_the_profile_is_valid():
    """Taking the comment signs away, as its text asks a user to, leaves a profile."""
    text = (PROFILE / "config.yaml").read_text()
    opened = re.sub(r"^# (?=default-res|set-res|  )", "", text, flags=re.M)
    settings = yaml.safe_load(opened)
    rules = {stage.short for stage in stages.STAGES.values()}
    assert set(settings["set-resources"]) <= rules
    assert cluster._partitions(settings, []) == ["cpu", "gpu"]


# --- on a real cluster ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """Variables of a running cluster."""
    why_not = slurm_cluster.missing()
    if why_not:
        pytest.skip(why_not)
    folder = tmp_path_factory.mktemp("slurm")
    with slurm_cluster.running(folder) as variables:
        yield variables
    assert not slurm_cluster.members(folder)


class Queue:
    """The cluster's jobs, as a user asks for them."""

    def __init__(self, variables: dict[str, str]):
        self.variables = variables

    def ask(self, *command: str) -> str:
        return subprocess.run(
            command,
            env={**os.environ, **self.variables},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def jobs(self, what: str = "") -> list[str]:
        """Numbers of the jobs whose comment (rule and job) holds ``what``."""
        rows = self.ask("squeue", "--noheader", "--format=%A %T %k").splitlines()
        return [row.split()[0] for row in rows if what in row]

    def requeued(self, job: str) -> int:
        """How often a job went back to the queue."""
        return int(re.search(r"Restarts=(\d+)", self.ask("scontrol", "show", "job", job))[1])


def start(output: Path, variables: dict[str, str], *options: str) -> subprocess.Popen:
    own_experiments.changed(output, "smoke", ASKED)
    command = [sys.executable, "-m", "feyntune", "reproduce", "--experiment", "smoke", *SLURM]
    with (output / "log").open("w") as log:
        return subprocess.Popen(
            [*command, *options, *AT_ONCE],
            env=environment(output, **variables),
            stdout=log,
            stderr=log,
        )


def kill_run(variables: dict[str, str], run: str) -> None:
    """SIGKILL to the process of a run, as when a node's memory runs out."""
    killed = 0
    for process in slurm_cluster.members(Path(variables["SLURM_CONF"]).parent):
        # The jobs of this cluster alone: other tests run the same stages elsewhere.
        with contextlib.suppress(psutil.Error):
            line = process.cmdline()
            if "feyntune" in line and run in line:
                process.kill()
                killed += 1
    assert killed


def test_partition_that_is_not_there_is_one_line(slurm, tmp_path):
    named = ["--default-resources", "slurm_partition=mian"]
    done = reproduce(tmp_path, *SLURM, "--", *named, **slurm)
    assert done.returncode == 2
    assert done.stderr == (
        "feyntune: Unknown SLURM partition 'mian'. Did you mean 'main'? Valid: main, other.\n"
    )


def test_smoke_survives_kills_and_ends_with_the_same_bytes(slurm, finished, tmp_path):  # noqa: F811
    queue, finetune = Queue(slurm), tmp_path / "results/smoke/finetune"
    with_base_of(finished, tmp_path)

    # The engine is killed: its job outlives it, and is ended by the run that continues.
    engine = start(tmp_path, slurm)
    wait_for(lambda: queue.jobs("RUNNING rule_stand_in_snapshot"))
    engine.send_signal(signal.SIGKILL)
    engine.wait()
    assert queue.jobs()
    engine = start(tmp_path, slurm, "--jobs", "3")

    # Half-way through their training, one job is killed and the other one preempted.
    def kill(variant: str) -> None:
        kill_run(slurm, f"02_finetune-{variant}")

    def preempt(variant: str) -> None:
        (job,) = queue.jobs(f"rule_finetune_wildcards_02_finetune-{variant}")
        shown = queue.ask("scontrol", "show", "job", job)
        assert all(request in shown for request in (*GRANTED, "Requeue=1")), shown
        queue.ask("scontrol", "requeue", job)

    interrupt = {"s1-LoRA-QKV": kill, "s1-LoRA-all": preempt}
    while interrupt:
        variant = wait_for(
            lambda: next((v for v in interrupt if checkpointed(finetune / v)), None), 600
        )
        assert len(queue.jobs()) <= 3  # --jobs
        interrupt.pop(variant)(variant)

    # The node is lost with all that runs on it, and comes back. Not before the engine has seen the
    # kill: SLURM requeues a job that was still ending on its node as one that was lost.
    wait_for(lambda: "FAILED 02_finetune-s1-LoRA-QKV" in (tmp_path / "log").read_text(), 600)
    # The job that was interrupted last has most of its time before it.
    (lost,) = wait_for(
        lambda: queue.jobs(f"RUNNING rule_finetune_wildcards_02_finetune-{variant}"), 600
    )
    before = queue.requeued(lost)
    queue.ask("scontrol", "update", "NodeName=node1", "State=DOWN", "Reason=lost")
    wait_for(lambda: queue.requeued(lost) > before)
    queue.ask("scontrol", "update", "NodeName=node1", "State=RESUME")

    assert engine.wait(timeout=900) == 0, (tmp_path / "log").read_text()
    log = (tmp_path / "log").read_text()
    assert "Ended 1 jobs of an earlier run" in log
    assert log.count("FAILED 02_finetune-s1-LoRA-QKV") == log.count("FAILED") == 1
    assert queue.jobs() == []
    for variant in ("s1-LoRA-QKV", "s1-LoRA-all"):
        assert json.loads((finetune / variant / "run.json").read_text())["facts"]["resumed"] is True
    for name in RESULTS:
        path = Path("results/smoke") / name
        assert (tmp_path / path).read_bytes() == (finished / path).read_bytes(), name
    for picture in (finished / "figures/smoke").glob("*"):
        assert (tmp_path / "figures/smoke" / picture.name).read_bytes() == picture.read_bytes()


def with_base_of(finished: Path, output: Path) -> None:  # noqa: F811
    """Give a run the stand-in model of another, whose training would take minutes beside tests.

    Its job is submitted all the same, and finds that there is nothing to do.
    """
    there, here = finished / "results/smoke", output / "results/smoke"
    shutil.copytree(there / "base", here / "base")
    (here / "runs").mkdir()
    shutil.copy(there / "runs/stand-in-base.json", here / "runs")
