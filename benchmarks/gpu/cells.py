"""What is measured, cell by cell: each makes its own model and returns its row of the table."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import partial

import torch

from feyntune.errors import UserError
from feyntune.models.base import out_of_memory
from feyntune.training.memory import MemoryOptions
from gpu.inference import evaluation, generation
from gpu.run import Run
from gpu.timing import synchronised
from gpu.training import training

# Products of matrices, rows x inner x columns: large ones, and the model's own MLP.
PRODUCTS = {
    "cuda": ((8192, 8192, 8192), (16_384, 8192, 4096), (16_384, 4096, 14_336)),
    "cpu": ((512, 512, 512),),
}


def peak(run: Run) -> dict:
    """The fastest product of two matrices that this device does, in the numbers of training."""
    kind = run.device.type
    dtype = torch.bfloat16 if kind == "cuda" else torch.float32
    best = 0.0
    for rows, inner, columns in PRODUCTS[kind]:
        left = torch.randn(rows, inner, dtype=dtype, device=run.device)
        right = torch.randn(inner, columns, dtype=dtype, device=run.device)
        for _ in range(5):
            start = synchronised(run.device)
            for _ in range(10):
                left @ right
            seconds = (synchronised(run.device) - start) / 10
            best = max(best, 2 * rows * inner * columns / seconds)
    return {"flops_per_second": best}


# In the order in which they are measured, and of the table's titles (`report.TITLES`).
CELLS: dict[str, Callable[[Run], dict]] = {
    "peak": peak,
    "nf4-recompute": partial(
        training, options=MemoryOptions(base="nf4", gradient_checkpointing=True)
    ),
    "nf4": partial(training, options=MemoryOptions(base="nf4", gradient_checkpointing=False)),
    "dequantised": partial(
        training, options=MemoryOptions(base="dequantised", gradient_checkpointing=False)
    ),
    "dequantised-recompute": partial(
        training, options=MemoryOptions(base="dequantised", gradient_checkpointing=True)
    ),
    "nf4-24gb": partial(training, options=MemoryOptions(base="nf4"), small=True),
    "evaluation": partial(evaluation, adapted=False),
    "evaluation-adapter": partial(evaluation, adapted=True),
    "generation": partial(generation, adapted=False),
    "generation-adapter": partial(generation, adapted=True),
}


def measure(cell: str, run: Run) -> dict:
    """A cell's row; what stopped it, if anything did, is its only entry, ``error``."""
    try:
        return CELLS[cell](run)
    except UserError as error:
        return {"error": str(error)}
    except Exception as error:
        if out_of_memory(error):
            return {"error": "out of memory"}
        traceback.print_exc()
        said = " ".join(str(error).split())[:200]
        return {"error": f"{type(error).__name__}: {said}".replace("|", "/")}
