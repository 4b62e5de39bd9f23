"""The most memory that a cell had: of the GPU, or else of the process."""

from __future__ import annotations

import torch
from perplexity import forget_peak, peak_memory


class Memory:
    """Counts from when it is made, with what is there already, such as the model's weights."""

    def __init__(self, device: torch.device):
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            forget_peak()

    def peak(self) -> dict[str, int]:
        """Bytes in tensors, and taken from the device for them; resident ones on a processor."""
        if self.device.type == "cuda":
            return {
                "allocated": torch.cuda.max_memory_allocated(self.device),
                "memory": torch.cuda.max_memory_reserved(self.device),
            }
        return {"memory": peak_memory()}
