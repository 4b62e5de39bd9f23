"""What of an experiment moves the results of a stage: settings and files on this disk.

Everything else may change and leaves them as they are: see `stages`, which says what a stage reads
and follows from where.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from feyntune.experiment.recipes import BASE, flavour_of
from feyntune.experiment.schema import Experiment

Subject = str | None  # a variant or model; None for a stage of the whole experiment


def base_files(experiment: Experiment) -> list[Path]:
    """The base model's folder; one from the Hub is identified by its id and revision."""
    folder = Path(experiment.base_source)
    return [folder] if folder.is_dir() or experiment.base.model is None else []


def model_files(experiment: Experiment, model: Subject) -> list[Path]:
    """Folders of the base model and of the adapter on it, where they are on this disk."""
    adapter = [] if model == BASE else [experiment.paths.adapter(model)]
    return [*base_files(experiment), *adapter]


def embedder_files(experiment: Experiment) -> list[Path]:
    """The folder of the model that embeds texts, unless it is the base model or on the Hub."""
    folder = Path(experiment.embedder_source)
    return [folder] if folder.is_dir() and experiment.completions.embedder != BASE else []


def finetune_settings(experiment: Experiment, variant: Subject) -> dict[str, Any]:
    """Training as this variant gets it: another flavour's targets move nothing."""
    training = experiment.training_for(variant).model_dump()
    training["lora"]["targets"] = training["lora"]["targets"][flavour_of(variant)]
    return {"seed": experiment.seed, "base": base_settings(experiment), "training": training}


def base_settings(experiment: Experiment) -> dict[str, Any]:
    """How the base model is loaded; how the stand-in is trained shows in its files."""
    return experiment.base.model_dump(exclude={"stand_in"})


def evaluation_settings(section: str) -> Callable[[Experiment, Subject], dict[str, Any]]:
    """Of a stage that evaluates models: which base, and the section of that name."""

    def settings(experiment: Experiment, _: Subject) -> dict[str, Any]:
        base = {"model": experiment.base.model, "revision": experiment.base.revision}
        return {"base": base, section: getattr(experiment, section).model_dump()}

    return settings


def commercial_settings(experiment: Experiment, _: Subject) -> dict[str, Any]:
    """What is asked and scored; how fast, and up to what cost, moves no answer."""
    how = {"limits", "parallel", "requests_per_minute", "timeout_seconds", "retries"}
    scored = experiment.completions.model_dump(
        include={"abstracts", "embedder", "embedder_max_tokens", "dtype"}
    )
    return {
        "base": {"model": experiment.base.model, "revision": experiment.base.revision},
        "commercial": experiment.commercial.model_dump(exclude=how),
        "completions": scored,
    }


def rating_settings(experiment: Experiment, _: Subject) -> dict[str, Any]:
    """Files of ratings are inputs: what they hold counts, not where they lie."""
    rating = experiment.human_evaluation
    return {
        "human_evaluation": rating.model_dump(exclude={"ratings", "key"}),
        "given": [len(rating.ratings), rating.key is not None],
        "statistics": experiment.statistics.model_dump(),
    }


def figures_settings(experiment: Experiment, _: Subject) -> dict[str, Any]:
    """Everything: table ``hyperparameters`` prints it, and every picture bears the label."""
    elsewhere = {"data": {"snapshot"}, "human_evaluation": {"ratings", "key"}}
    settings = experiment.model_dump(exclude=elsewhere)
    return {**settings, "stand_in": experiment.stand_in}
