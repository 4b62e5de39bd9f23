"""Run records: what made a result, and whether what lies on disk is still that result.

A record is a small JSON file beside the results of one stage: settings, code, inputs and outputs
with their SHA-256, package versions, hardware, times. It is written last, so a stage with a
record is whole; and it is compared, so a result of another configuration is never reused.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from feyntune.experiment.files import writing
from feyntune.paths import REPOSITORY, output_root

# Set by the runner: where a notebook leaves figures about its run for the record.
FACTS_VARIABLE = "FEYNTUNE_FACTS"
CODE = ("feyntune", "notebooks", "workflow", "experiments", "requirements.lock")
PACKAGES = (
    "accelerate",
    "bitsandbytes",
    "datasets",
    "numpy",
    "pandas",
    "papermill",
    "peft",
    "pyarrow",
    "scipy",
    "snakemake",
    "tokenizers",
    "torch",
    "transformers",
    "trl",
)


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files(paths: Iterable[Path]) -> dict[str, Path]:
    """The files among ``paths`` and below the folders among them, by a name free of this machine.

    Names are relative to the output folder; a file from elsewhere (a user's snapshot) goes by its
    own name, so that moving it changes nothing. Hidden files in a folder (``.DS_Store``, what a
    killed run left half-written) are none of its contents.
    """
    found = {}
    for path in paths:
        for file in sorted(path.rglob("[!.]*")) if path.is_dir() else [path]:
            if file.is_file():
                inside = file.is_relative_to(output_root())
                found[str(file.relative_to(output_root())) if inside else file.name] = file
    return found


def states(paths: Iterable[Path], known: dict[str, dict] | None = None) -> dict[str, dict]:
    """Size, time and SHA-256 of every file of ``paths``.

    A file whose size and modification time are those in ``known`` is not read again: a snapshot
    of gigabytes is hashed once. ``feyntune verify`` passes no ``known``.
    """
    found = {}
    for name, file in files(paths).items():
        stat = file.stat()
        before = (known or {}).get(name)
        same = before and (before["bytes"], before["mtime_ns"]) == (stat.st_size, stat.st_mtime_ns)
        found[name] = {
            "sha256": before["sha256"] if same else sha256(file),
            "bytes": stat.st_size,
            "mtime_ns": stat.st_mtime_ns,
        }
    return found


def hashes(found: dict[str, dict]) -> dict[str, str]:
    """The SHA-256 alone of what :func:`states` returned: what identifies the contents."""
    return {name: state["sha256"] for name, state in found.items()}


def differences(before: dict[str, dict], after: dict[str, dict]) -> list[str]:
    """Names of the files whose contents differ between two answers of :func:`states`."""
    old, new = hashes(before), hashes(after)
    return sorted(name for name in {*old, *new} if old.get(name) != new.get(name))


def read(path: Path) -> dict[str, Any] | None:
    """A record, or ``None`` if there is none that can be read."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def write(path: Path, record: dict[str, Any]) -> None:
    """Write a record in one step."""
    with writing(path) as partial:
        partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def note(**facts: float | int | str) -> None:
    """Leave figures about this run (seconds, tokens, ...) and its peak memory for its record.

    Outside a run by the workflow, in Jupyter, there is no record and nothing is written.
    """
    place = os.environ.get(FACTS_VARIABLE)
    if place:
        peak = {"peak_memory_bytes": peak_memory()}
        write(Path(place), {**(read(Path(place)) or {}), **peak, **facts})


def peak_memory() -> int:
    """Peak resident memory of this process, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def surroundings() -> dict[str, Any]:
    """Commit, packages and hardware of this run."""
    return {
        "commit": _git("rev-parse", "HEAD"),
        # Of the code: figures and tables, which a run draws, are committed too.
        "uncommitted_changes": bool(_git("status", "--porcelain", "--", *CODE)),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "hardware": {
            "system": f"{platform.system()} {platform.machine()}",
            "processor": _processor(),
            "cores": os.cpu_count(),
            "gpus": _gpus(),
        },
    }


def _git(*arguments: str) -> str | None:
    """What git says, or ``None`` outside a clone or without git."""
    command = ["git", "-C", str(REPOSITORY), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


@cache
def _gpus() -> list[str]:
    """Names of NVIDIA's GPUs here, as their driver tells them: no library has to be loaded."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return done.stdout.split("\n")[:-1]


def _processor() -> str:
    """The processor's model, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), "")
