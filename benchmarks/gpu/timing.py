"""Clocks of a device: seconds of a step, of the loss head in it, and of dequantisation."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import TrainerCallback

from feyntune.training import batches
from feyntune.training.trainer import PaperTrainer

WARM_UP = 2  # steps that are not counted
# What bitsandbytes calls it: kernels on a GPU, operators on a processor.
DEQUANTISE = ("kdequantize", "bitsandbytes::dequantize")


def synchronised(device: torch.device) -> float:
    """Now, in seconds, once the device has done all it was told to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Mark:
    """A moment in what a device does: an event in its queue, or the time of a processor."""

    def __init__(self, device: torch.device):
        self.event = torch.cuda.Event(enable_timing=True) if device.type == "cuda" else None
        if self.event:
            self.event.record()
        self.time = time.perf_counter()

    def until(self, later: Mark) -> float:
        """Seconds to a later mark; on a GPU both must have passed."""
        if self.event:
            return self.event.elapsed_time(later.event) / 1000
        return later.time - self.time


class TimedTrainer(PaperTrainer):
    """The artifact's trainer, with marks where the last norm ends and where the loss is there.

    Between them lies the head: its product and the loss forward, and their gradient backward.

    Attributes
    ----------
    pieces
        Of the current step: real tokens and slots of every piece of its batch.
    marks
        Of the current step: the four marks of every piece.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.pieces: list[tuple[int, int]] = []
        self.marks: list[dict[str, Mark]] = []
        self.model.get_base_model().model.norm.register_forward_hook(self._norm_done)

    def _in_pieces(self, model, inputs, tokens):
        # Out of memory, a step begins anew, in smaller pieces.
        self.pieces, self.marks = [], []
        return super()._in_pieces(model, inputs, tokens)

    def compute_loss(self, model, inputs, *args, **kwargs):
        self.marks.append({})
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        mark = self.marks[-1]
        mark["forward"] = Mark(loss.device)
        loss.register_hook(lambda gradient: mark.update(loss=Mark(gradient.device)))
        slots = inputs["input_ids"].numel()
        mask = inputs.get("attention_mask")
        self.pieces.append((slots if mask is None else int(mask.sum()), slots))
        return loss

    def _norm_done(self, module, given, hidden: torch.Tensor) -> None:
        if hidden.requires_grad and self.marks:
            mark = self.marks[-1]
            mark["norm"] = Mark(hidden.device)
            hidden.register_hook(lambda gradient: mark.update(gradient=Mark(gradient.device)))

    def head_seconds(self) -> float:
        """Of the last step; the device must have finished it."""
        return sum(
            mark["norm"].until(mark["forward"]) + mark["loss"].until(mark["gradient"])
            for mark in self.marks
        )


class Stopwatch(TrainerCallback):
    """Times every step but the first two, and ends the run after enough of them or at a deadline.

    Attributes
    ----------
    steps
        For each step: ``seconds`` from the end of the last one, so with all that a run does
        between steps; ``head``, seconds of the head; ``tokens`` and ``slots``; ``lengths``.
    """

    def __init__(self, steps: int, deadline: float):
        self.wanted, self.deadline = steps, deadline
        self.trainer: TimedTrainer | None = None
        self.steps: list[dict] = []
        self.last = 0.0

    def on_step_end(self, args, state, control, **kwargs):
        now = synchronised(args.device)
        if state.global_step > WARM_UP:
            tokens, slots = (sum(column) for column in zip(*self.trainer.pieces, strict=True))
            lengths = [len(ids) for ids in batches.sequences(self.trainer._batch)]
            self.steps.append(
                {
                    "seconds": now - self.last,
                    "head": self.trainer.head_seconds(),
                    "tokens": tokens,
                    "slots": slots,
                    "lengths": lengths,
                }
            )
        self.last = synchronised(args.device)
        enough = len(self.steps) >= self.wanted or time.monotonic() >= self.deadline
        control.should_training_stop |= enough and bool(self.steps)


def dequantisation(step: Callable[[], None], device: torch.device) -> float | None:
    """Share of a step in turning NF4 into numbers, from one step under the profiler.

    A product of few rows is done by a kernel that dequantises as it goes; that is not in it.

    Returns
    -------
    float or None
        ``None`` if the profiler saw nothing, as on a GPU whose counters are not for every user.
    """
    on_gpu = device.type == "cuda"
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    with profile(activities=[activity]) as seen:
        start = synchronised(device)
        step()
        seconds = synchronised(device) - start
    column = "self_device_time_total" if on_gpu else "cpu_time_total"
    found = [(event.key.lower(), getattr(event, column)) for event in seen.key_averages()]
    if not any(microseconds for _, microseconds in found):
        return None
    return sum(us for name, us in found if any(own in name for own in DEQUANTISE)) / 1e6 / seconds
