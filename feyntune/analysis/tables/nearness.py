"""How near completions come to what the authors wrote: meaning, length and variety of words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from feyntune.analysis.tables.scores import Frames
from feyntune.evaluation import statistics
from feyntune.evaluation.grouping import Models
from feyntune.experiment.recipes import BASE
from feyntune.experiment.sections import Statistics

# Measure, its column of a completion, and the value for the authors' text: a column, or a number.
MEASURES: tuple[tuple[str, str, str | float], ...] = (
    ("SemScore", "semscore", 1.0),
    ("length", "tokens", "truth_tokens"),
    ("entropy", "entropy_exp", "truth_entropy_exp"),
)
COLUMNS = ["measure", "model", "mean", "authors", "distance", "difference", "low", "high"]


def nearness(frames: Frames, models: Models, settings: Statistics, *, absent: str) -> pd.DataFrame:
    """Mean distance of each model's completions from the authors' continuations, beside base's.

    Parameters
    ----------
    frames
        Completion results by model: ``id`` and the columns of :data:`MEASURES`. A measure that
        they lack is left out.
    models, absent
        See :mod:`feyntune.analysis.tables`.
    settings
        Of the bootstrap.

    Returns
    -------
    DataFrame
        A row for each measure and model: ``mean`` and ``authors`` (what authors' texts have),
        ``distance`` (mean absolute difference of the two, abstract by abstract), ``difference``
        (distance less base's on the same abstracts; negative is nearer than base), ``low``,
        ``high`` (percentile bootstrap interval of it), ``abstracts``. Abstracts for which a model
        has no value are left out for all.
    """
    tables = [
        _of_measure(name, frames, models.names, column, authors, settings)
        for name, column, authors in MEASURES
        if all({column, authors} - {1.0} <= {*frame} for frame in frames.values())
    ]
    table = pd.concat(tables).reindex(columns=[*COLUMNS, "abstracts"])
    return table.assign(note=np.where(table["mean"].isna(), absent, "")).reset_index(drop=True)


def _of_measure(
    name: str,
    frames: Frames,
    wanted: Sequence[str],
    column: str,
    authors: str | float,
    settings: Statistics,
) -> pd.DataFrame:
    of_models = _column(frames, wanted, column)
    truth = _column(frames, wanted, authors) if isinstance(authors, str) else of_models * 0 + 1
    known = of_models.notna().all(axis=1) & truth.notna().all(axis=1)
    of_models, truth = of_models[known], truth[known]
    distances = (of_models - truth).abs()
    there = BASE in distances and len(distances)
    pairs = [(model, BASE) for model in distances if model != BASE and there]
    compared = statistics.paired_differences(distances, pairs, **settings.model_dump())
    rows = pd.DataFrame(
        {
            "mean": of_models.mean(),
            "authors": truth.mean(),
            "distance": distances.mean(),
            "abstracts": len(of_models),
        }
    )
    ends = compared.set_index("model")[["difference", "low", "high"]]
    rows = rows.join(ends).reindex([*wanted])
    rows["abstracts"] = rows["abstracts"].astype("Int64")
    return rows.rename_axis("model").reset_index().assign(measure=name)


def _column(frames: Frames, wanted: Sequence[str], column: str) -> pd.DataFrame:
    """Abstracts x models; a value may be missing, an abstract may not."""
    found = {
        m: frames[m].set_index("id")[[column]].assign(there=1.0) for m in wanted if m in frames
    }
    statistics.aligned({m: f.reset_index() for m, f in found.items()}, wanted, "there")
    return pd.DataFrame({m: frame[column].astype(float) for m, frame in found.items()})
