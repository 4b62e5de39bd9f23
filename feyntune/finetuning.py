"""One LoRA adapter: tokenised abstracts, LoraConfig, SFTConfig, trainer, evaluation, resume."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from feyntune import checkpoints
from feyntune.errors import UserError
from feyntune.modeling import encode, next_token_nll
from feyntune.sections import Lora, Training


def tokenised(tokenizer: PreTrainedTokenizerBase, rows: Dataset, *, max_tokens: int) -> Dataset:
    """Abstracts as ``input_ids``, one abstract a sequence, BOS and EOS exactly once each.

    Raises
    ------
    UserError
        If an abstract is longer than ``max_tokens``: none is ever cut.
    """
    sequences = encode(tokenizer, rows["abstract"], eos=True)
    for identifier, ids in zip(rows["id"], sequences, strict=True):
        assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1
        assert ids[-1] == tokenizer.eos_token_id and ids.count(tokenizer.eos_token_id) == 1
        if len(ids) > max_tokens:
            raise UserError(
                f"Abstract {identifier} has {len(ids)} tokens, more than training.max_tokens = "
                f"{max_tokens}; raise it (abstracts are never cut)."
            )
    return Dataset.from_dict({"input_ids": sequences})


def lora_config(lora: Lora, flavour: str) -> LoraConfig:
    """The flavours differ in their target modules alone."""
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        bias=lora.bias,
        target_modules=lora.targets[flavour],
        use_dora=False,
        use_rslora=False,
        init_lora_weights=True,
    )


def sft_config(training: Training, *, seed: int, output: Path) -> SFTConfig:
    """Every setting that moves the result, none left to a library's default.

    Evaluation and checkpoints are steered by :class:`TenEvaluations`, hence ``"no"`` here.
    """
    return SFTConfig(
        output_dir=str(output),
        num_train_epochs=training.epochs,
        per_device_train_batch_size=training.batch_size,
        per_device_eval_batch_size=training.evaluation_batch_size,
        gradient_accumulation_steps=1,
        optim=training.optimizer,
        learning_rate=training.learning_rate,
        adam_beta1=training.betas[0],
        adam_beta2=training.betas[1],
        adam_epsilon=training.epsilon,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        lr_scheduler_type=training.schedule,
        lr_scheduler_kwargs={"min_lr_rate": training.min_lr_rate},
        warmup_steps=training.warmup_share,  # below 1: a share of all steps
        bf16=training.bf16,
        fp16=False,
        activation_checkpointing=training.gradient_checkpointing,  # its name since transformers 5
        seed=seed,
        data_seed=seed,
        loss_type="nll",
        packing=False,
        eval_packing=False,
        padding_free=False,
        pad_to_multiple_of=training.pad_to_multiple_of,
        max_length=None,
        assistant_only_loss=False,
        completion_only_loss=False,
        train_sampling_strategy="random",
        dataloader_drop_last=False,
        dataloader_num_workers=0,
        eval_strategy="no",
        save_strategy="no",
        save_total_limit=training.checkpoints_kept,
        logging_strategy="steps",
        logging_steps=1,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # a loss that is not a number must be seen
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


class AbstractTrainer(SFTTrainer):
    """SFTTrainer that keeps its adapters in float32 and evaluates them as the paper does."""

    def __init__(self, *args, evaluations: int, **kwargs):
        super().__init__(*args, **kwargs)
        # TRL rounds the adapters of a 4-bit model to bfloat16, where a small update is lost; the
        # released adapters are float32.
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        self.add_callback(TenEvaluations(self, evaluations))
        # It prints every step's log; the notebook draws it.
        self.remove_callback(PrinterCallback)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The trainer's loss: the mean over all tokens of the batch of their NLL.

        Without Triton, TRL's fused head recomputes the logits in the backward pass for nothing:
        on CPU the plain head takes a quarter of its time for the same loss (tested).
        """
        if self.args.device.type != "cpu":
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        self._total_train_tokens += int(inputs["attention_mask"].sum())
        self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
        return next_token_nll(model, inputs["input_ids"], inputs["attention_mask"]).mean()

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
        loss, tokens, batches = 0.0, 0, []
        for batch in self.get_eval_dataloader(eval_dataset):
            batch = self._prepare_inputs(batch)
            nll = next_token_nll(self.model, batch["input_ids"], batch["attention_mask"]).double()
            lengths = batch["attention_mask"].sum(1) - 1
            means = torch.stack([part.mean() for part in nll.split(lengths.tolist())])
            batches.append(means.exp().mean().item())
            loss, tokens = loss + nll.sum().item(), tokens + len(nll)
        metrics = {
            f"{metric_key_prefix}_loss": loss / tokens,
            f"{metric_key_prefix}_perplexity": sum(batches) / len(batches),
        }
        self._metrics["eval"].clear()
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics


class TenEvaluations(TrainerCallback):
    """Evaluate before training and then at equal distances, the last time at its end.

    The released runs evaluate at 0.111 of all steps and at the start: ten times. A checkpoint is
    written at each evaluation but the first, and is trusted once its hashes are beside it.
    """

    def __init__(self, trainer: SFTTrainer, evaluations: int):
        self.trainer, self.evaluations = trainer, evaluations

    def on_train_begin(self, args, state, control, **kwargs):
        if state.max_steps < self.evaluations - 1:
            raise UserError(
                f"{state.max_steps} training steps are too few for training.evaluations = "
                f"{self.evaluations}; train on more abstracts or evaluate less often."
            )
        if state.global_step == 0:
            self.trainer.evaluate()
            return
        # TRL counts tokens from zero after a resume; the log goes on where it stopped.
        counts = [entry["num_tokens"] for entry in state.log_history if "num_tokens" in entry]
        self.trainer._total_train_tokens = counts[-1]

    def on_step_end(self, args, state, control, **kwargs):
        due = evaluation_steps(state.max_steps, self.evaluations)
        control.should_evaluate = control.should_save = state.global_step in due

    def on_save(self, args, state, control, **kwargs):
        checkpoints.seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def evaluation_steps(steps: int, evaluations: int) -> list[int]:
    """Steps after which to evaluate, the one before training left out."""
    return [steps * k // (evaluations - 1) for k in range(1, evaluations)]


def save_adapter(model: PeftModel, folder: Path, base: str) -> None:
    """Save an adapter as plain PEFT loads it: safetensors and ``adapter_config.json``.

    Parameters
    ----------
    base
        Name of the base model, written into the configuration.
    """
    model.peft_config["default"].base_model_name_or_path = base
    # Embeddings are not trained; asking for them would look the base model up on the Hub.
    model.save_pretrained(folder, save_embedding_layers=False)
    # PEFT's own card, which holds nothing of this run.
    (folder / "README.md").unlink(missing_ok=True)
    # PEFT writes the target modules as a set, in an order that changes from run to run.
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
