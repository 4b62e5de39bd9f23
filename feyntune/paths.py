"""Where every artifact lives: the only place that spells a path.

The tree is a contract that other people's scripts rely on (see ``docs/results.md``).
``FEYNTUNE_OUTPUT`` moves the three output folders (``results``, ``figures``, ``tables``) elsewhere,
for tests and for clusters whose checkout is read-only; a relative path begins at the checkout,
wherever a process was started.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
EXPERIMENTS = REPOSITORY / "experiments"
NOTEBOOKS = REPOSITORY / "notebooks"
PACKAGE = REPOSITORY / "feyntune"
WORKFLOW = REPOSITORY / "workflow"
GRAMMAR = PACKAGE / "data" / "stand_in" / "grammar.yaml"
STYLE = PACKAGE / "analysis" / "figures" / "feyntune.mplstyle"
TEMPLATES = PACKAGE / "analysis" / "report" / "templates"
CAPTIONS = PACKAGE / "analysis" / "tables" / "captions.yaml"
RATING_PAGE = PACKAGE / "ratings" / "sheet_page"

SPLITS = ("train", "validation", "test")


def output_root() -> Path:
    """Return the folder that holds ``results/``, ``figures/`` and ``tables/``."""
    given = os.environ.get("FEYNTUNE_OUTPUT") or REPOSITORY
    return (REPOSITORY / Path(given).expanduser()).resolve()


@dataclass(frozen=True)
class Paths:
    """The places of one experiment."""

    experiment: str

    @property
    def results(self) -> Path:
        return output_root() / "results" / self.experiment

    @property
    def figures(self) -> Path:
        return self._drawn("figures")

    @property
    def tables(self) -> Path:
        return self._drawn("tables")

    @property
    def partial(self) -> Path:
        """Figures and tables of some of the models, which never stand in place of those of all."""
        return self.results / "partial"

    @property
    def lacking(self) -> Path:
        """What had no result when they were drawn; there only if something had none."""
        return self.partial / "lacking.json"

    def _drawn(self, kind: str) -> Path:
        whole = output_root() / kind / self.experiment
        return self.partial / kind if self.lacking.exists() else whole

    @property
    def snapshot(self) -> Path:
        """The stand-in snapshot, under the name that Kaggle gives the real one."""
        return self.results / "snapshot" / "arxiv-metadata-oai-snapshot.json"

    @property
    def likelihood(self) -> Path:
        """Exact log-likelihood of every stand-in abstract under its source."""
        return self.results / "snapshot" / "likelihood.parquet"

    def fetched(self, source: str) -> Path:
        """The pinned files of an outside source, as links to where they were fetched to."""
        return self.results / "fetched" / source

    @property
    def lockfile(self) -> Path:
        """Commits, sizes and hashes of what was fetched.

        It is committed beside its experiment; a run whose output is elsewhere writes its own there.
        """
        root = EXPERIMENTS if output_root() == REPOSITORY else output_root() / EXPERIMENTS.name
        return root / f"{self.experiment}.lock.yaml"

    @property
    def recorded(self) -> Path:
        """Results that are committed with the experiment, in the folders that they have here."""
        own = output_root() / EXPERIMENTS.name / self.experiment
        return own if own.is_dir() else EXPERIMENTS / self.experiment

    @property
    def unfinished_lock(self) -> Path:
        """The same of a fetch that has not brought every source."""
        return self.results / ".fetched.lock.yaml"

    @property
    def data(self) -> Path:
        return self.results / "data"

    @property
    def curation(self) -> Path:
        return self.data / "curation.json"

    @property
    def sampled(self) -> Path:
        """Ids and fields of every sampled abstract, of which the datasets are mixed."""
        return self.data / "sampled.parquet"

    def split(self, dataset: str, split: str) -> Path:
        return self.data / dataset / f"{split}.parquet"

    @property
    def base(self) -> Path:
        """The base model and its tokenizer, if made here: the stand-in, or a converted one."""
        return self.results / "base"

    def finetune(self, variant: str) -> Path:
        return self.results / "finetune" / variant

    def adapter(self, variant: str) -> Path:
        return self.finetune(variant) / "adapter"

    def checkpoints(self, variant: str) -> Path:
        return self.finetune(variant) / "checkpoints"

    def log(self, variant: str) -> Path:
        return self.finetune(variant) / "log.parquet"

    def progress(self, variant: str) -> Path:
        """A line of JSON per evaluation, while the training runs; it holds times."""
        return self.finetune(variant) / "log.jsonl"

    def reported(self, variant: str) -> Path:
        """TensorBoard's files, whose folder below its root is the name of the run."""
        return self.results / "tensorboard" / self.experiment / variant

    def perplexity(self, model: str) -> Path:
        return self.results / "perplexity" / f"{model}.parquet"

    def completions(self, model: str) -> Path:
        return self.results / "completions" / f"{model}.parquet"

    def unfinished_completions(self, model: str) -> Path:
        """Completions of a run that has not ended, or was killed."""
        return self.results / "completions" / f".unfinished-{model}.jsonl"

    def similarity(self, model: str) -> Path:
        """Pairwise cosine similarity of the ground-truth abstracts as ``model`` embeds them."""
        return self.results / "similarity" / f"{model}.json"

    @property
    def commercial(self) -> Path:
        """What commercial models answered, recorded and scored."""
        return self.results / "commercial"

    def answers(self, provider: str) -> Path:
        """Every request and answer, a line of JSON each, in the order of arrival."""
        return self.commercial / "answers" / f"{provider}.jsonl"

    def answered(self, provider: str) -> Path:
        """The answers as result file, like :meth:`completions`."""
        return self.commercial / f"{provider}.parquet"

    @property
    def asked(self) -> Path:
        """By provider: how many were asked and answered, by which model, or why none."""
        return self.commercial / "asked.json"

    @property
    def ratings(self) -> Path:
        """Scores that people gave: paper, rater, system, score."""
        return self.results / "ratings" / "ratings.csv"

    @property
    def human_evaluation(self) -> Path:
        """Rating sheets with their key, and what the analysis of the ratings found."""
        return self.results / "human-evaluation"

    @property
    def rating_sheets(self) -> Path:
        """Sheets made for real raters: no stage writes here, and none is ever overwritten."""
        return self.results / "rating-sheets"

    @property
    def imported(self) -> list[Path]:
        """What released scores become: the files above, in the folders of computed ones."""
        folders = ("data", "finetune", "perplexity", "completions", "ratings")
        return [*(self.results / name for name in folders), self.released]

    @property
    def released(self) -> Path:
        """What of the released scores there was, and what was not."""
        return self.results / "released.json"

    @property
    def report(self) -> Path:
        """The folder of the report, which can be kept as it is."""
        return self.results / "report"

    @property
    def page(self) -> Path:
        """The report: one page that needs nothing else."""
        return self.report / "index.html"

    @property
    def verdicts(self) -> Path:
        """Every claim with its verdict, for scripts."""
        return self.report / "claims.json"

    @property
    def trials(self) -> Path:
        """A folder for each trial, and `index.csv`, a row for each of their models."""
        return self.results / "trials"

    @property
    def set_aside(self) -> Path:
        """What a run found in place of its own outputs; only ``feyntune clean`` removes it."""
        return self.results / "set-aside"

    def record(self, run: str) -> Path:
        """The record of a run; that of a fine-tuning is in its variant's folder instead."""
        return self.results / "runs" / f"{run}.json"

    def training_record(self, variant: str) -> Path:
        return self.finetune(variant) / "run.json"

    def notebook(self, run: str) -> Path:
        """The executed copy of a run's notebook, kept also when it failed."""
        return self.results / "notebooks" / f"{run}.ipynb"

    def job_log(self, job: str) -> Path:
        """What a job of the workflow printed."""
        return self.results / "logs" / f"{job}.log"

    def job_stamp(self, job: str) -> Path:
        """What the workflow engine sees of a finished job."""
        return self.results / "done" / job

    @property
    def jobs(self) -> Path:
        """What a run of the workflow has to do, for its engine."""
        return self.results / "logs" / "jobs.json"

    @property
    def lock(self) -> Path:
        """Held while a workflow runs, so that two runs never write the same results."""
        return self.results / ".lock"

    @property
    def fetch_lock(self) -> Path:
        """Held while outside sources are fetched."""
        return self.results / ".fetch.lock"

    def figure(self, name: str) -> Path:
        """A figure without its ending: ``.pdf`` and ``.png`` are drawn."""
        return self.figures / name

    def table(self, name: str) -> Path:
        """A table without its ending: ``.csv``, ``.md`` and ``.tex`` are written."""
        return self.tables / name


@dataclass(frozen=True)
class TrialPaths(Paths):
    """The places of a trial: its experiment's for all that it does not change.

    Attributes
    ----------
    shared
        The places of its experiment.
    owns
        Whether a stage, by its short name, has results of the trial's own for a subject.
    """

    shared: Paths
    owns: Callable[[str, str | None], bool]

    def _of(self, stage: str, subject: str | None = None) -> Paths:
        return Paths(self.experiment) if self.owns(stage, subject) else self.shared

    @property
    def snapshot(self) -> Path:
        return self.shared.snapshot

    @property
    def likelihood(self) -> Path:
        return self.shared.likelihood

    def _drawn(self, kind: str) -> Path:
        return self.results / kind

    def fetched(self, source: str) -> Path:
        return self.shared.fetched(source)

    @property
    def lockfile(self) -> Path:
        return self.shared.lockfile

    @property
    def unfinished_lock(self) -> Path:
        return self.shared.unfinished_lock

    @property
    def data(self) -> Path:
        return self.shared.data

    @property
    def base(self) -> Path:
        return self.shared.base

    def finetune(self, variant: str) -> Path:
        return self._of("finetune", variant).finetune(variant)

    def perplexity(self, model: str) -> Path:
        return self._of("perplexity", model).perplexity(model)

    def completions(self, model: str) -> Path:
        return self._of("completions", model).completions(model)

    def unfinished_completions(self, model: str) -> Path:
        return self._of("completions", model).unfinished_completions(model)

    def similarity(self, model: str) -> Path:
        return self._of("completions", model).similarity(model)

    @property
    def commercial(self) -> Path:
        return self._of("commercial_llms").commercial

    @property
    def ratings(self) -> Path:
        return self.shared.ratings

    @property
    def released(self) -> Path:
        return self.shared.released


def expectations(experiment: str) -> Path:
    """The claims of an experiment, which may have none."""
    return EXPERIMENTS / f"{experiment}.expected.yaml"
