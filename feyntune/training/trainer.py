"""The trainer: the paper's steps, whatever the memory, the processes and what befalls the run."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import torch
from accelerate.data_loader import BatchSamplerShard
from accelerate.utils import gather_object
from datasets import Dataset
from safetensors import SafetensorError
from transformers import PrinterCallback
from trl import SFTTrainer

from feyntune.errors import UserError
from feyntune.experiment.files import remove
from feyntune.models.base import next_token_nll
from feyntune.runs import records, signals
from feyntune.training import batches as batching
from feyntune.training import checkpoints
from feyntune.training.milestones import TenEvaluations


class AbstractTrainer(SFTTrainer):
    """SFTTrainer whose steps are the paper's whatever the memory and the number of processes.

    Adapters stay in float32; a batch that does not fit is taken in smaller pieces; a loss that is
    not a number ends the run; SIGTERM ends it after a checkpoint.

    Parameters
    ----------
    evaluations
        How often to evaluate, before training and at its end included.
    rows
        Abstracts to take through the model at a time; ``None`` for the whole batch.
    padding_free
        Whether to hand the model one row without padding, which needs attention of variable
        lengths to be any faster.
    """

    def __init__(self, *args, evaluations: int, rows=None, padding_free=False, **kwargs):
        # A process works on one GPU, however many it sees; else batches would be split over all.
        kwargs["args"]._n_gpu = min(kwargs["args"].n_gpu, 1)
        super().__init__(*args, **kwargs)
        self.rows = rows or self.args.per_device_train_batch_size
        self.rows_evaluated = self.args.per_device_eval_batch_size
        self.padding_free = padding_free
        self.identified = kwargs["train_dataset"]
        self.processes = self.accelerator.num_processes
        # TRL rounds the adapters of a 4-bit model to bfloat16, where a small update is lost; the
        # released adapters are float32.
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        self.schedule = TenEvaluations(self, evaluations)
        self.add_callback(self.schedule)
        self.remove_callback(PrinterCallback)  # it prints every step's log; the notebook draws it

    def train(self, *args, **kwargs):
        """Train to the end, or until SIGTERM, which :class:`Preempted` then tells of."""
        with signals.listening() as self.schedule.request:
            result = super().train(*args, **kwargs)
        if self.schedule.stopped:
            raise signals.Preempted(
                f"Asked to end (SIGTERM): checkpoint-{self.state.global_step} of "
                f"{self.state.max_steps} steps is saved; start again to go on from it."
            )
        return result

    def get_train_dataloader(self):
        """Whole batches on every process; each takes its rows of them in the training step."""
        loader = super().get_train_dataloader()
        shard = loader.batch_sampler
        if isinstance(shard, BatchSamplerShard):
            # As transformers does for batches that are not to be divided.
            shard.num_processes, shard.process_index, shard.even_batches = 1, 0, False
        return loader

    def training_step(self, model, inputs, num_items_in_batch=None):
        """Gradients of the mean over all tokens of the batch; returns that mean.

        Out of memory, the number of abstracts taken at a time is halved and the step begun again
        from the same state: the optimisation stays the same, only dropout is drawn in other shapes.
        """
        tokens = batching.scored_tokens(inputs)
        mine = batching.share(inputs, self.accelerator.process_index, self.processes)
        while True:
            state = batching.random_state()
            loss = self._in_pieces(model, mine, tokens)
            if loss is not None:
                break
            batching.restore(state)
            self._take_fewer()
        if self.processes > 1:
            batching.average(loss, self.model, self.processes)
        self._batch = inputs
        if not math.isfinite(loss):
            self._stop_diverged("loss")
        self._total_train_tokens += int(inputs["attention_mask"].sum())
        self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
        return loss

    def _in_pieces(self, model, inputs, tokens) -> torch.Tensor | None:
        """One pass over this process's rows; ``None`` if any process ran out of memory."""
        total, failed = torch.zeros((), device=self.args.device), False
        # Before the run starts, the model is not wrapped yet, and nothing synchronises it.
        own = getattr(model, "no_sync", contextlib.nullcontext)
        multiple = self.args.pad_to_multiple_of
        try:
            for piece in batching.pieces(inputs, self.rows, multiple=multiple):
                whole = batching.flattened(piece) if self.padding_free else piece
                with own():
                    total = total + super().training_step(model, whole, tokens)
        except RuntimeError as error:
            if not batching.out_of_memory(error):
                raise
            failed = True
        # All begin the step again, or none.
        return None if self.on_any_process(failed) else total

    def trial_step(self, batch) -> None:
        """One step as in the run, that leaves no trace but the number of rows that fit."""
        counted, state = self._total_train_tokens, batching.random_state()
        self.current_gradient_accumulation_steps = 1
        # `train` does both only when it starts: memory and time would be those of another step.
        if self.args.activation_checkpointing:
            given = self.args.activation_checkpointing_kwargs
            self.model.activation_checkpointing_enable(activation_checkpointing_kwargs=given)
        with self.accelerator.autocast():
            self.training_step(self.model, self._prepare_inputs(batch))
        self.model.zero_grad()
        self._metrics["train"].clear()
        self._total_train_tokens = counted
        batching.restore(state)

    def on_any_process(self, happened: bool) -> bool:
        """Whether something happened on any process."""
        if self.processes == 1:
            return happened
        flag = torch.tensor(float(happened), device=self.args.device)
        torch.distributed.all_reduce(flag)
        return bool(flag)

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

        Without Triton, TRL's fused head recomputes the logits in the backward pass for nothing:
        on CPU the plain head takes a quarter of its time for the same loss (tested).
        """
        if self.args.device.type != "cpu" or self.padding_free:
            nll = -self.model(**inputs, use_cache=False, fused_lm_head=True).log_probs
        else:
            nll = next_token_nll(self.model, inputs["input_ids"], inputs["attention_mask"])
        items = batching.scored_tokens(inputs) if num_items_in_batch is None else num_items_in_batch
        # Processes average their gradients, each with its part of the sum.
        return nll.sum() / items * self.processes

    def _clip_grad_norm(self, model):
        """Clip, and refuse gradients that would make the adapter's weights no numbers."""
        norm = super()._clip_grad_norm(model)
        if not math.isfinite(norm):
            self._stop_diverged("gradient")
        return norm

    def _stop_diverged(self, what: str) -> None:
        """Record the step and the abstracts, and end; the last checkpoint is from before."""
        step, rows = self.state.global_step + 1, set()
        for ids, mask in zip(self._batch["input_ids"], self._batch["attention_mask"], strict=True):
            rows.add(tuple(ids[mask.bool()].tolist()))
        # Looked for only now: the trainer's own copy of the data has no identifiers.
        ids = [row["id"] for row in self.identified if tuple(row["input_ids"]) in rows]
        record = {"step": step, "what": what, "ids": ids}
        if self.args.should_save:
            records.write(Path(self.args.output_dir) / checkpoints.DIVERGED, record)
        raise UserError(
            f"The training {what} at step {step} is not a number; abstracts of its batch: "
            f"{', '.join(ids)}. The last checkpoint is from before; a lower learning rate, or "
            "leaving an abstract out, may help."
        )

    def _save_checkpoint(self, model, trial):
        """Save and seal; what could not be written whole is removed, and said."""
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                checkpoints.seal(folder)
        except (OSError, RuntimeError, SafetensorError) as error:
            remove(folder)
            raise UserError(
                f"{folder.name} could not be written to {folder.parent} "
                f"({' '.join(str(error).split())[:200]}): make room on the disk and start again; "
                "the run goes on from the last whole checkpoint."
            ) from None

    # A data loader draws a number when it starts; without the fork, the dropout of the steps that
    # follow would depend on how often the model was evaluated.
    @torch.random.fork_rng(devices=[])
    @torch.inference_mode()
    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """Loss over all tokens, and mean batch perplexity.

        ``eval_loss`` is the mean negative log-likelihood of a token (EOS included, as in
        training). ``eval_perplexity`` is the mean over batches of the mean over a batch's
        abstracts of exp(an abstract's mean negative log-likelihood).
        """
        self.model.eval()
        rows, size = eval_dataset or self.eval_dataset, self.args.per_device_eval_batch_size
        firsts = range(0, len(rows), size)[self.accelerator.process_index :: self.processes]
        batches = [self._measured(rows.select(range(i, min(i + size, len(rows))))) for i in firsts]
        if self.processes > 1:
            batches = gather_object(batches)
        loss, tokens, perplexities = (sum(column) for column in zip(*batches, strict=True))
        metrics = {
            f"{metric_key_prefix}_loss": loss / tokens,
            f"{metric_key_prefix}_perplexity": perplexities / len(batches),
        }
        self._metrics["eval"].clear()
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _measured(self, rows: Dataset) -> tuple[float, int, float]:
        """Summed NLL, tokens and mean perplexity of an abstract, of one batch of evaluation."""
        batch, nll = self._prepare_inputs(self.data_collator(list(rows))), []
        while not nll:
            try:
                with self.accelerator.autocast():
                    for part in batching.pieces(batch, self.rows_evaluated, multiple=1):
                        found = next_token_nll(
                            self.model, part["input_ids"], part["attention_mask"]
                        )
                        nll += found.double().split((part["attention_mask"].sum(1) - 1).tolist())
            except RuntimeError as error:
                if not batching.out_of_memory(error) or self.rows_evaluated == 1:
                    raise
                nll, self.rows_evaluated = [], self.rows_evaluated // 2
        means = torch.stack([part.mean() for part in nll])
        values = torch.cat(nll)
        return values.sum().item(), len(values), means.exp().mean().item()
