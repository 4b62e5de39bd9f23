"""What figures and tables are drawn from: the result files of an experiment that are fresh.

A result of another configuration, a half-made or a missing one is left out here and named where
it should have been.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from feyntune import provenance
from feyntune.errors import UserError
from feyntune.settings import Experiment
from feyntune.stages import (
    COMPLETIONS,
    CURATION,
    FINETUNE,
    PERPLEXITY,
    SNAPSHOT,
    STAGES,
)
from feyntune.survey import to_draw


@dataclass(frozen=True)
class Results:
    """Fresh results by variant or model; those that are not there are simply not in a dict.

    Attributes
    ----------
    curation
        Counts at every step of curation and the ten datasets.
    logs
        Training log of each variant.
    perplexity, completions
        Per-abstract results of each model.
    similarity
        Pairwise cosine statistics of each model.
    records
        Run records of every stage that ran, in the order of the stages.
    source
        ``id`` and ``nll`` (nats) of every stand-in abstract under the grammar that wrote it, the
        end not scored, as for a model; ``None`` for a real snapshot, whose source nobody knows.
    """

    curation: dict[str, Any]
    logs: dict[str, pd.DataFrame]
    perplexity: dict[str, pd.DataFrame]
    completions: dict[str, pd.DataFrame]
    similarity: dict[str, dict[str, Any]]
    records: list[dict[str, Any]]
    source: pd.DataFrame | None


def load(experiment: Experiment) -> Results:
    """Read every fresh result of an experiment.

    Raises
    ------
    UserError
        If there are not even curated data.
    """
    paths, fresh = experiment.paths, to_draw(experiment)
    if (CURATION, None) not in fresh:
        raise UserError(
            f"There are no data of experiment {experiment.name} to draw: run "
            f"./run_all.sh --experiment {experiment.name} first."
        )
    by_stage = {stage: [s for name, s in fresh if name == stage] for stage in STAGES}
    return Results(
        curation=provenance.read(paths.curation),
        logs={v: pd.read_parquet(paths.log(v)) for v in by_stage[FINETUNE]},
        perplexity={m: pd.read_parquet(paths.perplexity(m)) for m in by_stage[PERPLEXITY]},
        completions={m: pd.read_parquet(paths.completions(m)) for m in by_stage[COMPLETIONS]},
        similarity={m: provenance.read(paths.similarity(m)) for m in by_stage[COMPLETIONS]},
        records=[provenance.read(paths.record(*job)) for job in fresh],
        source=_source(experiment) if (SNAPSHOT, None) in fresh else None,
    )


def _source(experiment: Experiment) -> pd.DataFrame:
    frame = pd.read_parquet(experiment.paths.likelihood).dropna(subset="loglik")
    return pd.DataFrame({"id": frame["id"], "nll": frame["loglik_end"] - frame["loglik"]})
