"""A stand-in far smaller than `smoke`, and models whose probabilities are known beforehand.

The tests that need a model share what is made here (`conftest.py`); the one that kills a training
run makes the same trainer in a process of its own.
"""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, set_seed

from feyntune.data import corpora, selection
from feyntune.data.stand_in import corpus
from feyntune.experiment import load as experiment
from feyntune.experiment.files import writing
from feyntune.experiment.recipes import DATASETS
from feyntune.experiment.schema import Experiment
from feyntune.experiment.sections import Training
from feyntune.models import adapters
from feyntune.models import base as modeling
from feyntune.models import tiny_llama as model
from feyntune.paths import SPLITS
from feyntune.pipeline import notebooks
from feyntune.runs.stages import FINETUNE
from feyntune.training import arguments
from feyntune.training.memory import MemoryPlan
from feyntune.training.trainer import PaperTrainer

OVERRIDES = {
    "data.stand_in.records": 1500,
    "data.sample": {"hep-th": 50, "hep-ph": 62, "gr-qc": 30, "q-bio": 13, "cs": 95},
    "base.stand_in.vocabulary": 600,
    "base.stand_in.hidden_size": 64,
    "base.stand_in.intermediate_size": 64,
    "base.stand_in.abstracts": 200,
    "base.stand_in.hep_th_share": 0.02,
    "base.stand_in.batch_size": 4,
    "base.stand_in.epochs": 2,
    "base.stand_in.learning_rate": 5.0e-3,
    "training.per_device_train_batch_size": 4,
    "training.num_train_epochs": 2,
    "training.learning_rate": 1.0e-2,
    "training.per_device_eval_batch_size": 3,
    "training.evaluations": 3,
}
VARIANT = "s1-LoRA-all"


@dataclass(frozen=True)
class StandIn:
    """What the tests share; every model is loaded anew, so no test can spoil another's."""

    experiment: Experiment
    output: Path

    @property
    def tokenizer(self):
        return modeling.load_tokenizer(self.experiment)

    def base(self, *, quantized: bool = False):
        quantization = nf4(self.experiment) if quantized else None
        return modeling.load_base(
            self.experiment, dtype="float32", quantization=quantization
        ).eval()

    def rows(self, split: str, dataset: str = "s1") -> Dataset:
        return Dataset.from_pandas(pd.read_parquet(self.experiment.paths.split(dataset, split)))

    def tokenised(self, split: str, dataset: str = "s1") -> Dataset:
        settings = self.experiment.training
        return arguments.tokenised(
            self.tokenizer, self.rows(split, dataset), max_tokens=settings.max_length
        )

    def trainer(
        self,
        output: Path,
        *,
        variant: str = VARIANT,
        training: Training | None = None,
        train: Dataset | None = None,
        validation: Dataset | None = None,
        trainer_class: type = PaperTrainer,
        callbacks: tuple = (),
    ):
        """The trainer of notebook 02, by its own cells."""
        chosen = self.experiment.variants[variant]
        training = training or chosen.training
        # Settings that a test gives are the common ones; the flavour's targets come on top.
        targets = {"target_modules": chosen.training.lora.target_modules}
        lora = training.lora.model_copy(update=targets)
        set_seed(self.experiment.seed)
        return by_cells(
            self.experiment,
            variant,
            output,
            training=training.model_copy(update={"lora": lora}),
            chosen=chosen.model_copy(update={"seed": self.experiment.seed}),
            model=self.base(quantized=True),
            tokenizer=self.tokenizer,
            train=train or self.tokenised("train", chosen.dataset),
            validation=validation or self.tokenised("validation"),
            trainer_class=trainer_class,
            callbacks=callbacks,
        )


def by_cells(
    settings: Experiment,
    variant: str,
    output: Path,
    *,
    trainer_class=PaperTrainer,
    callbacks=(),
    **names,
) -> PaperTrainer:
    """The trainer that notebook 02's own cells build, with these callbacks in place of its own."""
    own = SimpleNamespace(**{**vars(arguments), "onlookers": lambda *_: [*callbacks]})
    checkpointing = names["training"].gradient_checkpointing
    return notebooks.executed(
        FINETUNE,
        *("lora", "sft-config", "trainer"),
        settings=settings,
        variant=variant,
        name="tiny",
        paths=SimpleNamespace(checkpoints=lambda _: output),
        plan=MemoryPlan("nf4", checkpointing, rows=0, padding_free=False),
        arguments=own,
        PaperTrainer=trainer_class,
        **names,
    )["trainer"]  # fmt: skip


def nf4(settings: Experiment):
    """How notebook 02 quantises the base."""
    return notebooks.executed(FINETUNE, "quantization", settings=settings)["nf4"]


def load(output: Path) -> StandIn:
    """The stand-in below ``output``, which `FEYNTUNE_OUTPUT` must name."""
    return StandIn(experiment.with_settings("smoke", OVERRIDES), output)


def make(output: Path) -> StandIn:
    """Make snapshot, datasets, base model and the adapter of one variant."""
    made = load(output)
    paths, data = made.experiment.paths, made.experiment.data
    corpus.make(made.experiment)
    abstracts, _ = selection.select(
        paths.snapshot,
        output / "scratch",
        fields=made.experiment.fields,
        excluded_ids=data.excluded_ids,
        bad_lines_allowed=data.bad_lines_allowed,
    )
    rows = selection.rows_of_fields(abstracts, made.experiment.fields)
    sampled = corpora.sample(rows, made.experiment)
    with writing(paths.sampled) as partial:
        every = np.concatenate([*sampled.values()])
        abstracts.gather(every, ["id"]).to_pandas().to_parquet(partial)
    sources = corpora.split_sources(sampled, made.experiment)
    for dataset in DATASETS:
        splits, _ = corpora.mix(dataset, sources, made.experiment)
        for split in SPLITS:
            with writing(paths.split(dataset, split)) as partial:
                abstracts.write(corpora.rows_of(splits[split]), partial)
    model.make(made.experiment)
    trainer = made.trainer(paths.checkpoints(VARIANT))
    trainer.train()
    adapters.save_adapter(trainer.model, paths.adapter(VARIANT), "stand-in")
    return made


def markov(probabilities: torch.Tensor) -> LlamaForCausalLM:
    """A real Llama whose next token depends on the last one alone, as ``probabilities`` say.

    Embeddings are one-hot, attention and MLP add nothing, and the head holds the logarithms of
    the (V, V) transition matrix, whose rows add up to 1. V must be even.
    """
    size = len(probabilities)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size,
            hidden_size=size,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
            rms_norm_eps=1e-12,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        # The last norm scales a one-hot vector by the square root of its width.
        model.lm_head.weight.copy_(probabilities.log().clamp(min=-1e4).T / size**0.5)
    return model.eval()
