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
from feyntune.models.base import encode, start_ids


def tokenised(tokenizer: PreTrainedTokenizerBase, rows: Dataset, *, max_tokens: int) -> Dataset:
    """Abstracts as ``input_ids``, one abstract a sequence: the start, its tokens, EOS.

    Raises
    ------
    UserError
        If an abstract is longer than ``max_tokens``: none is ever cut.
    """
    sequences, start = encode(tokenizer, rows["abstract"], eos=True), start_ids(tokenizer)
    for identifier, ids in zip(rows["id"], sequences, strict=True):
        assert ids[: len(start)] == start and ids[-1] == tokenizer.eos_token_id
        within = ids[len(start) : -1]
        assert not {tokenizer.bos_token_id, tokenizer.eos_token_id} & set(within)
        if len(ids) > max_tokens:
            raise UserError(
                f"Abstract {identifier} has {len(ids)} tokens, more than training.max_length = "
                f"{max_tokens}; raise it (abstracts are never cut)."
            )
    return Dataset.from_dict({"id": rows["id"], "input_ids": sequences})


def lora_config(lora: Lora) -> LoraConfig:
    """LoraConfig of a variant."""
    return LoraConfig(task_type="CAUSAL_LM", **lora.arguments)


def sft_config(
    training: Training, *, seed: int, output: Path, gradient_checkpointing: bool | None = None
) -> SFTConfig:
    """Every setting that changes the result; none is left to a library's default.

    `trainer` decides when to evaluate and save, and splits batches to fit memory, hence ``"no"``
    and 1 here.

    Parameters
    ----------
    gradient_checkpointing
        Whether to recompute activations instead of keeping them, which does not change the result;
        ``None`` for the experiment's choice.
    """
    if gradient_checkpointing is None:
        gradient_checkpointing = training.gradient_checkpointing
    return SFTConfig(
        output_dir=str(output),
        num_train_epochs=training.num_train_epochs,
        per_device_train_batch_size=training.per_device_train_batch_size,
        per_device_eval_batch_size=training.per_device_eval_batch_size,
        gradient_accumulation_steps=1,
        optim=training.optim,
        learning_rate=training.learning_rate,
        adam_beta1=training.adam_beta1,
        adam_beta2=training.adam_beta2,
        adam_epsilon=training.adam_epsilon,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        lr_scheduler_type=training.lr_scheduler_type,
        lr_scheduler_kwargs=dict(training.lr_scheduler_kwargs),
        warmup_steps=training.warmup_steps,  # below 1: a share of all steps
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
        save_total_limit=training.save_total_limit,
        logging_strategy="steps",
        logging_steps=1,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # a loss that is not a number must be seen
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
