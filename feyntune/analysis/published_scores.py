"""The authors' released scores as result files of ours, so that the same figures are drawn.

Columns are found by their names. What the release lacks is recorded with the reason and stays
missing: figures and tables name it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from feyntune.data.released_datasets import Release, abstracts, is_text
from feyntune.errors import UserError
from feyntune.evaluation.metrics import exponentiated_entropy
from feyntune.experiment.files import only_file, remove, writing
from feyntune.experiment.recipes import released_name
from feyntune.experiment.schema import Experiment
from feyntune.paths import Paths
from feyntune.ratings import means, returned
from feyntune.runs import records
from feyntune.training import log as training

# The split that the released code evaluates while training; a validation split is preferred.
EVALUATED = ("validation", "test")

Models = dict[str, str]


def make(experiment: Experiment) -> None:
    """Write the result files of every model that the release holds, and what it lacks.

    A source that is not there or cannot be used is one of what it lacks. Scores are of the
    abstracts that every source has.
    """
    paths, found = experiment.paths, Release(experiment)
    *folders, _ = paths.imported
    for folder in folders:
        remove(folder)
        folder.mkdir(parents=True)  # also where nothing will be in it
    test = abstracts(found.test)
    _write(test, paths.split("s1", "test"))
    missing = {
        "sources": found.missing,
        "perplexity": _perplexities(found, test, paths),
        "completions": _completions(found, test, paths),
        "logs": _logs(experiment),
        "ratings": _ratings(experiment),
    }
    facts = {
        "abstracts": len(test) or None,
        "left_out": found.left_out,
        "missing": missing,
        "unexpected_columns": found.unexpected,
        "ratings": _rated(paths),
    }
    with writing(paths.released) as partial:
        partial.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    records.note(abstracts=len(test))


def _perplexities(found: Release, test: pd.DataFrame, paths: Paths) -> Models:
    """Write every model's perplexities; return the models that there are none of, and why."""
    missing: Models = {}
    if found.perplexities is None:
        return missing
    for model in found.models:
        values, why = _scores(found.perplexities, f"perplexity_{released_name(model)}")
        if why is None and (values < 1).any():
            why = f"{(values < 1).sum()} perplexities are below 1"
        if why:
            missing[model] = why
            continue
        size = [len(text.encode()) for text in test["abstract"]]
        # NLL and token counts are not released; perplexity alone does not give them back.
        unknown = {"nll": np.nan, "tokens": pd.array([pd.NA] * len(test), "Int64")}
        frame = pd.DataFrame(
            {"id": test["id"], **unknown, "bytes": size, "perplexity": values.to_numpy()}
        )
        _write(frame, paths.perplexity(model))
    return missing


def _scores(frame: pd.DataFrame | None, column: str) -> tuple[pd.Series, str | None]:
    """A column of finite numbers, or why it cannot be used."""
    if frame is None or column not in frame.columns:
        return pd.Series(dtype=float), f"no column {column}"
    values = pd.to_numeric(frame[column], errors="coerce")
    bad = values.index[~np.isfinite(values.to_numpy(dtype=float))]
    if len(bad):
        return values, f"{column} is no number for {len(bad)} abstracts, {bad[0]} first"
    return values.astype(float), None


def _completions(found: Release, test: pd.DataFrame, paths: Paths) -> Models:
    """Write every model's completions and SemScores; return what there is none of, and why."""
    missing: Models = {}
    texts, semscores = found.completions, found.semscores
    if texts is None:
        return missing
    if not {"prompt", "y_true"} <= set(texts.columns):
        return dict.fromkeys(found.models, "completions has no column prompt or y_true")
    if not texts[["prompt", "y_true"]].map(is_text).all(axis=None):
        return dict.fromkeys(found.models, "completions has no text in some prompt or y_true")
    common = {"id": test["id"], "prompt": texts["prompt"], "truth": texts["y_true"]}
    truth = _diversity(texts["y_true"]).add_prefix("truth_")
    for model in found.models:
        name = released_name(model)
        if f"preds_{name}" not in texts.columns:
            missing[model] = f"no column preds_{name}"
            continue
        unwritten = texts.index[texts[f"preds_{name}"].isna()]
        if len(unwritten):
            missing[model] = f"preds_{name} is empty for {len(unwritten)}, {unwritten[0]} first"
            continue
        scores, why = _scores(semscores, f"score_{name}")
        if why and semscores is not None:
            missing[f"{model} (SemScore)"] = why
        written = texts[f"preds_{name}"].str.strip()
        frame = pd.DataFrame({key: np.asarray(value) for key, value in common.items()})
        frame = frame.assign(
            completion=written.to_numpy(),
            # The released scores compare whole texts, so the shared prompt is in them.
            semscore=np.nan,
            semscore_with_prompt=np.nan if why else scores.to_numpy(),
        )
        frame = pd.concat([frame, _diversity(written), truth], axis=1)
        _write(frame, paths.completions(model))
    return missing


def _diversity(texts: Iterable[str]) -> pd.DataFrame:
    """Length and exponentiated entropy of texts in words: Llama's tokens need its licence."""
    words = [text.split() for text in texts]
    entropies = [exponentiated_entropy(each) for each in words]
    return pd.DataFrame({"tokens": list(map(len, words)), "entropy_exp": entropies})


def _logs(experiment: Experiment) -> Models:
    """Write the training logs that there are; return the variants that there are none of."""
    missing = {}
    for variant in experiment.adapters.more if experiment.adapters else ():
        if not experiment.paths.fetched(variant).is_dir():
            missing[variant] = "could not be had when they were fetched"
            continue
        states = sorted(experiment.paths.fetched(variant).rglob("*trainer_state.json"))
        try:
            log = training_log([_state(path) for path in states])
        except UserError as error:
            missing[variant] = str(error)
            continue
        _write(log, experiment.paths.log(variant))
    return missing


def _state(path: Path) -> Mapping[str, Any]:
    state = records.read(path)
    if state is None or not isinstance(state.get("log_history"), list):
        raise UserError(f"{path.name} is no trainer state")
    return state


def training_log(states: list[Mapping[str, Any]]) -> pd.DataFrame:
    """The log of the checkpoint that got furthest.

    The evaluation that stands in ``eval_perplexity`` is the validation split's where there is
    one, else the test split's: the released code evaluates train and test.

    Parameters
    ----------
    states
        Contents of ``trainer_state.json``: ``global_step`` and ``log_history``.
    """
    if not states:
        raise UserError("no trainer_state.json")
    history = max(states, key=lambda state: state.get("global_step", 0))["log_history"]
    keys = {key for entry in history for key in entry}
    if not {"loss", "step"} <= keys:
        raise UserError("trainer_state.json has no losses")
    split = next((s for s in EVALUATED if f"eval_{s}_mean_batch_perplexity" in keys), None)
    renamed = {
        f"eval_{split}_mean_batch_perplexity": "eval_perplexity",
        f"eval_{split}_loss": "eval_loss",
    }
    log = training.training_log(
        [{renamed.get(key, key): value for key, value in entry.items()} for entry in history]
    )
    return log.assign(evaluated_on=split)


def _ratings(experiment: Experiment) -> Models:
    """Keep the ratings as they are, if they can be read; return why not."""
    paths = experiment.paths
    if "ratings" not in experiment.outside:
        return {"all": "null in this experiment"}
    file = only_file(paths.fetched("ratings"))
    if file is None:
        return {"all": "could not be had when they were fetched"}
    try:
        returned.read_ratings(file)
    except UserError as error:
        return {"all": str(error)}
    with writing(paths.ratings) as partial:
        shutil.copyfile(file, partial)
    return {}


def _rated(paths: Paths) -> dict[str, Any] | None:
    """What claims are about: number of ratings and papers, slips of ``source``, means."""
    if not paths.ratings.is_file():
        return None
    rated = returned.read_ratings(paths.ratings)
    return {
        "count": len(rated),
        "papers": int(rated["paper"].nunique()),
        "source_slips": len(means.wrong_sources(rated)),
        "category_means": rated.groupby("category")["score"].mean().to_dict(),
    }


def _write(frame: pd.DataFrame, path: Path) -> None:
    with writing(path) as partial:
        frame.to_parquet(partial, index=False)
