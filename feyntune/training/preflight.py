"""Checks that take seconds before a training that takes hours, and its expected length."""

from __future__ import annotations

import copy
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerBase

from feyntune.errors import UserError
from feyntune.experiment.schema import Experiment
from feyntune.experiment.sections import Training
from feyntune.models.architecture import context_length, skeleton
from feyntune.models.base import compare_special_tokens, load_tokenizer, trainable_parameters
from feyntune.models.suitability import check_base
from feyntune.runs import progress
from feyntune.runs.freshness import training_key
from feyntune.training.batches import scored_tokens
from feyntune.training.checkpoints import resume_point

# In a checkpoint, per parameter of the adapter: a float32 weight and the optimiser's two moments.
BYTES_PER_PARAMETER = 12
# First generation of GPUs with bfloat16.
BF16_CAPABILITY = (8, 0)
MEASURED_STEPS = 2


@dataclass(frozen=True)
class Check:
    """One check: whether it passed, and what was found or is to be done."""

    name: str
    passed: bool
    found: str


def disk(folder: Path, parameters: int, kept: int) -> Check:
    """Disk space for the checkpoints kept, the one being written and the adapter."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free, needed = shutil.disk_usage(existing).free, (kept + 2) * BYTES_PER_PARAMETER * parameters
    return Check("disk", free >= needed, f"{free / 1e9:.1f} GB free, {needed / 1e9:.2f} GB needed")


def capability(training: Training) -> Check:
    """A GPU or a processor with bfloat16, if the experiment trains in it."""
    if not torch.cuda.is_available():
        passed = not training.bf16 or torch.cpu._is_avx512_bf16_supported()
        return Check("capability", passed, "no GPU; bf16 needs one, or a CPU with AVX512-BF16")
    found = torch.cuda.get_device_capability()
    passed = not training.bf16 or found >= BF16_CAPABILITY
    return Check("capability", passed, "{}.{}; bf16 needs {}.{}".format(*found, *BF16_CAPABILITY))


def reporter(training: Training) -> Check:
    """What the training is reported to is installed."""
    lacking = progress.missing_reporter(training.report_to)
    return Check("report_to", lacking is None, lacking or training.report_to)


def access(experiment: Experiment) -> Check:
    """The base model is on this machine, or may be downloaded from the Hub."""
    if experiment.base.model is None or Path(experiment.base_source).is_dir():
        return Check("access", True, "the base model is on this machine")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().auth_check(experiment.base.model)
    except (HfHubHTTPError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        said = f"{experiment.base.model}: {first} Ask for access on its page, and set HF_TOKEN"
        return Check("access", False, said)
    return Check("access", True, f"{experiment.base.model} may be downloaded")


def tokens(
    tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, training: Training
) -> list[Check]:
    """The tokenizer has the model's BOS and EOS, and the longest abstract fits its context."""
    context = context_length(config)
    return [
        Check("BOS and EOS", *compare_special_tokens(tokenizer, config)),
        Check(
            "context",
            training.max_length <= context,
            f"training.max_length {training.max_length}, the model's context {context}",
        ),
    ]


def check(experiment: Experiment, variant: str) -> str:
    """All checks of a variant, as lines; none needs the base model's weights.

    Raises
    ------
    UserError
        If any failed; it names all that did.
    """
    check_base(experiment)
    config = AutoConfig.from_pretrained(experiment.base_source, revision=experiment.base.revision)
    lora = LoraConfig(task_type="CAUSAL_LM", **experiment.lora(variant).arguments)
    size = lora_parameters(config, lora)
    tokenizer = load_tokenizer(experiment)
    return require(all_checks(experiment, variant, tokenizer, config, parameters=size))


def all_checks(
    experiment: Experiment,
    variant: str,
    tokenizer: PreTrainedTokenizerBase,
    config: PretrainedConfig,
    *,
    parameters: int,
) -> list[Check]:
    """All checks, none of which needs the base model's weights.

    Parameters
    ----------
    parameters
        Number of parameters of the adapter; see :func:`lora_parameters`.
    """
    training = experiment.variants[variant].training
    return [
        disk(experiment.paths.checkpoints(variant), parameters, training.save_total_limit),
        capability(training),
        reporter(training),
        access(experiment),
        *tokens(tokenizer, config, training),
    ]


def require(checks: list[Check]) -> str:
    """The checks as lines.

    Raises
    ------
    UserError
        If any failed; it names all that did.
    """
    wrong = [f"{check.name}: {check.found}" for check in checks if not check.passed]
    if wrong:
        raise UserError(f"Not ready to train. {'; '.join(wrong)}.")
    return "\n".join(f"{check.name:<12} {check.found}" for check in checks)


def starting_point(trainer, experiment: Experiment, variant: str) -> str | None:
    """The checkpoint from which a training resumes; of one from the start, say how long it takes.

    Checkpoints of other settings, data, base or code are set aside, not deleted.
    """
    folder = experiment.paths.checkpoints(variant)
    checkpoint = resume_point(folder, training_key(experiment, variant))
    if checkpoint is None:
        print(f"expected: {expected_hours(trainer):.2g} hours")
    return checkpoint


def expected_hours(trainer) -> float:
    """Hours to train a variant, from a few steps that change nothing.

    The longest abstracts go first: if memory runs out, it does so here, and the number of abstracts
    at a time is settled before the run.
    """
    args, rows = trainer.args, trainer.train_dataset
    lengths = [len(ids) for ids in rows["input_ids"]]
    order = sorted(range(len(rows)), key=lambda i: -lengths[i])
    size = args.per_device_train_batch_size
    trainer.trial_step(trainer.data_collator(list(rows.select(order[:size]))))
    batches = [
        trainer.data_collator(list(rows.select(range(i, min(i + size, len(rows))))))
        for i in range(0, MEASURED_STEPS * size, size)
        if i < len(rows)
    ]
    started = time.perf_counter()
    for batch in batches:
        trainer.trial_step(batch)
    seconds = time.perf_counter() - started
    per_token = seconds / sum(int(scored_tokens(batch)) for batch in batches)
    # An evaluation is a forward pass, about a half of a step with frozen weights.
    evaluated = trainer.schedule.evaluations * sum(map(len, trainer.eval_dataset["input_ids"])) / 2
    return per_token * (sum(lengths) * args.num_train_epochs + evaluated) / 3600


def lora_parameters(config: PretrainedConfig, lora: LoraConfig) -> int:
    """Number of parameters of an adapter, counted on the model without weights."""
    # PEFT writes into the configuration which modules it found.
    with torch.device("meta"):
        return trainable_parameters(get_peft_model(skeleton(config), copy.deepcopy(lora)))
