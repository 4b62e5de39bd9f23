"""Several GPUs for one variant: as many processes, each with its rows of every batch.

What a process imports, it imports itself: `accelerate.notebook_launcher` forks, and a process
that has touched a GPU (bitsandbytes does so on import) cannot be forked.
"""

from __future__ import annotations

import os
import socket

from feyntune.errors import UserError
from feyntune.experiment.files import remove
from feyntune.experiment.schema import Experiment
from feyntune.pipeline import gpus
from feyntune.runs import records
from feyntune.runs.signals import Preempted

SAID = "feyntune-said.json"


def refuse_missing(processes: int) -> None:
    """Raise a UserError if more GPUs are asked for than there are."""
    found = len(gpus.gpus())
    if processes > 1 and found and processes > found:
        raise UserError(
            f"{processes} GPUs are asked for, {found} exist on this machine: ask for at most "
            f"{found}."
        )


def launch(
    experiment: Experiment, variant: str, processes: int, checkpoint: str | None = None
) -> None:
    """Train with several processes, up to the last checkpoint, which they leave on disk.

    Parameters
    ----------
    checkpoint
        To go on from.

    Raises
    ------
    UserError
        If there are fewer GPUs than processes.
    """
    refuse_missing(processes)
    from accelerate import notebook_launcher
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    said = experiment.paths.checkpoints(variant) / SAID
    remove(said)
    arguments = (experiment, variant, checkpoint)
    try:
        notebook_launcher(fit, arguments, num_processes=processes, use_port=str(_free_port()))
    except (ChildFailedError, SignalException):
        record = records.read(said)
        if record is None:
            raise
        kind = Preempted if record["preempted"] else UserError
        raise kind(record["said"]) from None


def fit(experiment: Experiment, variant: str, checkpoint: str | None) -> None:
    """What each process does; an error of ours is left for the starter."""
    try:
        _fit(experiment, variant, checkpoint)
    except UserError as error:
        # The launcher tells its starter only that a process failed.
        record = {"said": str(error), "preempted": isinstance(error, Preempted)}
        records.write(experiment.paths.checkpoints(variant) / SAID, record)
        raise


def _fit(experiment: Experiment, variant: str, checkpoint: str | None) -> None:
    """The trainer of notebook 02, built and run."""
    import pandas as pd
    from datasets import Dataset
    from transformers import AutoConfig, set_seed

    from feyntune.experiment.recipes import dataset_of, flavour_of
    from feyntune.models import base as modeling
    from feyntune.training import arguments as finetuning
    from feyntune.training import memory, preflight, trainer

    training, paths = experiment.training_for(variant), experiment.paths
    tokenizer = modeling.load_tokenizer(experiment)
    train, validation = (
        finetuning.tokenised(
            tokenizer, Dataset.from_pandas(pd.read_parquet(path)), max_tokens=training.max_tokens
        )
        for path in (paths.split(dataset_of(variant), "train"), paths.split("s1", "validation"))
    )
    world = int(os.environ.get("WORLD_SIZE", 1))
    config = AutoConfig.from_pretrained(experiment.base_source, revision=experiment.base.revision)
    lora = finetuning.lora_config(training.lora, flavour_of(variant))
    size = preflight.trainable(config, lora.r, training.lora.targets[flavour_of(variant)])
    checks = preflight.before_loading(
        experiment, variant, tokenizer, config, parameters=size, processes=world
    )
    said = preflight.require(checks)
    set_seed(experiment.seed)
    base = modeling.load_base(
        experiment, dtype=experiment.base.dtype, quantization=experiment.base.quantization
    )
    plan = memory.choose(base.config, training, train["input_ids"], gpus.asked(), processes=world)
    training_run = trainer.AbstractTrainer(
        model=memory.prepared(base, plan),
        args=finetuning.sft_config(
            training,
            seed=experiment.seed,
            output=paths.checkpoints(variant),
            gradient_checkpointing=plan.gradient_checkpointing,
        ),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        peft_config=lora,
        evaluations=training.evaluations,
        rows=plan.rows,
        padding_free=plan.padding_free,
    )
    # Processes that do not find each other would each train alone, over the same files.
    assert training_run.processes == world
    first = training_run.args.process_index == 0
    if first:
        print(said)
    if checkpoint is None:
        hours = preflight.expected_hours(training_run)
        if first:
            print(f"expected: {hours:.2g} hours")
    training_run.train(resume_from_checkpoint=checkpoint)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
