"""The paper's tables, built from result files, one frame each.

A model whose results do not exist keeps its row, empty but for the note "not run". Titles, notes
and the files themselves are :mod:`feyntune.typesetting`'s.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from feyntune import statistics, variants
from feyntune.errors import UserError
from feyntune.settings import Experiment, Statistics, Training
from feyntune.typesetting import setting

Frames = Mapping[str, pd.DataFrame]
Rows = dict[str, dict[str, Any]]

NOT_RUN = "not run"
SOURCE = "source (exact)"
QUARTILES = {"25%": "q25", "50%": "q50", "75%": "q75"}
SPREAD = ["mean", "low", "high", "std", "min", *QUARTILES.values(), "max"]
COUNTS = ["abstracts", "scored", "empty"]  # whole numbers also where some are missing
GIB = 2**30


def datasets(curation: Mapping[str, Any]) -> pd.DataFrame:
    """Rows of each dataset's splits beside the paper's, each with how it is known.

    ``curation`` is ``curation.json``.
    """
    rows = []
    splits = ("train", "validation", "test")
    paper = [f"paper_{split}" for split in splits]
    for name, entry in curation["datasets"].items():
        known = entry["paper_rows"]
        rows.append(
            {"dataset": name, "mixture": entry["title"], "assignment": entry["certainty"]}
            | {split: entry["rows"][split] for split in splits}
            | dict(zip(paper, known or [None] * 3, strict=True))
            | {"paper_rows": entry["rows_certainty"] if known else "not known", "hub": entry["hub"]}
        )
    return pd.DataFrame(rows).astype(dict.fromkeys(paper, "Int64"))


def hyperparameters(
    experiment: Experiment, trainable: Mapping[str, Mapping[str, float]]
) -> pd.DataFrame:
    """Every training setting, one column per flavour.

    ``trainable`` gives ``count`` and ``share`` of the trainable parameters per flavour.
    """
    base = experiment.base
    quantization = base.quantization.model_dump() if base.quantization else {"type": None}
    shared = {"base model": base.model or "stand-in Llama"}
    shared |= {f"quantization {key}": value for key, value in quantization.items()}
    shared |= {"base dtype": base.dtype, "seed": experiment.seed}
    columns = {}
    for flavour in variants.FLAVOURS:
        found = trainable.get(flavour, {})
        columns[flavour] = (
            {key: setting(value) for key, value in shared.items()}
            | _settings(experiment.training, flavour)
            | {"trainable parameters": setting(found.get("count"))}
            | {"trainable share": setting(found.get("share"))}
        )
    for variant in experiment.overrides:
        flavour = variants.flavour_of(variant)
        own = _settings(experiment.training_for(variant), flavour)
        changed = [f"{key} {own[key]}" for key in own if own[key] != columns[flavour][key]]
        columns[flavour][f"override {variant}"] = ", ".join(changed)
    table = pd.DataFrame(columns).fillna("").rename(index=lambda key: key.replace("_", " "))
    return table.rename_axis("setting").reset_index()


def _settings(training: Training, flavour: str) -> dict[str, str]:
    plain = training.model_dump()
    lora = plain.pop("lora")
    lora["targets"] = lora["targets"][flavour]
    plain |= {f"LoRA {key}": value for key, value in lora.items()}
    return {key: setting(value) for key, value in plain.items()}


def perplexity(
    frames: Frames, wanted: Sequence[str], settings: Statistics, source: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Mean per-abstract perplexity with its interval, its spread, and what compares elsewhere.

    Parameters
    ----------
    frames
        Perplexity results by model: ``id``, ``nll`` (nats), ``tokens``, ``bytes``,
        ``perplexity``.
    wanted
        All models that there should be.
    settings
        Of the bootstrap.
    source
        ``id`` and ``nll`` (nats, exact) of abstracts under the grammar that wrote them: the
        floor that no model can beat on average.
    """
    values = _aligned(frames, wanted, "perplexity")
    rows = _spread(values, settings)
    for model in rows:
        nll, tokens = frames[model]["nll"], frames[model]["tokens"]
        pooled = {"corpus_perplexity": statistics.corpus_perplexity(nll, tokens)}
        rows[model] |= pooled | _rates(frames[model])
    if source is not None and rows:
        known = frames[next(iter(rows))][["id", "bytes"]]
        exact = known.merge(source[["id", "nll"]], on="id", validate="one_to_one")
        if len(exact) == len(known):
            rows[SOURCE] = _rates(exact) | {"note": "floor: the grammar's own likelihood"}
            wanted = [*wanted, SOURCE]
    columns = [*SPREAD, "corpus_perplexity", "bits_per_byte", "nats_per_abstract", "abstracts"]
    return _listed(rows, wanted, columns)


def _rates(frame: pd.DataFrame) -> dict[str, float]:
    return {
        "bits_per_byte": statistics.bits_per_byte(frame["nll"], frame["bytes"]),
        "nats_per_abstract": frame["nll"].mean(),
        "abstracts": len(frame),
    }


def perplexity_differences(
    frames: Frames, wanted: Sequence[str], settings: Statistics
) -> pd.DataFrame:
    """Every variant against base, and LoRA-all against LoRA-QKV on every dataset."""
    models = [name for name in wanted if name != variants.BASE]
    flavours = [
        tuple(f"{dataset}-{flavour}" for flavour in variants.FLAVOURS)
        for dataset in variants.DATASETS
    ]
    pairs = {(name, variants.BASE): "with base" for name in models}
    pairs |= {pair: "between flavours" for pair in flavours if set(pair) <= set(models)}
    ran = [pair for pair in pairs if set(pair) <= set(frames)]
    found = statistics.paired_differences(
        _aligned(frames, wanted, "perplexity"), ran, **settings.model_dump()
    )
    listed = pd.DataFrame(
        [[comparison, *pair] for pair, comparison in pairs.items()],
        columns=["comparison", "model", "reference"],
    )
    table = listed.merge(found, on=["model", "reference"], how="left")
    return table.assign(note=np.where(table["difference"].isna(), NOT_RUN, ""))


def semscore(frames: Frames, wanted: Sequence[str], settings: Statistics) -> pd.DataFrame:
    """SemScore of the continuation, then of prompt + continuation, for every model.

    ``frames`` are completion results by model: ``semscore``, ``semscore_with_prompt``,
    ``tokens``.
    """
    tables = []
    compared = {"continuation": "semscore", "with prompt": "semscore_with_prompt"}
    for name, column in compared.items():
        rows = {}
        for model in frames:
            scores = frames[model][[column]].dropna().set_axis([model], axis=1)
            empty = int((frames[model]["tokens"] == 0).sum())
            rows |= _spread(scores, settings)
            rows[model] |= {"scored": len(scores), "empty": empty}
        tables.append(_listed(rows, wanted, [*SPREAD, "scored", "empty"]))
        tables[-1].insert(0, "compared", name)
    return pd.concat(tables, ignore_index=True)


def pairwise_cosine(
    similarities: Mapping[str, Mapping[str, float]], wanted: Sequence[str]
) -> pd.DataFrame:
    """Spread of the pairwise cosine similarity of the abstracts, for every model."""
    rows = {model: {**found, "std": found["sd"]} for model, found in similarities.items()}
    columns = ["min", "mean", "std", *QUARTILES.values(), "max", "abstracts"]
    return _listed(rows, wanted, columns)


def completions(
    frames: Frames,
    wanted: Sequence[str] = (variants.BASE, "s1-LoRA-all", "s1-LoRA-QKV"),
    *,
    examples: int = 3,
    characters: int = 400,
) -> pd.DataFrame:
    """The first ``examples`` abstracts: prompt, true continuation, and every model's.

    Long form, a text per row, cut to ``characters`` at a word's end.
    """
    columns = ["example", "id", "text_of", "semscore", "text"]
    if not frames:
        return pd.DataFrame({"text_of": wanted, "note": NOT_RUN}, columns=[*columns, "note"])
    _aligned(frames, wanted, "tokens")
    rows = []
    first = next(iter(frames.values())).head(examples)
    for number, example in enumerate(first.itertuples(), start=1):
        texts = {"prompt": (None, example.prompt), "truth": (None, example.truth)}
        for model in wanted:
            found = frames[model].set_index("id").loc[example.id] if model in frames else {}
            texts[model] = (found.get("semscore"), found.get("completion", ""))
        rows += [(number, example.id, name, *each) for name, each in texts.items()]
    table = pd.DataFrame(rows, columns=columns)
    table["text"] = [textwrap.shorten(each, characters, placeholder=" …") for each in table["text"]]
    ran = table["text_of"].isin(["prompt", "truth", *frames])
    return table.assign(note=np.where(ran, "", NOT_RUN))


def compute(
    records: Iterable[Mapping[str, Any]], wanted: Iterable[tuple[str, str | None]] = ()
) -> pd.DataFrame:
    """Seconds, tokens per second and peak memory of every run, and all runs of each stage.

    ``records`` are run records; ``wanted`` the ``(stage, subject)`` that there should be.
    """
    names = {
        "facts.tokens": "tokens",
        "facts.seconds": "work_seconds",
        "peak_memory_bytes": "peak_memory_GiB",
    }
    numbers = ["seconds", *names.values(), "threads"]
    planned = pd.DataFrame(wanted, columns=["stage", "subject"])
    runs = pd.concat([pd.json_normalize(list(records)), planned]).rename(columns=names)
    runs = runs.reindex(columns=["stage", "subject", *numbers]).fillna({"subject": ""})
    runs = runs.drop_duplicates(["stage", "subject"]).astype(dict.fromkeys(numbers, float))
    runs["peak_memory_GiB"] /= GIB
    runs["work_seconds"] = runs["work_seconds"].where(runs["tokens"].notna())
    runs["note"] = np.where(runs["seconds"].isna(), NOT_RUN, "")
    stages = runs.groupby("stage")
    whole = stages[["seconds", "tokens", "work_seconds"]].sum(min_count=1)
    whole = whole.assign(subject="all", peak_memory_GiB=stages["peak_memory_GiB"].max(), note="")
    whole = whole[stages["seconds"].count() > 1].reset_index()
    table = pd.concat([runs, whole]).sort_values("stage", kind="stable", ignore_index=True)
    table.insert(4, "tokens_per_second", table["tokens"] / table.pop("work_seconds"))
    return table.astype({"tokens": "Int64", "threads": "Int64"})


def _aligned(frames: Frames, wanted: Sequence[str], column: str) -> pd.DataFrame:
    """Abstracts x models of one column, in the order of the tables."""
    found = {name: frames[name].set_index("id")[column] for name in wanted if name in frames}
    values = pd.DataFrame(found)
    uneven = values.columns[values.isna().any()]
    if len(uneven):
        raise UserError(
            f"Models were evaluated on different abstracts: {', '.join(uneven)} lack some that "
            "others have. Evaluate all of them again."
        )
    return values


def _spread(values: pd.DataFrame, settings: Statistics) -> Rows:
    """Mean, its interval, std, extremes and quartiles of every model."""
    if values.columns.empty:
        return {}
    ends = statistics.bootstrap_means(values, **settings.model_dump())[["low", "high"]]
    return statistics.summary(values).rename(columns=QUARTILES).join(ends).to_dict("index")


def _listed(rows: Rows, wanted: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """A row per wanted model; those without results are empty but for their note."""
    found = pd.DataFrame.from_dict(rows, orient="index")
    table = found.reindex(index=wanted, columns=[*columns, "note"])
    absent = pd.Series({model: "" if model in rows else NOT_RUN for model in wanted}, dtype=str)
    table["note"] = table["note"].where(table["note"].notna(), absent)
    table = table.astype({name: "Int64" if name in COUNTS else float for name in columns})
    return table.rename_axis("model").reset_index()
