"""The stages as data: what each runs per, which settings move it, what it reads and writes.

What a stage's results depend on is said here once; `survey` compares it with what lies on disk,
and the Snakefile orders the work by it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from feyntune.paths import SPLITS, STYLE, Paths
from feyntune.settings import Experiment
from feyntune.variants import BASE, DATASETS, dataset_of, flavour_of

Subject = str | None


@dataclass(frozen=True)
class Stage:
    """One numbered notebook, or one of the two makers of stand-ins.

    Attributes
    ----------
    name
        The notebook's name without ending.
    per
        What it runs once for.
    needs
        The stages (with their subjects) that come before it.
    settings
        The part of the experiment that moves its results.
    reads, writes
        Files and folders, given the experiment and the subject.
    maker
        For a stand-in: the module whose ``make(experiment)`` runs instead of a notebook.
    """

    name: str
    per: Literal["experiment", "variant", "model"]
    needs: Callable[[Experiment, Subject], list[tuple[str, Subject]]]
    settings: Callable[[Experiment, Subject], dict[str, Any]]
    reads: Callable[[Experiment, Subject], list[Path]]
    writes: Callable[[Paths, Subject], list[Path]]
    maker: str | None = None

    def subjects(self, experiment: Experiment) -> list[Subject]:
        """The variants or models it runs for; ``[None]`` for a stage of the whole experiment."""
        return {
            "experiment": [None],
            "variant": list(experiment.variants),
            "model": list(experiment.models),
        }[self.per]


SNAPSHOT, BASE_MODEL = "stand-in-snapshot", "stand-in-base"
CURATION, FINETUNE = "01_data_curation", "02_finetune"
PERPLEXITY, COMPLETIONS = "03_perplexity", "04_completions"
FIGURES = "07_figures_and_tables"


def _before_curation(experiment: Experiment, _: Subject) -> list[tuple[str, Subject]]:
    return [] if experiment.data.snapshot else [(SNAPSHOT, None)]


def _before_training(experiment: Experiment, _: Subject) -> list[tuple[str, Subject]]:
    base = [] if experiment.base.model else [(BASE_MODEL, None)]
    return [(CURATION, None), *base]


def _before_evaluation(experiment: Experiment, model: Subject) -> list[tuple[str, Subject]]:
    return _before_training(experiment, None) + ([] if model == BASE else [(FINETUNE, model)])


def _before_figures(experiment: Experiment, _: Subject) -> list[tuple[str, Subject]]:
    per_model = [(stage, m) for stage in (PERPLEXITY, COMPLETIONS) for m in experiment.models]
    return [*_before_training(experiment, None), *per_model]


def _base_files(experiment: Experiment) -> list[Path]:
    """The base model's folder; one from the Hub is identified by its id and revision."""
    folder = Path(experiment.base_source)
    return [folder] if folder.is_dir() or experiment.base.model is None else []


def _model_files(experiment: Experiment, model: Subject) -> list[Path]:
    adapter = [] if model == BASE else [experiment.paths.adapter(model)]
    return [*_base_files(experiment), *adapter]


def _finetune_settings(experiment: Experiment, variant: Subject) -> dict[str, Any]:
    training = experiment.training_for(variant).model_dump()
    training["lora"]["targets"] = training["lora"]["targets"][flavour_of(variant)]
    return {"seed": experiment.seed, "base": _base_settings(experiment), "training": training}


def _base_settings(experiment: Experiment) -> dict[str, Any]:
    return experiment.base.model_dump(exclude={"stand_in"})


def _evaluation_settings(section: str) -> Callable[[Experiment, Subject], dict[str, Any]]:
    def settings(experiment: Experiment, _: Subject) -> dict[str, Any]:
        base = {"model": experiment.base.model, "revision": experiment.base.revision}
        return {"base": base, section: getattr(experiment, section).model_dump()}

    return settings


def _figures_settings(experiment: Experiment, _: Subject) -> dict[str, Any]:
    """Everything: table ``hyperparameters`` prints it, and every picture bears the label."""
    settings = experiment.model_dump(exclude={"data": {"snapshot"}})
    return {**settings, "stand_in": experiment.stand_in}


STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            SNAPSHOT,
            "experiment",
            needs=lambda experiment, _: [],
            settings=lambda experiment, _: experiment.data.stand_in.model_dump(),
            reads=lambda experiment, _: [],
            writes=lambda paths, _: [paths.snapshot, paths.likelihood],
            maker="feyntune.demo.corpus",
        ),
        Stage(
            CURATION,
            "experiment",
            needs=_before_curation,
            # The snapshot is an input: its contents and its file's name count, not its folder.
            settings=lambda experiment, _: experiment.data.model_dump(
                exclude={"snapshot", "stand_in"}
            ),
            reads=lambda experiment, _: [experiment.snapshot],
            writes=lambda paths, _: [
                *(paths.split(dataset, split) for dataset in DATASETS for split in SPLITS),
                paths.curation,
            ],
        ),
        Stage(
            BASE_MODEL,
            "experiment",
            needs=lambda experiment, _: [(CURATION, None)],
            settings=lambda experiment, _: {
                "stand_in": experiment.base.stand_in.model_dump(),
                "excluded_ids": experiment.data.excluded_ids,
                "bad_lines_allowed": experiment.data.bad_lines_allowed,
            },
            reads=lambda experiment, _: [
                experiment.snapshot,
                *(experiment.paths.split(d, s) for d in DATASETS for s in SPLITS),
            ],
            writes=lambda paths, _: [paths.base],
            maker="feyntune.demo.model",
        ),
        Stage(
            FINETUNE,
            "variant",
            needs=_before_training,
            settings=_finetune_settings,
            reads=lambda experiment, variant: [
                experiment.paths.split(dataset_of(variant), "train"),
                experiment.paths.split("s1", "validation"),
                *_base_files(experiment),
            ],
            writes=lambda paths, variant: [paths.adapter(variant), paths.log(variant)],
        ),
        Stage(
            PERPLEXITY,
            "model",
            needs=_before_evaluation,
            settings=_evaluation_settings("perplexity"),
            reads=lambda experiment, model: [
                experiment.paths.split("s1", "test"),
                *_model_files(experiment, model),
            ],
            writes=lambda paths, model: [paths.perplexity(model)],
        ),
        Stage(
            COMPLETIONS,
            "model",
            needs=_before_evaluation,
            settings=_evaluation_settings("completions"),
            reads=lambda experiment, model: [
                experiment.paths.split("s1", "test"),
                *_model_files(experiment, model),
            ],
            writes=lambda paths, model: [paths.completions(model), paths.similarity(model)],
        ),
        Stage(
            FIGURES,
            "experiment",
            needs=_before_figures,
            settings=_figures_settings,
            # And the results of every fresh stage: figures draw what is there (see `survey`).
            reads=lambda experiment, _: [STYLE],
            writes=lambda paths, _: [paths.figures, paths.tables],
        ),
    )
}


def every(experiment: Experiment, *names: str) -> list[tuple[str, Subject]]:
    """Every run of the named stages, as stage and subject."""
    return [(name, subject) for name in names for subject in STAGES[name].subjects(experiment)]


def plan(experiment: Experiment, models: list[str] | None = None) -> list[tuple[str, Subject]]:
    """Every stage and subject of the experiment, in order, without stand-ins it does not need.

    Parameters
    ----------
    models
        Restrict to these models; ``None`` for all.
    """
    unneeded = {
        name
        for name, given in (
            (SNAPSHOT, experiment.data.snapshot),
            (BASE_MODEL, experiment.base.model),
        )
        if given
    }
    return [
        (name, subject)
        for name, subject in every(experiment, *(s for s in STAGES if s not in unneeded))
        if models is None or subject is None or subject in models
    ]
