"""The stages as data: what each runs per, which settings move it, what it reads and writes.

What a stage's results depend on is said here once; `survey` compares it with what lies on disk,
and the Snakefile orders the work by it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from feyntune.experiment.recipes import BASE, DATASETS, dataset_of
from feyntune.experiment.schema import RELEASED_SCORES, TEST_SET, Experiment
from feyntune.paths import RATING_PAGE, SPLITS, STYLE, TEMPLATES, Paths, expectations
from feyntune.runs import influences, records
from feyntune.runs.influences import Subject

Job = tuple[str, Subject]


@dataclass(frozen=True)
class Stage:
    """One numbered notebook, or a maker: of a stand-in, or of results from released scores.

    Attributes
    ----------
    name
        The notebook's name without ending.
    per
        What it runs once for.
    after
        The stages (with their subjects) that come before it, where the experiment has them.
    settings
        The part of the experiment that moves its results.
    reads, writes
        Files and folders, given the experiment and the subject.
    when
        Whether an experiment has this stage.
    gathers
        Whether it is made from whatever of the stages before it is fresh (see `survey`), beside
        what it reads; only the first that it comes after must be there.
    maker
        The module whose ``make(experiment)`` runs instead of a notebook.
    waited
        What has come that a finished run lacked and can use now; ``None`` if nothing has.
    """

    name: str
    per: Literal["experiment", "variant", "model"]
    after: Callable[[Experiment, Subject], list[tuple[str, Subject]]]
    settings: Callable[[Experiment, Subject], dict[str, Any]]
    reads: Callable[[Experiment, Subject], list[Path]]
    writes: Callable[[Paths, Subject], list[Path]]
    when: Callable[[Experiment], bool]
    gathers: bool = False
    maker: str | None = None
    waited: Callable[[Experiment], str | None] = lambda experiment: None

    def subjects(self, experiment: Experiment) -> list[Subject]:
        """The variants or models it runs for; ``[None]`` for a stage of the whole experiment."""
        return {
            "experiment": [None],
            "variant": list(experiment.variants),
            "model": list(experiment.models),
        }[self.per]

    def needs(self, experiment: Experiment, subject: Subject) -> list[tuple[str, Subject]]:
        """The runs that come before it in this experiment."""
        before = self.after(experiment, subject)
        return [job for job in before if STAGES[job[0]].when(experiment)]


SNAPSHOT, BASE_MODEL, RELEASED = "stand-in-snapshot", "stand-in-base", "released-scores"
ADOPTED = "released-adapters"
CURATION, FINETUNE = "01_data_curation", "02_finetune"
PERPLEXITY, COMPLETIONS = "03_perplexity", "04_completions"
COMMERCIAL = "05_commercial_llms"
HUMAN = "06_human_evaluation"
FIGURES, REPORT = "07_figures_and_tables", "08_reproduction_report"


def _computed(experiment: Experiment) -> bool:
    return experiment.scores == "computed"


def _trained(experiment: Experiment) -> bool:
    return _computed(experiment) and experiment.trained == "here"


def _adopted(experiment: Experiment) -> bool:
    return _computed(experiment) and not _trained(experiment)


def _released(experiment: Experiment) -> bool:
    return experiment.scores == "released"


def _with_adapter(_: Experiment, model: Subject) -> list[tuple[str, Subject]]:
    adapter = [] if model == BASE else [(FINETUNE, model)]
    return [(CURATION, None), (BASE_MODEL, None), (ADOPTED, None), *adapter]


def _before_ratings(experiment: Experiment, _: Subject) -> list[tuple[str, Subject]]:
    per_model = [(stage, m) for stage in (PERPLEXITY, COMPLETIONS) for m in experiment.models]
    first = [(CURATION, None), (BASE_MODEL, None), (ADOPTED, None)]
    return [*first, *per_model, (COMMERCIAL, None), (RELEASED, None)]


def _before_figures(experiment: Experiment, _: Subject) -> list[tuple[str, Subject]]:
    return [*_before_ratings(experiment, _), (HUMAN, None)]


def _key_came(experiment: Experiment) -> str | None:
    """Whether a provider that was not asked for want of a key can be asked now."""
    asked = records.read(experiment.paths.asked) or {}
    lacked = sorted({found.get("waits_for") or "" for found in asked.values()} - {""})
    return next((f"{name} is set now" for name in lacked if os.environ.get(name)), None)


STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            SNAPSHOT,
            "experiment",
            after=lambda experiment, _: [],
            settings=lambda experiment, _: experiment.data.stand_in.model_dump(),
            reads=lambda experiment, _: [],
            writes=lambda paths, _: [paths.snapshot, paths.likelihood],
            when=lambda experiment: _trained(experiment) and not experiment.data.snapshot,
            maker="feyntune.data.stand_in.corpus",
        ),
        Stage(
            CURATION,
            "experiment",
            after=lambda experiment, _: [(SNAPSHOT, None)],
            # The snapshot is an input: its contents and its file's name count, not its folder.
            settings=lambda experiment, _: {
                **experiment.data.model_dump(exclude={"snapshot", "stand_in"}),
                "knowledge_until": experiment.base.knowledge_until,
            },
            reads=lambda experiment, _: [experiment.snapshot],
            writes=lambda paths, _: [
                *(paths.split(dataset, split) for dataset in DATASETS for split in SPLITS),
                paths.curation,
            ],
            when=_trained,
        ),
        Stage(
            BASE_MODEL,
            "experiment",
            after=lambda experiment, _: [(CURATION, None)],
            settings=lambda experiment, _: {
                "stand_in": experiment.base.stand_in.model_dump(),
                "knowledge_until": experiment.base.knowledge_until,
                "excluded_ids": experiment.data.excluded_ids,
                "bad_lines_allowed": experiment.data.bad_lines_allowed,
            },
            reads=lambda experiment, _: [
                experiment.snapshot,
                *(experiment.paths.split(d, s) for d in DATASETS for s in SPLITS),
            ],
            writes=lambda paths, _: [paths.base],
            when=lambda experiment: _trained(experiment) and not experiment.base.model,
            maker="feyntune.models.tiny_llama",
        ),
        Stage(
            FINETUNE,
            "variant",
            after=lambda experiment, _: [(CURATION, None), (BASE_MODEL, None)],
            settings=influences.finetune_settings,
            reads=lambda experiment, variant: [
                experiment.paths.split(dataset_of(variant), "train"),
                experiment.paths.split("s1", "validation"),
                *influences.base_files(experiment),
            ],
            writes=lambda paths, variant: [paths.adapter(variant), paths.log(variant)],
            when=_trained,
        ),
        Stage(
            ADOPTED,
            "experiment",
            after=lambda experiment, _: [],
            settings=lambda experiment, _: {"variants": experiment.variants},
            reads=lambda experiment, _: [
                experiment.paths.fetched(name) for name in (TEST_SET, *experiment.variants)
            ],
            writes=lambda paths, _: [paths.split("s1", "test"), paths.results / "finetune"],
            when=_adopted,
            maker="feyntune.models.released_adapters",
        ),
        Stage(
            PERPLEXITY,
            "model",
            after=_with_adapter,
            settings=influences.evaluation_settings("perplexity"),
            reads=lambda experiment, model: [
                experiment.paths.split("s1", "test"),
                *influences.model_files(experiment, model),
            ],
            writes=lambda paths, model: [paths.perplexity(model)],
            when=_computed,
        ),
        Stage(
            COMPLETIONS,
            "model",
            after=_with_adapter,
            settings=influences.evaluation_settings("completions"),
            reads=lambda experiment, model: [
                experiment.paths.split("s1", "test"),
                *influences.model_files(experiment, model),
                *influences.embedder_files(experiment),
            ],
            writes=lambda paths, model: [paths.completions(model), paths.similarity(model)],
            when=_computed,
        ),
        Stage(
            COMMERCIAL,
            "experiment",
            after=lambda experiment, _: [(CURATION, None), (BASE_MODEL, None), (ADOPTED, None)],
            settings=influences.commercial_settings,
            reads=lambda experiment, _: [
                experiment.paths.split("s1", "test"),
                *influences.base_files(experiment),
                *influences.embedder_files(experiment),
            ],
            # Recorded answers among them: answers that come from elsewhere are scored anew.
            writes=lambda paths, _: [paths.commercial],
            when=lambda experiment: _computed(experiment) and experiment.commercial is not None,
            waited=_key_came,
        ),
        Stage(
            RELEASED,
            "experiment",
            after=lambda experiment, _: [],
            settings=lambda experiment, _: {},
            reads=lambda experiment, _: [
                experiment.paths.fetched(name)
                for name in (*RELEASED_SCORES, *experiment.adapters.more)
            ],
            writes=lambda paths, _: paths.imported,
            when=_released,
            maker="feyntune.analysis.published_scores",
        ),
        Stage(
            HUMAN,
            "experiment",
            after=_before_ratings,
            settings=influences.rating_settings,
            # And the results of every fresh stage before it: see `survey`.
            reads=lambda experiment, _: [*experiment.rating_files, RATING_PAGE],
            writes=lambda paths, _: [paths.human_evaluation],
            when=lambda experiment: True,
            gathers=True,
        ),
        Stage(
            FIGURES,
            "experiment",
            after=_before_figures,
            settings=influences.figures_settings,
            reads=lambda experiment, _: [STYLE],
            writes=lambda paths, _: [paths.figures, paths.tables],
            when=lambda experiment: True,
            gathers=True,
        ),
        Stage(
            REPORT,
            "experiment",
            after=lambda experiment, _: [(FIGURES, None)],
            settings=influences.figures_settings,
            reads=lambda experiment, _: [TEMPLATES, expectations(experiment.name)],
            writes=lambda paths, _: [paths.report],
            when=lambda experiment: True,
            gathers=True,
        ),
    )
}


def every(experiment: Experiment, *names: str) -> list[tuple[str, Subject]]:
    """Every run of the named stages, as stage and subject."""
    return [(name, subject) for name in names for subject in STAGES[name].subjects(experiment)]


def gathering(experiment: Experiment) -> list[Job]:
    """The stages that draw from what there is, in order."""
    return [job for job in plan(experiment) if STAGES[job[0]].gathers]


def plan(experiment: Experiment, models: list[str] | None = None) -> list[tuple[str, Subject]]:
    """Every stage that the experiment has, with its subjects, in order.

    Parameters
    ----------
    models
        Restrict to these models; ``None`` for all.
    """
    present = [name for name, stage in STAGES.items() if stage.when(experiment)]
    return [
        (name, subject)
        for name, subject in every(experiment, *present)
        if models is None or subject is None or subject in models
    ]


def share_of(shares: dict[str, list[str]], stage: str, subject: Subject) -> Subject:
    """What a job is called that makes a stage's results for a subject, for its stamp."""
    if STAGES[stage].per != "model":
        return subject
    return next(share for share, models in shares.items() if subject in models)


def shares(experiment: Experiment, models: list[str], gpus: int) -> dict[str, list[str]]:
    """The models that one job each evaluates, over one base in memory, by the share's name.

    Parameters
    ----------
    gpus
        Of this machine, all to be used; 0 where that is not known.
    """
    at_most = experiment.resources.models_per_job
    size = min(at_most, -(-len(models) // gpus)) if gpus else at_most
    if size == 1:
        return {model: [model] for model in models}
    parts = [models[first : first + size] for first in range(0, len(models), size)]
    return {f"{part[0]}+{len(part) - 1}": part for part in parts}
