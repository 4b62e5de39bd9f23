"""When a run is evaluated, saved and ended: a table of steps, and SIGTERM."""

from __future__ import annotations

import torch
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import ExportableState

from feyntune.errors import UserError
from feyntune.runs import signals


class TenEvaluations(TrainerCallback, ExportableState):
    """Evaluate before training and then at equal distances, the last time at its end.

    The released runs evaluate at 0.111 of all steps and at the start: ten times. A checkpoint is
    written at each evaluation but the first, and when the run is asked to end.
    """

    def __init__(self, trainer: Trainer, evaluations: int):
        self.trainer, self.evaluations = trainer, evaluations
        self.request, self.stopped = signals.Request(), False

    def state(self) -> dict:
        """What a checkpoint keeps: a run that goes on need not run out of memory again."""
        return {"args": {}, "attributes": {"rows": self.trainer.rows}}

    def on_train_begin(self, args, state, control, **kwargs):
        if state.max_steps < self.evaluations - 1:
            raise UserError(
                f"{state.max_steps} training steps are too few for training.evaluations = "
                f"{self.evaluations}; train on more abstracts or evaluate less often."
            )
        if self.trainer.accelerator.process_index and state.global_step == 0:
            # Each process draws its own dropout.
            torch.manual_seed(args.seed + self.trainer.accelerator.process_index)
        if state.global_step == 0:
            self.trainer.evaluate()
            return
        # TRL counts tokens from zero after a resume; the log goes on where it stopped.
        counts = [entry["num_tokens"] for entry in state.log_history if "num_tokens" in entry]
        self.trainer._total_train_tokens = counts[-1]
        kept = state.stateful_callbacks.get(type(self).__name__, {}).get("attributes", {})
        self.trainer.rows = min(self.trainer.rows, kept.get("rows", self.trainer.rows))

    def on_step_end(self, args, state, control, **kwargs):
        due = evaluation_steps(state.max_steps, self.evaluations)
        control.should_evaluate = control.should_save = state.global_step in due
        if self._asked_to_end() and state.global_step < state.max_steps:
            control.should_save = control.should_training_stop = self.stopped = True

    def _asked_to_end(self) -> bool:
        """Whether any process was: all end at the same step, or none."""
        return self.trainer.on_any_process(self.request.received)


def evaluation_steps(steps: int, evaluations: int) -> list[int]:
    """Steps after which to evaluate, the one before training left out."""
    return [steps * k // (evaluations - 1) for k in range(1, evaluations)]
