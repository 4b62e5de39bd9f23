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

NOT_RUN = "not run"
SOURCE = "source (exact)"
QUARTILES = {"25%": "q25", "50%": "q50", "75%": "q75"}
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
    shared = {"base model": base.model or "stand-in Llama", "base dtype": base.dtype}
    shared |= {f"quantization {key}": value for key, value in quantization.items()}
    columns = {}
    for flavour in variants.FLAVOURS:
        found = trainable.get(flavour, {})
        columns[flavour] = (
            {key: setting(value) for key, value in shared.items()}
            | _settings(experiment.training, flavour)
            | {"seed": setting(experiment.seed)}
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
    columns = ["mean", "low", "high", "std", "min", *QUARTILES.values(), "max", "corpus_perplexity"]
    columns += ["bits_per_byte", "nats_per_abstract", "abstracts"]
    notes = {}
    if source is not None and rows:
        known = frames[next(iter(rows))][["id", "bytes"]]
        exact = known.merge(source[["id", "nll"]], on="id", validate="one_to_one")
        if len(exact) == len(known):
            rows[SOURCE] = _rates(exact)
            notes[SOURCE] = "floor: the grammar's own likelihood"
    return _listed(rows, [*wanted, *notes], columns, integers=["abstracts"], notes=notes)


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
    columns = ["mean", "low", "high", "std", "min", *QUARTILES.values(), "max", "scored", "empty"]
    tables = []
    compared = {"continuation": "semscore", "with prompt": "semscore_with_prompt"}
    for name, column in compared.items():
        rows = {}
        for model in frames:
            scores = frames[model][[column]].dropna().set_axis([model], axis=1)
            empty = int((frames[model]["tokens"] == 0).sum())
            rows |= _spread(scores, settings)
            rows[model] |= {"scored": len(scores), "empty": empty}
        table = _listed(rows, wanted, columns, integers=["scored", "empty"])
        table.insert(0, "compared", name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def pairwise_cosine(
    similarities: Mapping[str, Mapping[str, float]], wanted: Sequence[str]
) -> pd.DataFrame:
    """Spread of the pairwise cosine similarity of the abstracts, for every model."""
    rows = {model: {**found, "std": found["sd"]} for model, found in similarities.items()}
    columns = ["min", "mean", "std", *QUARTILES.values(), "max", "abstracts"]
    return _listed(rows, wanted, columns, integers=["abstracts"])


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
    columns = ["example", "id", "text_of", "semscore", "text", "note"]
    if not frames:
        return pd.DataFrame({"text_of": wanted, "note": NOT_RUN}, columns=columns)
    _aligned(frames, wanted, "tokens")
    rows = []
    first = next(iter(frames.values())).head(examples)
    for number, example in enumerate(first.itertuples(), start=1):
        texts = [("prompt", None, example.prompt, ""), ("truth", None, example.truth, "")]
        for model in wanted:
            if model in frames:
                found = frames[model].set_index("id").loc[example.id]
                texts.append((model, found["semscore"], found["completion"], ""))
            else:
                texts.append((model, None, "", NOT_RUN))
        for name, score, text, note in texts:
            shown = textwrap.shorten(text, characters, placeholder=" …")
            rows.append((number, example.id, name, score, shown, note))
    return pd.DataFrame(rows, columns=columns)


def compute(
    records: Iterable[Mapping[str, Any]], wanted: Iterable[tuple[str, str | None]] = ()
) -> pd.DataFrame:
    """Seconds, tokens per second and peak memory of every run, and all runs of each stage.

    ``records`` are run records; ``wanted`` the ``(stage, subject)`` that there should be.
    """
    numbers = ["seconds", "tokens", "tokens_per_second", "peak_memory_GiB", "threads"]
    rows = [_run(record) for record in records]
    found = {(row["stage"], row["subject"]) for row in rows}
    absent = [(stage, subject or "") for stage, subject in wanted]
    rows += [
        {"stage": stage, "subject": subject, "note": NOT_RUN}
        for stage, subject in absent
        if (stage, subject) not in found
    ]
    runs = pd.DataFrame(rows, columns=["stage", "subject", *numbers, "note", "work_seconds"])
    runs = runs.astype(dict.fromkeys([*numbers, "work_seconds"], float)).fillna({"note": ""})
    stages = runs.groupby("stage")
    sums = stages[["seconds", "tokens", "work_seconds"]].sum(min_count=1)
    rate = sums["tokens"] / sums["work_seconds"]
    peak = stages["peak_memory_GiB"].max()
    whole = sums.assign(subject="all", tokens_per_second=rate, peak_memory_GiB=peak, note="")
    whole = whole[stages.size() > 1].reset_index()
    table = pd.concat([runs, whole]).sort_values("stage", kind="stable", ignore_index=True)
    return table.drop(columns="work_seconds").astype({"tokens": "Int64", "threads": "Int64"})


def _run(record: Mapping[str, Any]) -> dict[str, Any]:
    facts = record.get("facts") or {}
    tokens, seconds = facts.get("tokens"), facts.get("seconds")
    peak = record.get("peak_memory_bytes")
    return {
        "stage": record["stage"],
        "subject": record["subject"] or "",
        "seconds": record["seconds"],
        "tokens": tokens,
        "tokens_per_second": tokens / seconds if tokens and seconds else None,
        "peak_memory_GiB": peak / GIB if peak else None,
        "threads": record.get("threads"),
        "work_seconds": seconds if tokens else None,
    }


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


def _spread(values: pd.DataFrame, settings: Statistics) -> dict[str, dict[str, float]]:
    """Mean, its interval, std, extremes and quartiles of every model."""
    if values.columns.empty:
        return {}
    ends = statistics.bootstrap_means(values, **settings.model_dump())[["low", "high"]]
    return statistics.summary(values).rename(columns=QUARTILES).join(ends).to_dict("index")


def _listed(
    rows: Mapping[str, Mapping[str, Any]],
    wanted: Sequence[str],
    columns: Sequence[str],
    *,
    integers: Sequence[str],
    notes: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """A row per wanted model, and what there is no row for as not run; counts stay whole."""
    found = pd.DataFrame.from_dict(rows, orient="index", columns=None)
    table = found.reindex(index=wanted, columns=columns).astype(dict.fromkeys(integers, "Int64"))
    notes = {model: "" if model in rows else NOT_RUN for model in wanted} | (notes or {})
    return table.assign(note=pd.Series(notes)).rename_axis("model").reset_index()
