"""What the trainer of notebook 02 is given: tokenised abstracts, and what the machine decides.

The arguments that make the result stand in the notebook itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from feyntune.errors import UserError
from feyntune.experiment.sections import Training
from feyntune.models.base import encode
from feyntune.training.memory import MemoryPlan


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
                f"Abstract {identifier} has {len(ids)} tokens, more than training.max_length = "
                f"{max_tokens}; raise it (abstracts are never cut)."
            )
    return Dataset.from_dict({"id": rows["id"], "input_ids": sequences})


def of_the_machine(training: Training, plan: MemoryPlan, output: Path) -> dict[str, Any]:
    """Arguments of ``SFTConfig`` that belong to the machine, to our trainer or to other data.

    None changes the result. `trainer` decides when to evaluate and save, and splits batches to fit
    memory, hence ``"no"`` and 1 here.

    Parameters
    ----------
    output
        The folder of the checkpoints.
    """
    gpu = torch.cuda.is_available()
    return {
        "output_dir": str(output),
        # memory
        "gradient_accumulation_steps": 1,
        "activation_checkpointing": plan.gradient_checkpointing,  # its name since transformers 5
        "padding_free": False,
        # the device
        "use_cpu": not gpu,
        "fp16": False,
        "average_tokens_across_devices": False,  # one process has the whole batch
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": gpu,
        # what is evaluated, saved and said
        "eval_strategy": "no",
        "save_strategy": "no",
        "save_total_limit": training.save_total_limit,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # a loss that is not a number must be seen
        "report_to": "none",
        "disable_tqdm": True,
        # not for whole abstracts
        "eval_packing": False,
        "assistant_only_loss": False,
        "completion_only_loss": False,
    }
