"""What figures and tables are drawn from: the result files of an experiment that are fresh.

A result of another configuration, a half-made or a missing one is left out here and named where
it should have been.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from feyntune.data.fetch import pins
from feyntune.errors import UserError
from feyntune.experiment.recipes import MEASURED_ON
from feyntune.experiment.schema import Experiment
from feyntune.runs import records
from feyntune.runs.freshness import result_files
from feyntune.runs.stages import ADOPTED, CURATION, FIGURES, RELEASED, run


@dataclass(frozen=True)
class Results:
    """Fresh results by variant or model; those that are not there are simply not in a dict.

    Attributes
    ----------
    curation
        Counts at every step of curation and the datasets; ``None`` where nothing is curated.
    released
        What there was of the authors' released scores, and what not; ``None`` where ours count.
    cards
        By variant, what the authors' model card says of its training dataset.
    logs
        Training log of each variant.
    perplexity, completions
        Per-abstract results of each model.
    similarity
        Pairwise cosine statistics of each model.
    commercial
        Scored answers of each commercial model that gave any.
    asked
        By commercial model: what was asked and what came of it, or why nothing was.
    test
        ``id, title, categories, primary, year, abstract`` of the s1 test set.
    ratings
        File of the scores that the authors gave; ``None`` where it is not released.
    human
        By table, what experts' ratings say; empty if there are no ratings.
    records
        Run records of every stage that ran, in the order of the stages.
    source
        ``id`` and ``nll`` (nats) of every stand-in abstract under the grammar that wrote it, the
        end not scored, as for a model; ``None`` for a real snapshot, whose source nobody knows.
    """

    curation: dict[str, Any] | None
    released: dict[str, Any] | None
    cards: dict[str, dict[str, Any]]
    logs: dict[str, pd.DataFrame]
    perplexity: dict[str, pd.DataFrame]
    completions: dict[str, pd.DataFrame]
    similarity: dict[str, dict[str, Any]]
    commercial: dict[str, pd.DataFrame]
    asked: dict[str, dict[str, Any]]
    test: pd.DataFrame
    ratings: Path | None
    human: dict[str, pd.DataFrame]
    records: list[dict[str, Any]]
    source: pd.DataFrame | None


def load(experiment: Experiment, stage: str = FIGURES) -> Results:
    """Read every fresh result of an experiment, of the stages before this one.

    Raises
    ------
    UserError
        If there are not even test abstracts.
    """
    paths = experiment.paths
    files = result_files(run(experiment, stage))
    runs = list(dict.fromkeys(files.values()))
    if not {CURATION, ADOPTED, RELEASED} & {each.stage.name for each in runs}:
        raise UserError(
            f"There are no data of experiment {experiment.name}: run "
            f"./run_all.sh --experiment {experiment.name} first."
        )

    def read(place: Path) -> Any:
        return records.read(place) if place in files else None

    def read_all(names: Iterable[str], place: Callable, how: Callable = pd.read_parquet) -> dict:
        return {name: how(place(name)) for name in names if place(name) in files}

    systems = experiment.commercial.present if experiment.commercial else {}
    return Results(
        curation=read(paths.curation),
        released=read(paths.released),
        cards=pins.cards(experiment),
        logs=read_all(experiment.variants, paths.log),
        perplexity=read_all(experiment.models, paths.perplexity),
        completions=read_all(experiment.models, paths.completions),
        similarity=read_all(experiment.models, paths.similarity, records.read),
        commercial=read_all(systems, paths.answered),
        asked=read(paths.asked) or {},
        test=pd.read_parquet(paths.split(MEASURED_ON, "test")),
        ratings=paths.ratings if paths.ratings in files else None,
        human={
            file.stem: pd.read_parquet(file)
            for file in sorted(files)
            if file.parent == paths.human_evaluation and file.suffix == ".parquet"
        },
        records=[each.record for each in runs],
        source=_source(experiment) if paths.likelihood in files else None,
    )


def _source(experiment: Experiment) -> pd.DataFrame:
    frame = pd.read_parquet(experiment.paths.likelihood).dropna(subset="loglik")
    return pd.DataFrame({"id": frame["id"], "nll": frame["loglik_end"] - frame["loglik"]})
