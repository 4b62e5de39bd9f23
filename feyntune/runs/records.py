"""Run records: what made a result, and the state of files.

A record is a small JSON file next to the results of one run: settings, code, inputs and outputs
with their SHA-256, package versions, hardware, times.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from feyntune.experiment.files import writing
from feyntune.paths import REPOSITORY

# Set by the runner: where a notebook leaves figures about its run for the record.
FACTS_VARIABLE = "FEYNTUNE_FACTS"
DEVICES = Path("/dev")
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


@cache
def _sha256_of(file: Path, _: tuple[int, int, int]) -> str:
    """The same, read once by this process as long as size and time stay."""
    return sha256(file)


def files(places: Mapping[str, Path]) -> dict[str, Path]:
    """The files among ``places`` and in the folders among them, by role.

    A file in a folder has the folder's role and its own place there: ``adapter/config.json``.
    Hidden files in a folder (``.DS_Store``, what a killed run left unfinished) do not count.
    """
    found = {}
    for role, place in places.items():
        if place.is_dir():
            inside = (file for file in sorted(place.rglob("[!.]*")) if file.is_file())
            found |= {f"{role}/{file.relative_to(place).as_posix()}": file for file in inside}
        elif place.is_file():
            found[role] = place
    return found


def states(
    places: Mapping[str, Path], known: Mapping[str, dict] | None = None
) -> dict[str, dict[str, Any]]:
    """Size, time and SHA-256 of every file of ``places``, by role.

    A file whose size and modification time are those in ``known`` is not read again: a snapshot
    of gigabytes is hashed once.

    A known state may have ``kept``, the SHA-256 of what is committed in the file's place, or
    ``None`` if nothing is. A file that is that, or is not there, has the known state: it stands for
    what was made.
    """
    found = {
        role: state
        for role, state in (known or {}).items()
        if state.get("kept", "") is None and any(f"{role}/".startswith(f"{p}/") for p in places)
    }
    for role, file in files(places).items():
        stat = file.stat()
        before = (known or {}).get(role)
        same = before and (before["bytes"], before["mtime_ns"]) == (stat.st_size, stat.st_mtime_ns)
        if same:
            sha = before["sha256"]
        elif before and "kept" in before:  # recorded elsewhere: its time is never this file's
            sha = _sha256_of(file, (stat.st_ino, stat.st_size, stat.st_mtime_ns))
        else:
            sha = sha256(file)
        now = {"sha256": sha, "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        stands_for_it = before and before.get("kept") == sha
        found[role] = before if stands_for_it else now
    return found


def hashes(found: dict[str, dict]) -> dict[str, str]:
    """The SHA-256 alone of what :func:`states` returned: what identifies the contents."""
    return {role: state["sha256"] for role, state in found.items()}


def differences(before: dict[str, dict], after: dict[str, dict]) -> list[str]:
    """Roles of the files whose contents differ between two answers of :func:`states`."""
    old, new = hashes(before), hashes(after)
    return sorted(role for role in {*old, *new} if old.get(role) != new.get(role))


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

    Where no run is being recorded (see `recording`) nothing is written.
    """
    place = os.environ.get(FACTS_VARIABLE)
    if place:
        peak = {"peak_memory_bytes": peak_memory()}
        write(Path(place), {**(read(Path(place)) or {}), **peak, **facts})


def peak_memory() -> int:
    """Peak resident memory of this process in bytes, on Linux since :func:`forget_peak`."""
    status = Path("/proc/self/status")
    if status.is_file():
        lines = status.read_text().splitlines()
        line = next(line for line in lines if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak() -> None:
    """Measure peak memory anew, on Linux: each run in a kernel has its own."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def surroundings() -> dict[str, Any]:
    """Commit, packages and hardware of this run; ``None`` where git cannot tell."""
    status = _git("status", "--porcelain", "--", *CODE)
    return {
        "commit": _git("rev-parse", "HEAD"),
        # Of the code: figures and tables, which a run draws, are committed too.
        "uncommitted_changes": None if status is None else bool(status),
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
    """What git says of this repository, or ``None`` without git or outside a clone of its own.

    A copy without git may lie in somebody else's repository, and variables of git may name one
    (git sets them for its hooks).
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    root = ("rev-parse", "--show-toplevel")
    said = []
    for each in (root, arguments):
        try:
            done = subprocess.run(
                ["git", "-C", str(REPOSITORY), *each],
                capture_output=True, text=True, check=True, env=own,
            )  # fmt: skip
        except (OSError, subprocess.CalledProcessError):
            return None
        said.append(done.stdout.strip())
    top, answer = said
    return answer if Path(top).resolve() == REPOSITORY.resolve() else None


@cache
def _gpus() -> list[str] | None:
    """Names of NVIDIA's GPUs here, as their driver tells them: no library has to be loaded.

    ``None`` if there is a driver that does not tell them.
    """
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None if list(DEVICES.glob("nvidia[0-9]*")) else []
    return done.stdout.split("\n")[:-1]


def _processor() -> str:
    """The processor's model, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), "")


# --- why a result is stale ----------------------------------------------------------------------


def what_changed(record: dict[str, Any], now: dict[str, Any]) -> str:
    """Why a record's key is not today's, in a few words."""
    settings = [
        f"{name}: {_short(record['settings'], name)} -> {_short(now['settings'], name)}"
        for name in differing(record["settings"], now["settings"])
    ]
    if settings:
        return f"settings changed: {_listed(settings)}"
    if record["counted_threads"] != now["counted_threads"]:
        return f"threads changed: {record['counted_threads']} -> {now['counted_threads']}"
    changed = differing(record["code"], now["code"])
    if changed:
        return f"code changed: {_listed(changed)}"
    inputs = differences(record["inputs"], now["inputs"])
    return f"input changed: {_listed(inputs)}" if inputs else "record of an older form"


def differing(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Names whose values differ, or that only one of two has."""
    nothing = object()
    return sorted(n for n in {*old, *new} if old.get(n, nothing) != new.get(n, nothing))


def _short(settings: dict[str, Any], name: str) -> str:
    text = repr(settings[name]) if name in settings else "(none)"
    return text if len(text) <= 40 else f"{text[:37]}..."


def _listed(names: list[str]) -> str:
    more = f", and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}"
