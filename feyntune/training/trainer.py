"""SFTTrainer with the released code's batch of 16 on any GPU.

A batch that does not fit is split, SIGTERM saves a checkpoint and stops, a NaN loss is an error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import Dataset
from peft import get_peft_model
from safetensors import SafetensorError
from transformers import PrinterCallback, Trainer, TrainerCallback, set_seed
from transformers.trainer_callback import ExportableState
from trl import SFTTrainer

from feyntune import machine
from feyntune.errors import UserError
from feyntune.experiment.files import remove
from feyntune.models.base import out_of_memory
from feyntune.models.likelihood import next_token_nll
from feyntune.runs import records, signals
from feyntune.training import checkpoints
from feyntune.training.batches import (
    flattened,
    pieces,
    random_state,
    restore_random_state,
    scored_tokens,
    sequences,
)

# Llama's own file asks for sampling.
GREEDY = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}


class PaperTrainer(SFTTrainer):
    """SFTTrainer whose steps are the released code's, for any amount of memory.

    Adapters stay in float32; a batch that does not fit is taken in smaller pieces; a loss that is
    not a number ends the run; SIGTERM ends it after a checkpoint.

    Parameters
    ----------
    evaluations
        How often to evaluate, including before the first and after the last step.
    rows
        Abstracts that go through the model at a time; ``None`` for the whole batch.
    padding_free
        Whether the model gets one row without padding; faster only with attention of variable
        lengths.
    """

    def __init__(self, *args, evaluations: int, rows=None, padding_free=False, **kwargs):
        # On a machine with several GPUs, batches would otherwise be split over all of them.
        kwargs["args"]._n_gpu = min(kwargs["args"].n_gpu, 1)
        set_seed(kwargs["args"].seed)
        adapted = get_peft_model(kwargs.pop("model"), kwargs.pop("peft_config"))
        start = {name: p.data for name, p in adapted.named_parameters() if p.requires_grad}
        super().__init__(*args, model=adapted, **kwargs)
        self.rows = rows or self.args.per_device_train_batch_size
        self.rows_evaluated = self.args.per_device_eval_batch_size
        if self.args.device.type == "cpu":
            # A GPU out of memory says so; a CPU's process is killed. So no more than was planned.
            self.rows_evaluated = min(self.rows_evaluated, self.rows)
        self.padding_free = padding_free
        self.rows_with_ids = kwargs["train_dataset"]
        # TRL rounds the adapters of a 4-bit model to bfloat16, where a small update is lost; the
        # released ones are float32, from the start.
        for name, values in start.items():
            self.model.get_parameter(name).data = values
        self.schedule = EvaluationScheduleCallback(self, evaluations)
        self.add_callback(self.schedule)
        self.remove_callback(PrinterCallback)  # it prints every step's log; the notebook draws it

    def train(self, *args, **kwargs):
        """Train to the end.

        Raises
        ------
        Preempted
            If SIGTERM came; a checkpoint is saved.
        """
        with signals.listening() as self.schedule.request:
            result = super().train(*args, **kwargs)
        if self.schedule.stopped:
            raise signals.Preempted(
                f"Asked to end: checkpoint-{self.state.global_step} of "
                f"{self.state.max_steps} steps is saved; start again to go on from it."
            )
        return result

    def training_step(self, model, inputs, num_items_in_batch=None):
        """Gradients of the mean over all tokens of the batch; returns that mean.

        Out of memory, the number of abstracts at a time is halved and the step repeated from the
        same state. The optimisation stays the same; only the shapes that dropout is drawn in
        change.
        """
        tokens, state = scored_tokens(inputs), random_state()
        while (loss := self._in_pieces(model, inputs, tokens)) is None:
            restore_random_state(state)
            self._take_fewer()
        self._batch = inputs
        if not math.isfinite(loss):
            self._stop_diverged("loss")
        self._total_train_tokens += int(inputs["attention_mask"].sum())
        self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
        return loss

    def _in_pieces(self, model, inputs, tokens) -> torch.Tensor | None:
        """One pass over the batch, piece by piece; ``None`` if memory ran out."""
        total = torch.zeros((), device=self.args.device)
        try:
            for piece in pieces(inputs, self.rows, multiple=self.args.pad_to_multiple_of):
                given = flattened(piece) if self.padding_free else piece
                total = total + super().training_step(model, given, tokens)
                self._return_memory()
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            return None
        return total

    def trial_step(self, batch) -> None:
        """One step as in the run, which changes nothing but the number of rows that fit."""
        counted, state = self._total_train_tokens, random_state()
        self.current_gradient_accumulation_steps = 1
        # `train` does both only when it starts; without them, memory and time would be different.
        if self.args.activation_checkpointing:
            given = self.args.activation_checkpointing_kwargs
            self.model.activation_checkpointing_enable(activation_checkpointing_kwargs=given)
        with self.accelerator.autocast():
            self.training_step(self.model, self._prepare_inputs(batch))
        self.model.zero_grad()
        self._metrics["train"].clear()
        self._total_train_tokens = counted
        restore_random_state(state)

    @torch.inference_mode()
    def complete(self, ids: Sequence[int], new_tokens: int) -> str:
        """What the model writes after a prompt, always its likeliest token; changes nothing."""
        self.model.eval()
        prompt = torch.tensor([ids], device=self.args.device)
        with self.accelerator.autocast():
            written = self.model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=new_tokens,
                pad_token_id=self.processing_class.pad_token_id,
                **GREEDY,
            )
        return self.processing_class.decode(written[0, len(ids) :], skip_special_tokens=True)

    def _return_memory(self) -> None:
        """Give freed memory back on a CPU that takes one abstract at a time.

        As lengths differ, glibc finds ever less of it fit to use again: SmolLM2-135M had a peak of
        3.5 GiB after eight steps, and of 2.7 with this, in the same time.
        """
        if self.args.device.type == "cpu" and self.rows == 1:
            machine.return_memory()

    def _take_fewer(self) -> None:
        self.model.zero_grad()
        if self.rows == 1:
            raise UserError(
                f"Out of memory at step {self.state.global_step + 1} with one abstract at a time: "
                "turn on gradient checkpointing, keep the base in NF4, or use a larger GPU."
            )
        self.rows //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        print(
            f"Out of memory at step {self.state.global_step + 1}: now {self.rows} abstracts at a "
            f"time, still {self.args.per_device_train_batch_size} a step."
        )

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The sum over the tokens of their NLL, divided by the tokens of the whole batch.

        Without Triton, TRL's fused head computes the logits a second time in the backward pass: on
        a CPU the plain head takes a quarter of its time for the same loss (tested).
        """
        if self.args.device.type != "cpu" or self.padding_free:
            nll = -self.model(**inputs, use_cache=False, fused_lm_head=True).log_probs
        else:
            nll = next_token_nll(self.model, inputs["input_ids"], inputs["attention_mask"])
        items = scored_tokens(inputs) if num_items_in_batch is None else num_items_in_batch
        return nll.sum() / items

    def _clip_grad_norm(self, model):
        """Clip the gradients; stop if they are not numbers, before they reach the weights."""
        norm = super()._clip_grad_norm(model)
        if not math.isfinite(norm):
            self._stop_diverged("gradient")
        return norm

    def _stop_diverged(self, what: str) -> None:
        """Record step and abstracts, and stop; the last checkpoint was saved before this step."""
        step, batch = self.state.global_step + 1, sequences(self._batch)
        # The trainer's copy of the data has no identifiers.
        ids = [row["id"] for row in self.rows_with_ids if row["input_ids"] in batch]
        record = {"step": step, "what": what, "ids": ids}
        records.write(Path(self.args.output_dir) / checkpoints.DIVERGED, record)
        raise UserError(
            f"The training {what} at step {step} is not a number; abstracts of its batch: "
            f"{', '.join(ids)}. The last checkpoint is from before; a lower learning rate, or "
            "leaving an abstract out, may help."
        )

    def _save_checkpoint(self, model, trial):
        """Save a checkpoint and mark it as complete; what could not be written is removed."""
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)
            checkpoints.mark_complete(folder)
        except (OSError, RuntimeError, SafetensorError) as error:
            remove(folder)
            raise UserError(
                f"{folder.name} could not be written to {folder.parent} "
                f"({' '.join(str(error).split())[:200]}): make room on the disk and start again; "
                "the run goes on from the last whole checkpoint."
            ) from None

    # A data loader draws a random number when it starts; without the fork, the dropout of the
    # following steps would depend on how often the model was evaluated.
    @torch.random.fork_rng(devices=[])
    @torch.inference_mode()
    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """Loss over all tokens, and mean perplexity of an abstract.

        ``eval_loss`` is the mean negative log-likelihood of a token (EOS included, as in
        training). ``eval_perplexity`` is the mean over abstracts of exp(an abstract's mean
        negative log-likelihood), as in the released code.
        """
        self.model.eval()
        rows, size = eval_dataset or self.eval_dataset, self.args.per_device_eval_batch_size
        lengths = [len(ids) for ids in rows["input_ids"]]
        order = sorted(range(len(rows)), key=lengths.__getitem__)  # so that little is padding
        batches = [
            self._measured(rows.select(order[first : first + size]))
            for first in range(0, len(order), size)
        ]
        loss, tokens, perplexities = (sum(column) for column in zip(*batches, strict=True))
        metrics = {
            f"{metric_key_prefix}_loss": loss / tokens,
            f"{metric_key_prefix}_perplexity": perplexities / len(rows),
        }
        self._metrics["eval"].clear()
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _measured(self, rows: Dataset) -> tuple[float, int, float]:
        """Summed NLL, number of tokens and summed perplexity of one batch of evaluation."""
        batch, nll = self._prepare_inputs(self.data_collator(list(rows))), []
        while not nll:
            try:
                with self.accelerator.autocast():
                    for part in pieces(batch, self.rows_evaluated, multiple=1):
                        found = next_token_nll(
                            self.model, part["input_ids"], part["attention_mask"]
                        )
                        nll += found.double().split((part["attention_mask"].sum(1) - 1).tolist())
                        self._return_memory()
            except RuntimeError as error:
                if not out_of_memory(error) or self.rows_evaluated == 1:
                    raise
                nll, self.rows_evaluated = [], self.rows_evaluated // 2
        means = torch.stack([part.mean() for part in nll])
        values = torch.cat(nll)
        return values.sum().item(), len(values), means.exp().sum().item()


class EvaluationScheduleCallback(TrainerCallback, ExportableState):
    """Evaluate before training and then at equal distances, the last time after the last step.

    The released runs evaluate at 0.111 of all steps and at the start: ten times. A checkpoint is
    saved at each evaluation but the first, and on SIGTERM.
    """

    def __init__(self, trainer: Trainer, evaluations: int):
        self.trainer, self.evaluations = trainer, evaluations
        self.request, self.stopped = signals.Request(), False

    def state(self) -> dict:
        """Saved with a checkpoint, so that a resumed run does not run out of memory again."""
        return {"args": {}, "attributes": {"rows": self.trainer.rows}}

    def on_train_begin(self, args, state, control, **kwargs):
        if state.max_steps < self.evaluations - 1:
            raise UserError(
                f"{state.max_steps} training steps are too few for training.evaluations = "
                f"{self.evaluations}; train on more abstracts or evaluate less often."
            )
        if state.global_step == 0:
            self.trainer.evaluate()
            return
        # TRL counts tokens from zero after a resume; the log continues where it stopped.
        counts = [entry["num_tokens"] for entry in state.log_history if "num_tokens" in entry]
        self.trainer._total_train_tokens = counts[-1]
        saved = state.stateful_callbacks.get(type(self).__name__, {}).get("attributes", {})
        self.trainer.rows = min(self.trainer.rows, saved.get("rows", self.trainer.rows))

    def on_step_end(self, args, state, control, **kwargs):
        due = evaluation_steps(state.max_steps, self.evaluations)
        control.should_evaluate = control.should_save = state.global_step in due
        if self.request.received and state.global_step < state.max_steps:
            control.should_save = control.should_training_stop = self.stopped = True


def evaluation_steps(steps: int, evaluations: int) -> list[int]:
    """Steps after which to evaluate, without the evaluation before training."""
    return [steps * k // (evaluations - 1) for k in range(1, evaluations)]
