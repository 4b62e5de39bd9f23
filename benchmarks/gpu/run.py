"""What all cells share: how large the model is, how much time is left, which settings hold."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from feyntune.experiment import load
from feyntune.experiment.schema import Experiment
from feyntune.models import base

VARIANT = "s1-LoRA-all"


@dataclass(frozen=True)
class Run:
    """What all cells share.

    Attributes
    ----------
    deadline
        When to stop measuring, of :func:`time.monotonic`.
    """

    tiny: bool
    deadline: float

    @property
    def device(self) -> torch.device:
        return base.device()

    @property
    def experiment(self) -> Experiment:
        """The released settings; on a processor the demo's, whose numbers are float32."""
        return load.load("paper" if self.device.type == "cuda" else "demo")

    @property
    def left(self) -> float:
        """Seconds to the deadline."""
        return self.deadline - time.monotonic()

    def size(self, full: int | None, tiny: int) -> int | None:
        return tiny if self.tiny else full
