"""A SLURM cluster, as far as Snakemake leaves something to say: what a user gets wrong, leftovers.

Jobs of a run bear a name that begins with :func:`job_prefix`, by which those of a run that was
killed are known: unlike the processes of one machine, they outlive it.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import yaml

from feyntune.errors import UserError, choose

PARTITION = "slurm_partition"
# SLURM kills a job that does not end when told to after half a minute, if left at its default.
SECONDS_TO_END = 120


def settings_of(profile: Path) -> dict[str, Any]:
    """Return what a Snakemake profile says.

    Raises
    ------
    UserError
        If it is not YAML: a user is asked to change it.
    """
    path = profile / "config.yaml"
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None


def check(settings: dict[str, Any], options: list[str]) -> None:
    """Say what would make every job fail, before any is submitted.

    Parameters
    ----------
    settings
        Of the profile.
    options
        For Snakemake, from the command line; they win over the profile.

    Raises
    ------
    UserError
        If there is no SLURM here, or a partition is none of this cluster's.
    """
    if shutil.which("sbatch") is None:
        raise UserError(
            "Found no sbatch on PATH: start --profile slurm where SLURM jobs are submitted from "
            "(a cluster's login node), or run on this machine with --profile local."
        )
    there = _ask("sinfo", "--noheader", "--format=%P").split()
    names = [name.rstrip("*") for name in there]
    asked = _partitions(settings, options)
    for name in asked:
        choose("SLURM partition", name, names)
    if not asked and names == there:
        raise UserError(
            f"This cluster has no default partition: set {PARTITION} in the profile "
            f"({', '.join(names)}; see docs/gpu-and-slurm.md)."
        )


def _partitions(settings: dict[str, Any], options: list[str]) -> list[str]:
    """Every partition that a profile or the command line names, in order."""
    given = " ".join(options)
    overruled = {key for key in settings if f"--{key}" in given}
    text = [*_leaves({k: v for k, v in settings.items() if k not in overruled}), given]
    found = re.findall(rf"\b{PARTITION}=['\"]?([^\s'\"]+)", "\n".join(text))
    return list(dict.fromkeys(name for names in found for name in names.split(",")))


def _leaves(value: Any, key: str = "") -> Iterator[str]:
    """A profile's values as ``key=value``; it may write one as a mapping, a list or text."""
    if isinstance(value, dict):
        for inner, below in value.items():
            yield from _leaves(below, inner)
    elif isinstance(value, list):
        for below in value:
            yield from _leaves(below, key)
    else:
        yield f"{key}={value}"


def job_prefix(results: Path) -> str:
    """How the names of the jobs begin that write into a folder of results."""
    return f"feyntune-{hashlib.sha256(str(results).encode()).hexdigest()[:12]}"


@contextmanager
def alone_in_queue(results: Path) -> Iterator[dict[str, str]]:
    """Let no job of an earlier run be at work on ``results``, nor one of this run afterwards.

    A run that is killed cannot cancel its jobs, and one that is interrupted may not get to it.
    To be called with the lock of the experiment held.
    """
    left = cancel(results)
    if left:
        click.echo(f"Ended {left} jobs of an earlier run; their work is continued.")
    try:
        yield {}  # no variables for the jobs
    finally:
        cancel(results)


def cancel(results: Path) -> int:
    """Cancel every job that writes into ``results``, wait for its end, and return how many."""
    found = _queued(results)
    if found:
        _ask("scancel", *found)
    until = time.monotonic() + SECONDS_TO_END
    while _queued(results):
        if time.monotonic() > until:
            raise UserError(
                f"SLURM has not ended the jobs {', '.join(found)} of an earlier run yet; "
                "run again when squeue --me shows none of them."
            )
        time.sleep(1)
    return len(found)


def _queued(results: Path) -> list[str]:
    rows = _ask("squeue", "--me", "--noheader", "--format=%A %j").splitlines()
    return sorted({row.split()[0] for row in rows if f" {job_prefix(results)}_" in row})


def _ask(*command: str) -> str:
    """Run a SLURM command and return what it printed."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = " ".join(done.stderr.split())
        raise UserError(f"SLURM's {command[0]} failed: {said or done.returncode}")
    return done.stdout
