"""A real SLURM cluster of one node on loopback, from the machine's own SLURM and munge.

    with slurm_cluster.running(folder) as variables:
        subprocess.run(["sinfo"], env={**os.environ, **variables})

Keys, sockets, state and logs lie in ``folder``; when the block ends, every process is gone.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

DAEMONS = ("munged", "slurmctld", "slurmd")
COMMANDS = ("sbatch", "srun", "squeue", "sinfo", "scancel", "scontrol")
PACKAGES = ("slurm-wlm", "munge")
# Daemons lie where only root looks for commands.
SEARCH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
NODE, PARTITIONS = "node1", ("main", "other")

# Two cores and two GPUs, whatever the machine has. No accounting, and no control groups, of which a
# container has none to give.
SLURM_CONF = """
ClusterName=feyntune
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# A requeued job waits until its first credential has expired.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,bf_interval=1
SlurmdParameters=config_overrides
# A node that is set DOWN stays so until it is told to RESUME.
ReturnToService=1
KillWait=2
MinJobAge=300
MpiDefault=none
GresTypes=gpu
NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=16000 Gres=gpu:2
PartitionName={partitions[0]} Nodes={node} Default=YES MaxTime=INFINITE
PartitionName={partitions[1]} Nodes={node} MaxTime=INFINITE
"""
# Files that are there everywhere, in place of a GPU's.
GRES_CONF = "NodeName={node} Name=gpu File=/dev/null,/dev/zero\n"


def missing() -> str | None:
    """Say why there can be no cluster here; ``None`` if there can."""
    absent = _absent()
    if absent:
        return (
            f"SLURM is not installed ({', '.join(absent)} not found): "
            f"apt-get install {' '.join(PACKAGES)}"
        )
    return None


def _absent() -> list[str]:
    return [name for name in (*DAEMONS, *COMMANDS) if shutil.which(name, path=SEARCH) is None]


@contextmanager
def running(folder: Path) -> Iterator[dict[str, str]]:
    """Start a cluster in ``folder`` and yield the variables by which SLURM's commands find it."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    # munged refuses keys and sockets in a place that others may change.
    folder.chmod(0o755)
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    facts = {
        "folder": folder,
        "host": socket.gethostname().split(".")[0],
        "user": getpass.getuser(),
        "node": NODE,
        "partitions": PARTITIONS,
        "controller_port": _free_port(),
        "node_port": _free_port(),
    }
    (folder / "slurm.conf").write_text(SLURM_CONF.format(**facts))
    (folder / "gres.conf").write_text(GRES_CONF.format(**facts))
    variables = {"SLURM_CONF": str(folder / "slurm.conf")}
    try:
        for command in _daemons(folder):
            _start(command, folder, variables)
        _wait_until_idle(folder, variables)
        yield variables
    finally:
        _end(folder)


def _daemons(folder: Path) -> list[list[str]]:
    munge = {name: folder / f"munge.{name}" for name in ("key", "socket", "pid", "log", "seed")}
    options = [f"--{name}{'' if name == 'socket' else '-file'}={p}" for name, p in munge.items()]
    return [
        # --force: a temporary folder is more open than /etc, which here harms nobody.
        ["munged", "--foreground", "--force", *options],
        ["slurmctld", "-D", "-c", "-f", str(folder / "slurm.conf")],
        ["slurmd", "-D", "-c", "-N", NODE, "-f", str(folder / "slurm.conf")],
    ]


def _start(command: list[str], folder: Path, variables: dict[str, str]) -> None:
    """Start a daemon in a session of its own, where a Ctrl-C for the tests does not reach it."""
    with (folder / f"{command[0]}.out").open("wb") as said:
        subprocess.Popen(
            [shutil.which(command[0], path=SEARCH), *command[1:]],
            env={**os.environ, **variables},
            stdout=said,
            stderr=said,
            start_new_session=True,
        )


def _wait_until_idle(folder: Path, variables: dict[str, str]) -> None:
    until, state = time.monotonic() + 60, ""
    while state != "idle":
        if time.monotonic() > until:
            logs = "\n".join(p.read_text() for p in [*folder.glob("*.log"), *folder.glob("*.out")])
            raise TimeoutError(f"the node is {state!r}\n{logs[-4000:]}")
        time.sleep(0.2)
        asked = ["sinfo", "--noheader", "--nodes", NODE, "--partition", PARTITIONS[0]]
        done = subprocess.run(
            [*asked, "--format=%T"], env={**os.environ, **variables}, capture_output=True, text=True
        )
        state = done.stdout.strip()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def members(folder: Path) -> list[psutil.Process]:
    """Every process of the cluster in ``folder``: daemons, step managers, jobs and their own."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            # Daemons are given the variable and jobs inherit it; a step manager writes its title
            # over its environment, but keeps the log of its daemon open.
            configuration = process.environ().get("SLURM_CONF", "")
            files = process.open_files() if process.name() == "slurmstepd" else []
            if any(
                Path(p).is_relative_to(folder) for p in (configuration, *(f.path for f in files))
            ):
                # What a job starts may have been given another environment.
                found |= {process, *process.children(recursive=True)}
    return list(found)


def _end(folder: Path) -> None:
    """Kill daemons, step managers and jobs: nothing of a test's cluster is worth a clean end."""
    # More than once, as a process may have started another in the meantime.
    while processes := members(folder):
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(processes, timeout=10)
