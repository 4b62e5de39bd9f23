"""What this machine has, and what its user asks of it, known without touching a GPU.

These are no settings of an experiment: they move no result but in the last digits.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from feyntune.errors import UserError

_YES_NO = {"true": True, "false": False}
_FORMS = {"nf4": "nf4", "dequantised": "dequantised"}
# Field of `Asked`, variable, what it may be, and how it is read.
_VARIABLES: tuple[tuple[str, str, str, Callable[[str], Any]], ...] = (
    ("gpus", "FEYNTUNE_GPUS", "a number of GPUs", lambda text: _positive(text)),
    ("rows", "FEYNTUNE_ROWS", "abstracts at a time", lambda text: _positive(text)),
    ("base", "FEYNTUNE_BASE_FORM", "nf4 or dequantised", _FORMS.__getitem__),
    ("gradient_checkpointing", "FEYNTUNE_RECOMPUTE", "true or false", _YES_NO.__getitem__),
)


@dataclass(frozen=True)
class Asked:
    """What the user settles about the machine; ``None`` leaves it to the memory at hand."""

    gpus: int = 1
    rows: int | None = None
    base: Literal["nf4", "dequantised"] | None = None
    gradient_checkpointing: bool | None = None


def asked() -> Asked:
    """What the environment asks for.

    Raises
    ------
    UserError
        If a variable holds what it cannot mean.
    """
    found = {}
    for name, variable, meaning, read in _VARIABLES:
        text = os.environ.get(variable, "").strip().lower()
        if text:
            try:
                found[name] = read(text)
            except (KeyError, ValueError):
                raise UserError(f"{variable} is {text!r}; it must be {meaning}.") from None
    return Asked(**found)


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


def gpus() -> int:
    """Number of NVIDIA GPUs that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    try:
        done = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True)
    except OSError:
        return 0
    return len(done.stdout.splitlines()) if done.returncode == 0 else 0


def own_gpu() -> int:
    """Number of the GPU that this process works on: its own among those of a launcher, or 0."""
    return int(os.environ.get("LOCAL_RANK", 0))
