"""The stages as data, and a run of one: what it depends on, what it reads and what it writes.

What a stage's results depend on is said here once: `freshness` compares it with what is on disk,
and the workflow engine orders the work by it. Inputs and outputs have roles (``data/s1/train``,
``adapter``), so a result is the same wherever it is and whatever its experiment is called.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from feyntune.experiment import recipes
from feyntune.experiment.recipes import BASE, MEASURED_ON
from feyntune.experiment.schema import TEST_SET, Experiment
from feyntune.experiment.sections import result_settings
from feyntune.paths import CAPTIONS, GRAMMAR, RATING_PAGE, STYLE, TEMPLATES, expectations
from feyntune.runs import dependencies, records
from feyntune.runs.dependencies import Places, Subject

SNAPSHOT, BASE_MODEL, RELEASED = "stand-in-snapshot", "stand-in-base", "released-scores"
CONVERTED = "converted-base"
ADOPTED = "released-adapters"
CURATION, FINETUNE = "01_data_curation", "02_finetune"
PERPLEXITY, COMPLETIONS = "03_perplexity", "04_completions"
COMMERCIAL = "05_commercial_llms"
HUMAN = "06_human_evaluation"
FIGURES, REPORT = "07_figures_and_tables", "08_reproduction_report"


@dataclass(frozen=True)
class Stage:
    """One numbered notebook, or a maker: of a base model, or of results from what was released.

    Attributes
    ----------
    name
        The notebook's name without ending.
    per
        What it runs once for.
    settings
        The part of the experiment that its results depend on, by value.
    reads, writes
        Files and folders by role, given the experiment and the subject.
    after
        The stages (with their subjects) that come before it, where the experiment has them.
    when
        Whether an experiment has this stage.
    gathers
        Whether it is made from whatever of the stages before it is fresh, as well as from what it
        reads; only the first that it comes after must be there.
    maker
        The module whose ``make(experiment)`` runs instead of a notebook.
    threads
        How many it computes with, where their number changes the last digits of its results.
    keeps
        Outputs, by role, that it adds to and does not write anew.
    optional
        Outputs, by role, of which there may be none.
    waited
        What a finished run lacked and can use now; ``None`` if nothing.
    """

    name: str
    per: Literal["experiment", "variant", "model"]
    settings: Callable[[Experiment, Subject], dict[str, Any]]
    reads: Callable[[Experiment, Subject], Places]
    writes: Callable[[Experiment, Subject], Places]
    after: Callable[[Experiment, Subject], list[tuple[str, Subject]]] = lambda experiment, _: []
    when: Callable[[Experiment], bool] = lambda experiment: True
    gathers: bool = False
    maker: str | None = None
    threads: Callable[[Experiment], int] | None = None
    keeps: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    waited: Callable[[Experiment], str | None] = lambda experiment: None

    @property
    def short(self) -> str:
        """Its name as a rule of the workflow: ``finetune``."""
        return self.name.lstrip("0123456789_").replace("-", "_")

    def subjects(self, experiment: Experiment) -> list[Subject]:
        """The variants or models it runs for; ``[None]`` for a stage of the whole experiment."""
        return {
            "experiment": [None],
            "variant": list(experiment.variants),
            "model": list(experiment.models),
        }[self.per]


@dataclass(frozen=True, eq=False)
class Run:
    """A stage run for an experiment and, where the stage says so, for one variant or model."""

    experiment: Experiment
    stage: Stage
    subject: Subject = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[str, str, Subject]:
        return self.experiment.name, self.stage.name, self.subject

    def __str__(self) -> str:
        """``02_finetune-s1-LoRA-all``."""
        return self.stage.name if self.subject is None else f"{self.stage.name}-{self.subject}"

    @property
    def record_file(self) -> Path:
        """Its run record: written last, so a run whose record exists is whole."""
        paths = self.experiment.paths
        if self.stage.name == FINETUNE:
            return paths.training_record(self.subject)
        return paths.record(str(self))

    @property
    def record(self) -> dict[str, Any] | None:
        return records.read(self.record_file)

    @property
    def notebook(self) -> Path:
        """The executed copy, kept also when it failed."""
        return self.experiment.paths.notebook(str(self))

    @property
    def seed(self) -> int:
        """The variant's own, where it trains one."""
        variant = self.experiment.variants.get(self.subject) if self.subject else None
        return variant.seed if variant else self.experiment.seed

    @property
    def settings(self) -> dict[str, Any]:
        return self.stage.settings(self.experiment, self.subject)

    @property
    def reads(self) -> Places:
        return self.stage.reads(self.experiment, self.subject)

    @property
    def writes(self) -> Places:
        return self.stage.writes(self.experiment, self.subject)

    @property
    def needs(self) -> list[Run]:
        """The runs that come before it in this experiment."""
        before = self.stage.after(self.experiment, self.subject)
        found = [run(self.experiment, stage, subject) for stage, subject in before]
        return [each for each in found if each.stage.when(self.experiment)]

    @property
    def requests(self):
        """What its job may use."""
        return self.experiment.resources.of(self.stage.name)

    @property
    def threads(self) -> int:
        """The threads it runs with."""
        given = self.stage.threads
        return given(self.experiment) if given else self.requests.cores

    @property
    def counted_threads(self) -> int | None:
        """Its threads where their number changes digits; a GPU's sums do not depend on them."""
        return self.threads if self.stage.threads and not self.requests.gpus else None

    @property
    def command(self) -> str:
        """The command line that runs it."""
        of = f" --{self.stage.per} {self.subject}" if self.subject else ""
        return f"feyntune run {self.stage.name} --experiment {self.experiment.name}{of}"


def run(experiment: Experiment, stage: str, subject: Subject = None) -> Run:
    """A run by the name of its stage: what a trial does not change is its experiment's."""
    found = STAGES[stage]
    owner = experiment if experiment.owns(found.short, subject) else experiment.parent
    return Run(owner, found, subject)


# --- which stages an experiment has -----------------------------------------------------------


def _computed(experiment: Experiment) -> bool:
    return experiment.scores == "computed"


def _trained(experiment: Experiment) -> bool:
    return _computed(experiment) and experiment.trained == "here"


# What a model is trained on, and evaluated with.
_FOR_TRAINING = [(CURATION, None), (BASE_MODEL, None), (CONVERTED, None)]
_FOR_EVALUATION = [*_FOR_TRAINING, (ADOPTED, None)]


def _with_adapter(_: Experiment, model: Subject) -> list[tuple[str, Subject]]:
    return [*_FOR_EVALUATION, *([] if model == BASE else [(FINETUNE, model)])]


def _before_ratings(experiment: Experiment, _: Subject) -> list[tuple[str, Subject]]:
    per_model = [(stage, m) for stage in (PERPLEXITY, COMPLETIONS) for m in experiment.models]
    return [*_FOR_EVALUATION, *per_model, (COMMERCIAL, None), (RELEASED, None)]


def _provider_available(experiment: Experiment) -> str | None:
    """Whether a provider that was not asked because its key was not set can be asked now."""
    asked = records.read(experiment.paths.asked) or {}
    lacked = sorted({found.get("waits_for") or "" for found in asked.values()} - {""})
    return next((f"{name} is set now" for name in lacked if os.environ.get(name)), None)


def _cores(name: str) -> Callable[[Experiment], int]:
    return lambda experiment: experiment.resources.of(name).cores


STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            SNAPSHOT,
            "experiment",
            settings=lambda experiment, _: result_settings(experiment.data.stand_in),
            reads=lambda experiment, _: {"grammar": GRAMMAR},
            writes=lambda experiment, _: {
                "snapshot": experiment.paths.snapshot,
                "likelihood": experiment.paths.likelihood,
            },
            when=lambda experiment: _trained(experiment) and not experiment.data.snapshot,
            maker="feyntune.data.stand_in.corpus",
        ),
        Stage(
            CURATION,
            "experiment",
            settings=dependencies.curation_settings,
            reads=lambda experiment, _: {"snapshot": experiment.snapshot},
            writes=lambda experiment, _: {
                **dependencies.every_split(experiment),
                "curation": experiment.paths.curation,
                "sampled": experiment.paths.sampled,
            },
            after=lambda experiment, _: [(SNAPSHOT, None)],
            when=_trained,
        ),
        Stage(
            BASE_MODEL,
            "experiment",
            settings=dependencies.base_settings,
            # The abstracts that are sampled, whatever the recipes make of them.
            reads=lambda experiment, _: {
                "snapshot": experiment.snapshot,
                "sampled": experiment.paths.sampled,
            },
            writes=lambda experiment, _: {"base": experiment.paths.base},
            after=lambda experiment, _: [(CURATION, None)],
            when=lambda experiment: _trained(experiment) and not experiment.base.model,
            maker="feyntune.models.tiny_llama",
            threads=lambda experiment: experiment.base.stand_in.threads,
        ),
        Stage(
            CONVERTED,
            "experiment",
            settings=lambda experiment, _: {},
            reads=lambda experiment, _: {"gguf": experiment.unconverted},
            writes=lambda experiment, _: {"base": experiment.paths.base},
            when=lambda experiment: _computed(experiment) and experiment.unconverted is not None,
            maker="feyntune.models.imported.conversion",
        ),
        Stage(
            FINETUNE,
            "variant",
            settings=dependencies.finetune_settings,
            reads=lambda experiment, variant: {
                **dependencies.one_split(experiment, experiment.variants[variant].dataset, "train"),
                **dependencies.one_split(experiment, MEASURED_ON, "validation"),
                **dependencies.base_files(experiment),
            },
            writes=lambda experiment, variant: {
                "adapter": experiment.paths.adapter(variant),
                "log": experiment.paths.log(variant),
            },
            after=lambda experiment, _: _FOR_TRAINING,
            when=_trained,
            threads=_cores(FINETUNE),
        ),
        Stage(
            ADOPTED,
            "experiment",
            settings=lambda experiment, _: {"names": recipes.released_names(experiment.models)},
            reads=lambda experiment, _: {
                f"fetched/{name}": experiment.paths.fetched(name)
                for name in (TEST_SET, *experiment.variants)
            },
            writes=lambda experiment, _: {
                **dependencies.one_split(experiment, MEASURED_ON, "test"),
                **{f"adapters/{v}": experiment.paths.adapter(v) for v in experiment.variants},
            },
            when=lambda experiment: _computed(experiment) and not _trained(experiment),
            maker="feyntune.models.imported.released_adapters",
        ),
        Stage(
            PERPLEXITY,
            "model",
            settings=lambda experiment, _: {
                "base": dependencies.identified(experiment),
                "perplexity": result_settings(experiment.perplexity),
            },
            reads=dependencies.evaluation_files,
            writes=lambda experiment, model: {"perplexity": experiment.paths.perplexity(model)},
            after=_with_adapter,
            when=_computed,
            threads=_cores(PERPLEXITY),
        ),
        Stage(
            COMPLETIONS,
            "model",
            settings=lambda experiment, _: {
                "base": dependencies.identified(experiment),
                "completions": dependencies.completion_settings(experiment),
            },
            reads=lambda experiment, model: {
                **dependencies.evaluation_files(experiment, model),
                **dependencies.embedder_files(experiment),
            },
            writes=lambda experiment, model: {
                "completions": experiment.paths.completions(model),
                "similarity": experiment.paths.similarity(model),
            },
            after=_with_adapter,
            when=_computed,
            threads=_cores(COMPLETIONS),
        ),
        Stage(
            COMMERCIAL,
            "experiment",
            settings=dependencies.commercial_settings,
            reads=lambda experiment, _: {
                **dependencies.one_split(experiment, MEASURED_ON, "test"),
                **dependencies.base_files(experiment),
                **dependencies.embedder_files(experiment),
            },
            # Recorded answers among them: answers that come from elsewhere are scored anew.
            writes=lambda experiment, _: {"commercial": experiment.paths.commercial},
            after=lambda experiment, _: _FOR_EVALUATION,
            when=lambda experiment: _computed(experiment) and experiment.commercial is not None,
            threads=_cores(COMMERCIAL),
            keeps=("commercial/answers/",),
            waited=_provider_available,
        ),
        Stage(
            RELEASED,
            "experiment",
            settings=lambda experiment, _: {"names": recipes.released_names(recipes.MODELS)},
            reads=lambda experiment, _: {
                f"fetched/{name}": experiment.paths.fetched(name) for name in experiment.released
            },
            writes=lambda experiment, _: {path.stem: path for path in experiment.paths.imported},
            when=lambda experiment: experiment.scores == "released",
            maker="feyntune.analysis.published_scores",
            optional=("finetune", "perplexity", "completions", "ratings"),
        ),
        Stage(
            HUMAN,
            "experiment",
            settings=dependencies.rating_settings,
            reads=lambda experiment, _: {
                **{f"ratings/{n}": path for n, path in enumerate(experiment.rating_files)},
                "rating page": RATING_PAGE,
            },
            writes=lambda experiment, _: {"human-evaluation": experiment.paths.human_evaluation},
            after=_before_ratings,
            gathers=True,
            threads=_cores(HUMAN),
        ),
        Stage(
            FIGURES,
            "experiment",
            settings=dependencies.figures_settings,
            reads=lambda experiment, _: {"style": STYLE, "captions": CAPTIONS},
            writes=lambda experiment, _: {
                "figures": experiment.paths.figures,
                "tables": experiment.paths.tables,
            },
            after=lambda experiment, _: [*_before_ratings(experiment, _), (HUMAN, None)],
            gathers=True,
            threads=_cores(FIGURES),
        ),
        Stage(
            REPORT,
            "experiment",
            settings=dependencies.figures_settings,
            reads=lambda experiment, _: {
                "templates": TEMPLATES,
                "captions": CAPTIONS,
                "claims": expectations(experiment.name),
            },
            writes=lambda experiment, _: {"report": experiment.paths.report},
            after=lambda experiment, _: [(FIGURES, None)],
            gathers=True,
        ),
    )
}


def every(experiment: Experiment, *names: str) -> list[Run]:
    """Every run of the named stages."""
    return [run(experiment, n, s) for n in names for s in STAGES[n].subjects(experiment)]


def plan(experiment: Experiment, models: list[str] | None = None) -> list[Run]:
    """Every run that the experiment has, in order.

    Parameters
    ----------
    models
        Restrict to these models; ``None`` for all.
    """
    present = [name for name, stage in STAGES.items() if stage.when(experiment)]
    return [
        each
        for each in every(experiment, *present)
        if models is None or each.subject is None or each.subject in models
    ]


def shared(runs: list[Run], workers: int | None) -> list[list[Run]]:
    """Divide what is to run, in order, into jobs, each of which runs its share in one kernel.

    On one machine a job trains and evaluates its models, and another one gathers all results. On a
    cluster every job is of one stage, which has its own requests.

    Parameters
    ----------
    workers
        Jobs that can run at the same time here; ``None`` on a cluster.
    """

    def kind(each: Run) -> str:
        if workers is None or not (each.subject or each.stage.gathers):
            return each.stage.name
        return "models" if each.subject else "gathering"

    return [part for _, some in groupby(runs, kind) for part in _divided(list(some), workers)]


def _divided(runs: list[Run], workers: int | None) -> list[list[Run]]:
    """Divide runs of one kind; what needs one another's results is not parted."""
    if runs[0].subject is None:
        return [runs]
    resources, subjects = runs[0].experiment.resources, list(dict.fromkeys(r.subject for r in runs))
    rest = [each for each in subjects if each != BASE]
    # Where models are trained, base is little work beside.
    if runs[0].stage.per == "variant":
        most, number = resources.variants_per_job, len(rest)
    else:
        most, number = resources.models_per_job, len(subjects)
    size = min(most, -(-number // workers)) if workers else most
    count = -(-number // size)
    shares = [rest[n::count] for n in range(count)]
    if BASE in subjects:
        # Where there is most room.
        min(shares, key=len).insert(0, BASE)
    return [[each for each in runs if each.subject in share] for share in shares if share]
