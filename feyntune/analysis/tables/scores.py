"""Tables of what the models score and write, and of their differences, from result files."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from feyntune.evaluation import statistics
from feyntune.evaluation.grouping import Models
from feyntune.experiment.sections import Statistics

Frames = Mapping[str, pd.DataFrame]
Rows = dict[str, dict[str, Any]]

SOURCE = "source (exact)"
ENDS = {"": "mean", "_low": "low", "_high": "high"}
QUARTILES = {"25%": "q25", "50%": "q50", "75%": "q75"}
SPREAD = ["mean", "low", "high", "std", "min", *QUARTILES.values(), "max"]
SEEDS = ["mean_over_seeds", "sd_over_seeds", "seeds"]
THEIRS = ("prompt", "truth")
ASKED = ["prompts", "answers", "refused", "no_answer"]
# Whole numbers also where some are missing.
COUNTS = ["abstracts", "seeds", "scored", "empty", *ASKED]


def perplexity(
    frames: Frames,
    models: Models,
    settings: Statistics,
    source: pd.DataFrame | None = None,
    *,
    absent: str,
) -> pd.DataFrame:
    """Mean per-abstract perplexity with its interval, its spread, and what compares elsewhere.

    Where variants differ in nothing but the seed, the first of them has the mean of their means,
    the standard deviation (``n - 1``) and the number of seeds.

    Parameters
    ----------
    frames
        Perplexity results by model: ``id``, ``nll`` (nats), ``tokens``, ``bytes``,
        ``perplexity``. Released ones lack ``nll`` and ``tokens``.
    models, absent
        See :mod:`feyntune.analysis.tables`.
    settings
        Of the bootstrap.
    source
        ``id`` and ``nll`` (nats, exact) of abstracts under the grammar that wrote them: the
        floor that no model can beat on average.
    """
    wanted = models.names
    values = statistics.aligned(frames, wanted, "perplexity")
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
    seeds = models.over_seeds(values.mean()).set_axis(SEEDS, axis=1)
    for model, row in seeds.to_dict("index").items():
        rows[model] |= row
    columns = [*SPREAD, "corpus_perplexity", "bits_per_byte", "nats_per_abstract", "abstracts"]
    columns += SEEDS if len(seeds) else []
    return _listed(rows, wanted, columns, absent)


def _rates(frame: pd.DataFrame) -> dict[str, float]:
    return {
        "bits_per_byte": statistics.bits_per_byte(frame["nll"], frame["bytes"]),
        "nats_per_abstract": frame["nll"].mean(),
        "abstracts": len(frame),
    }


def perplexity_differences(
    frames: Frames, models: Models, settings: Statistics, *, absent: str
) -> pd.DataFrame:
    """Every variant against base, and the variants of a dataset that differ in one respect."""
    pairs = models.pairs
    ran = [pair for pair in pairs if set(pair) <= set(frames)]
    found = statistics.paired_differences(
        statistics.aligned(frames, models.names, "perplexity"), ran, **settings.model_dump()
    )
    listed = pd.DataFrame(
        [[comparison, *pair] for pair, comparison in pairs.items()],
        columns=["comparison", "model", "reference"],
    )
    table = listed.merge(found, on=["model", "reference"], how="left")
    return table.assign(note=np.where(table["difference"].isna(), absent, ""))


def semscore(
    frames: Frames, wanted: Sequence[str], settings: Statistics, *, absent: str
) -> pd.DataFrame:
    """SemScore of the continuation, then of prompt + continuation, for every model.

    ``frames`` are completion results by model: ``semscore``, ``semscore_with_prompt``,
    ``tokens``. A score that no abstract has is absent: released ones are of whole texts alone.
    """
    tables = []
    compared = {"continuation": "semscore", "with prompt": "semscore_with_prompt"}
    for name, column in compared.items():
        rows = {}
        for model in frames:
            scores = frames[model][[column]].dropna().set_axis([model], axis=1)
            if scores.empty:
                continue
            empty = int((frames[model]["tokens"] == 0).sum())
            rows |= _spread(scores, settings)
            rows[model] |= {"scored": len(scores), "empty": empty}
        tables.append(_listed(rows, wanted, [*SPREAD, "scored", "empty"], absent))
        tables[-1].insert(0, "compared", name)
    return pd.concat(tables, ignore_index=True)


def commercial(
    answered: Frames,
    completed: Frames,
    asked: Mapping[str, Mapping[str, Any]],
    wanted: Sequence[str],
    settings: Statistics,
    *,
    absent: str,
    apart: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Commercial models beside base and the variants, on the abstracts that they were given.

    Parameters
    ----------
    answered
        Results of commercial models: columns of completion results, and ``status``.
    completed
        Completion results by model; of their abstracts only those in ``answered`` count, if any.
        A completion without a token is no answer, as it is none of a commercial model.
    asked
        By commercial model, ``reason`` why it was not asked (or ``None``) and ``models``, the
        names that it gave itself.
    wanted, absent
        See :mod:`feyntune.analysis.tables`; commercial models come first.
    apart
        By commercial model, why it is not compared with ours: its answers are counted alone.
    """
    apart = apart or {}
    given = next((set(frame["id"]) for frame in answered.values()), None)
    rows: Rows = {}
    for name, frame in {**answered, **completed}.items():
        if name in completed and given is not None:
            frame = frame[frame["id"].isin(given)]
        if "status" not in frame:  # one of ours, whose numbers of tokens are all known
            frame = frame.assign(status=np.where(frame["tokens"] > 0, "answered", "empty"))
        status = frame["status"]
        scored = frame[(status == "answered") & frame["semscore"].notna()]
        rows[name] = {
            "answered_as": ", ".join(asked.get(name, {}).get("models", [])),
            "prompts": len(frame),
            "answers": int((status == "answered").sum()),
            "refused": int((status == "refused").sum()),
            "no_answer": int((~status.isin(["answered", "refused"])).sum()),
        }
        if name in apart:
            rows[name] |= {"note": f"not computed: {apart[name]}"}
        elif len(scored):
            spread = _spread(scored[["semscore"]].set_axis([name], axis=1), settings)[name]
            rows[name] |= {f"semscore{end}": spread[key] for end, key in ENDS.items()}
            rows[name] |= {"with_prompt": scored["semscore_with_prompt"].mean()}
            rows[name] |= {column: scored[column].mean() for column in ("entropy_exp", "tokens")}
    scores = [*(f"semscore{end}" for end in ENDS), "with_prompt", "entropy_exp", "tokens"]
    table = _listed(rows, [*asked, *wanted], [*ASKED, *scores], absent)
    names = [rows.get(name, {}).get("answered_as", "") for name in table["model"]]
    reasons = {name: f"not asked: {a['reason']}" for name, a in asked.items() if a["reason"]}
    table["note"] = [reasons.get(m, n) for m, n in zip(table["model"], table["note"], strict=True)]
    table.insert(1, "answered_as", names)
    return table


def pairwise_cosine(
    similarities: Mapping[str, Mapping[str, float]], wanted: Sequence[str], *, absent: str
) -> pd.DataFrame:
    """Spread of the pairwise cosine similarity of the abstracts, for every model."""
    rows = {model: {**found, "std": found["sd"]} for model, found in similarities.items()}
    columns = ["min", "mean", "std", *QUARTILES.values(), "max", "abstracts"]
    return _listed(rows, wanted, columns, absent)


def completions(
    frames: Frames,
    wanted: Sequence[str],
    *,
    absent: str,
    quoted: bool,
    examples: int = 3,
    characters: int = 400,
) -> pd.DataFrame:
    """The first ``examples`` abstracts: prompt, true continuation, and every model's.

    Long form, a text per row, cut to ``characters`` at a word's end. Unless they may be ``quoted``,
    a link to the abstract stands in place of its authors' words.
    """
    columns = ["example", "id", "text_of", "semscore", "text"]
    if not frames:
        return pd.DataFrame({"text_of": wanted, "note": absent}, columns=[*columns, "note"])
    statistics.aligned(frames, wanted, "tokens")
    rows = []
    first = next(iter(frames.values())).head(examples)
    for number, example in enumerate(first.itertuples(), start=1):
        link = f"https://arxiv.org/abs/{example.id}"
        quoted = quoted and "prompt" in first
        given = (example.prompt, example.truth) if quoted else (link, link)
        texts = {name: (None, text) for name, text in zip(THEIRS, given, strict=True)}
        for model in wanted:
            found = frames[model].set_index("id").loc[example.id] if model in frames else {}
            texts[model] = (found.get("semscore"), found.get("completion", ""))
        rows += [(number, example.id, name, *each) for name, each in texts.items()]
    table = pd.DataFrame(rows, columns=columns)
    table["text"] = [textwrap.shorten(each, characters, placeholder=" …") for each in table["text"]]
    ran = table["text_of"].isin([*THEIRS, *frames])
    return table.assign(note=np.where(ran, "", absent))


def _spread(values: pd.DataFrame, settings: Statistics) -> Rows:
    """Mean, its interval, std, extremes and quartiles of every model."""
    if values.columns.empty:
        return {}
    ends = statistics.bootstrap_means(values, **settings.model_dump())[["low", "high"]]
    return statistics.summary(values).rename(columns=QUARTILES).join(ends).to_dict("index")


def _listed(rows: Rows, wanted: Sequence[str], columns: Sequence[str], absent: str) -> pd.DataFrame:
    """A row per wanted model; those without results are empty but for their note."""
    found = pd.DataFrame.from_dict(rows, orient="index")
    table = found.reindex(index=wanted, columns=[*columns, "note"])
    notes = pd.Series({model: "" if model in rows else absent for model in wanted}, dtype=str)
    table["note"] = table["note"].where(table["note"].notna(), notes)
    table = table.astype({name: "Int64" if name in COUNTS else float for name in columns})
    return table.rename_axis("model").reset_index()
