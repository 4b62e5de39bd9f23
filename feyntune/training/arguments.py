"""One LoRA adapter: tokenised abstracts, LoraConfig, SFTConfig."""

from __future__ import annotations

from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import PreTrainedTokenizerBase
from trl import SFTConfig

from feyntune.errors import UserError
from feyntune.experiment.sections import Lora, Training
from feyntune.models.base import encode

# Of W&B and trackio, in which each run has the name that is given.
PROJECT = "feyntune"


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
    return Dataset.from_dict({"id": rows["id"], "input_ids": sequences})


def lora_config(lora: Lora, flavour: str) -> LoraConfig:
    """LoraConfig of a flavour; flavours differ only in their target modules."""
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


def sft_config(
    training: Training,
    *,
    seed: int,
    output: Path,
    gradient_checkpointing: bool | None = None,
    name: str | None = None,
) -> SFTConfig:
    """Every setting that changes the result; none is left to a library's default.

    `trainer` decides when to evaluate and save, and splits batches to fit memory, hence ``"no"``
    and 1 here.

    Parameters
    ----------
    gradient_checkpointing
        Whether to recompute activations instead of keeping them, which does not change the result;
        ``None`` for the experiment's choice.
    name
        Of the run, for what ``training.report_to`` names.
    """
    if gradient_checkpointing is None:
        gradient_checkpointing = training.gradient_checkpointing
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
        activation_checkpointing=gradient_checkpointing,  # its name since transformers 5
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
        use_cpu=not torch.cuda.is_available(),
        average_tokens_across_devices=False,  # one process has the whole batch
        eval_strategy="no",
        save_strategy="no",
        save_total_limit=training.checkpoints_kept,
        logging_strategy="steps",
        logging_steps=1,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # a loss that is not a number must be seen
        report_to=training.report_to,
        run_name=name,
        project=PROJECT,
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
