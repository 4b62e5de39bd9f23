"""The paper's tables, built from result files and written as CSV, Markdown and LaTeX.

Builders return one frame per table; a model whose results do not exist keeps its row, empty but
for the note "not run". :func:`describe` gives the title, notes and decimals of a table by name.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from feyntune import statistics, variants
from feyntune.errors import UserError
from feyntune.paths import writing
from feyntune.settings import Experiment, Statistics

Frames = Mapping[str, pd.DataFrame]

NOT_RUN = "not run"
SOURCE = "source (exact)"
QUARTILES = {"25%": "q25", "50%": "q50", "75%": "q75"}
GIB = 2**30
WIDE = 40  # characters; a longer text column wraps in LaTeX

INTERVAL = "low, high: {confidence:.0%} percentile bootstrap interval, {resamples:,} resamples."
NOT_RUN_NOTE = 'Models marked "not run" have no results in this experiment.'
# Title and notes of each table, and decimals where they are not 3.
LOOKS: dict[str, dict[str, Any]] = {
    "datasets": {
        "title": "The ten training mixtures: rows of each split",
        "notes": (
            "The paper does not say which of s4, s5, s6 (nor which of s7, s8, s9, s10) is which "
            'mixture: assignments marked "inferred" follow the listing order of the released '
            "notebooks, and the paper's rows beside them hold only if that order is right.",
            "paper rows: released (seen in the authors' notebooks), computed (from released "
            "numbers), or not known.",
        ),
    },
    "hyperparameters": {"title": "Settings of the fine-tuning", "notes": ()},
    "perplexity": {
        "title": "Perplexity per abstract on the s1 test set",
        "notes": (
            "mean: over abstracts, of exp(mean next-token negative log-likelihood), BOS given, EOS "
            "not scored.",
            INTERVAL,
            "corpus perplexity pools all tokens; bits per byte compares across tokenizers.",
            NOT_RUN_NOTE,
        ),
    },
    "perplexity-differences": {
        "title": "Paired differences of perplexity on the s1 test set",
        "notes": (
            "difference: mean over abstracts of model - reference; negative favours the model.",
            INTERVAL,
            "p: two-sided sign-flip permutation test; p holm: Holm's correction over all rows.",
            NOT_RUN_NOTE,
        ),
        "decimals": {"relative_percent": 2, "p": 4, "p_holm": 4},
    },
    "semscore": {
        "title": "SemScore of completions",
        "notes": (
            "continuation: generated against true second half; with prompt: full texts, as the "
            "released script compares them, where the shared prompt raises the score.",
            INTERVAL,
            "empty: completions without a token.",
            NOT_RUN_NOTE,
        ),
    },
    "pairwise-cosine": {
        "title": "Pairwise cosine similarity of the test abstracts as each model embeds them",
        "notes": ("All pairs of ground-truth abstracts, each with itself included.", NOT_RUN_NOTE),
    },
    "completions": {
        "title": "The same abstracts completed by different models",
        "notes": ("The first abstracts of the s1 test set, not chosen; long texts are shortened.",),
    },
    "compute": {
        "title": "Time and memory of each run",
        "notes": (
            "seconds: the whole stage; tokens per second: over its model work alone.",
            'The row "all" of a stage adds seconds and tokens and takes the largest peak.',
        ),
        "decimals": {"seconds": 1, "tokens_per_second": 0, "peak_memory_GiB": 2},
    },
}


def describe(name: str, settings: Statistics) -> dict[str, Any]:
    """Title, notes and decimals of a table, as :func:`write` takes them."""
    look = LOOKS[name]
    notes = tuple(note.format(**settings.model_dump()) for note in look["notes"])
    return {"title": look["title"], "notes": notes, "decimals": look.get("decimals", {})}


def datasets(curation: Mapping[str, Any]) -> pd.DataFrame:
    """Rows of each dataset's splits beside the paper's, each with how it is known.

    ``curation`` is ``curation.json``.
    """
    rows = []
    for name, entry in curation["datasets"].items():
        known = entry["paper_rows"] is not None
        paper = entry["paper_rows"] or [None] * 3
        rows.append(
            {"dataset": name, "mixture": entry["title"], "assignment": entry["certainty"]}
            | {split: entry["rows"][split] for split in ("train", "validation", "test")}
            | dict(zip(("paper_train", "paper_validation", "paper_test"), paper, strict=True))
            | {"paper_rows": entry["rows_certainty"] if known else "not known", "hub": entry["hub"]}
        )
    return _frame(rows, integers=("paper_train", "paper_validation", "paper_test"))


def hyperparameters(
    experiment: Experiment, trainable: Mapping[str, Mapping[str, float]]
) -> pd.DataFrame:
    """Every training setting, one column per flavour.

    ``trainable`` gives ``count`` and ``share`` of the trainable parameters per flavour.
    """
    training = experiment.training.model_dump()
    lora = training.pop("lora")
    targets = lora.pop("targets")
    quantization = experiment.base.quantization
    shared = {
        "base model": experiment.base.model or "stand-in Llama",
        **{f"quantization {key}": value for key, value in (quantization or {"type": None})},
        "base dtype": experiment.base.dtype,
        **{f"LoRA {key}": value for key, value in lora.items()},
    }
    rows = {key: [value] * 2 for key, value in shared.items()}
    rows["LoRA targets"] = [targets[flavour] for flavour in variants.FLAVOURS]
    for key, label in (("count", "trainable parameters"), ("share", "trainable share")):
        rows[label] = [trainable.get(flavour, {}).get(key) for flavour in variants.FLAVOURS]
    rows |= {key.replace("_", " "): [value] * 2 for key, value in training.items()}
    rows["seed"] = [experiment.seed] * 2
    for variant in experiment.overrides:
        own = experiment.training_for(variant).model_dump()
        changed = {key: own[key] for key in training if own[key] != training[key]}
        changed |= {"lora": own["lora"]} if own["lora"] != {**lora, "targets": targets} else {}
        text = ", ".join(f"{key} {_text(value)}" for key, value in changed.items())
        rows[f"override {variant}"] = [
            text if variants.flavour_of(variant) == flavour else "" for flavour in variants.FLAVOURS
        ]
    return pd.DataFrame(
        [[key, *map(_text, values)] for key, values in rows.items()],
        columns=["setting", *variants.FLAVOURS],
    )


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
    means = _bootstrap(values, settings)
    spread = statistics.summary(values).rename(columns=QUARTILES) if len(values) else pd.DataFrame()
    rows = []
    for model in wanted:
        row = {"model": model}
        if model in frames:
            frame = frames[model]
            row |= {"mean": spread.loc[model, "mean"], **means.loc[model]}
            row |= spread.loc[model].drop("mean").to_dict()
            row["corpus_perplexity"] = statistics.corpus_perplexity(frame["nll"], frame["tokens"])
            row |= _rates(frame)
        rows.append(row)
    if source is not None and frames:
        known = next(iter(frames.values()))[["id", "bytes"]]
        exact = known.merge(source[["id", "nll"]], on="id", validate="one_to_one")
        if len(exact) == len(known):
            rows.append(
                {"model": SOURCE, **_rates(exact), "note": "floor: the grammar's own likelihood"}
            )
    columns = ["mean", "low", "high", "std", "min", *QUARTILES.values(), "max", "corpus_perplexity"]
    columns = ["model", *columns, "bits_per_byte", "nats_per_abstract", "abstracts"]
    return _frame(_noted(rows, frames), columns, integers=["abstracts"])


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
    columns = ["comparison", *found.columns]
    listed = pd.DataFrame(
        [[comparison, *pair] for pair, comparison in pairs.items()], columns=columns[:3]
    )
    table = listed.merge(found, on=["model", "reference"], how="left")
    return table.assign(note=np.where(table["difference"].isna(), NOT_RUN, ""))


def semscore(frames: Frames, wanted: Sequence[str], settings: Statistics) -> pd.DataFrame:
    """SemScore of the continuation, then of prompt + continuation, for every model.

    ``frames`` are completion results by model: ``semscore``, ``semscore_with_prompt``,
    ``tokens``.
    """
    rows = []
    for compared, column in (
        ("continuation", "semscore"),
        ("with prompt", "semscore_with_prompt"),
    ):
        for model in wanted:
            row = {"compared": compared, "model": model}
            if model in frames:
                scores = frames[model][[column]].dropna().set_axis([model], axis=1)
                spread = statistics.summary(scores).rename(columns=QUARTILES).loc[model]
                row |= {"mean": spread["mean"], **_bootstrap(scores, settings).loc[model]}
                row |= spread.drop("mean").to_dict()
                row |= {"scored": len(scores), "empty": int((frames[model]["tokens"] == 0).sum())}
            rows.append(row)
    columns = ["compared", "model", "mean", "low", "high", "std", "min", *QUARTILES.values(), "max"]
    return _frame(_noted(rows, frames), [*columns, "scored", "empty"], integers=["scored", "empty"])


def pairwise_cosine(
    similarities: Mapping[str, Mapping[str, float]], wanted: Sequence[str]
) -> pd.DataFrame:
    """Spread of the pairwise cosine similarity of the abstracts, for every model."""
    rows = [{"model": model, **similarities.get(model, {})} for model in wanted]
    rows = [{"std" if key == "sd" else key: value for key, value in row.items()} for row in rows]
    columns = ["model", "min", "mean", "std", *QUARTILES.values(), "max", "abstracts"]
    return _frame(_noted(rows, similarities), columns, integers=["abstracts"])


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
        return _frame(_noted([{"text_of": model} for model in wanted], frames, "text_of"), columns)
    _aligned(frames, wanted, "tokens")
    rows = []
    first = next(iter(frames.values())).head(examples)
    for number, example in enumerate(first.itertuples(), start=1):
        common = {"example": number, "id": example.id}
        texts = [{"text_of": part, "text": getattr(example, part)} for part in ("prompt", "truth")]
        for model in wanted:
            text = {"text_of": model}
            if model in frames:
                found = frames[model].set_index("id").loc[example.id]
                text |= {"semscore": found["semscore"], "text": found["completion"]}
            texts.append(text)
        rows += [common | text for text in texts]
    for row in rows:
        row["text"] = textwrap.shorten(row.get("text", ""), characters, placeholder=" …")
    return _frame(_noted(rows, {*frames, "prompt", "truth"}, "text_of"), columns)


def compute(
    records: Iterable[Mapping[str, Any]], wanted: Iterable[tuple[str, str | None]] = ()
) -> pd.DataFrame:
    """Seconds, tokens per second and peak memory of every run, and all runs of each stage.

    ``records`` are run records; ``wanted`` the ``(stage, subject)`` that there should be.
    """
    rows = [_run(record) for record in records]
    found = {(row["stage"], row["subject"]) for row in rows}
    absent = [(stage, subject or "") for stage, subject in wanted]
    rows += [
        {"stage": stage, "subject": subject, "note": NOT_RUN}
        for stage, subject in absent
        if (stage, subject) not in found
    ]
    columns = ["stage", "subject", "seconds", "tokens", "tokens_per_second", "peak_memory_GiB"]
    columns += ["threads", "note"]
    frame = pd.DataFrame(rows, columns=[*columns, "work_seconds"])
    parts = []
    for stage, runs in frame.groupby("stage", sort=True):
        parts.append(runs)
        if len(runs) > 1:
            sums = runs[["seconds", "tokens", "work_seconds"]].sum(min_count=1)
            rate = sums["tokens"] / sums["work_seconds"]
            whole = {"stage": stage, "subject": "all", **sums, "tokens_per_second": rate}
            whole["peak_memory_GiB"] = runs["peak_memory_GiB"].max()
            parts.append(pd.DataFrame([whole]))
    table = pd.DataFrame(
        [row for part in parts for row in part.to_dict("records")], columns=columns
    )
    return _frame(table.to_dict("records"), columns, integers=["tokens", "threads"])


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


def _bootstrap(values: pd.DataFrame, settings: Statistics) -> pd.DataFrame:
    return statistics.bootstrap_means(values, **settings.model_dump())[["low", "high"]]


def _noted(
    rows: list[dict[str, Any]], found: Iterable[str], key: str = "model"
) -> list[dict[str, Any]]:
    """Say in the note of a row that its model was not run."""
    return [{"note": "" if row[key] in (*found, SOURCE) else NOT_RUN} | row for row in rows]


def _frame(
    rows: list[dict[str, Any]], columns: Sequence[str] | None = None, integers: Sequence[str] = ()
) -> pd.DataFrame:
    """Rows as a frame whose counts stay whole numbers where some are missing."""
    frame = pd.DataFrame(rows)
    if columns is not None:
        frame = frame.reindex(columns=[*(name for name in columns if name != "note"), "note"])
        frame["note"] = frame["note"].fillna("")
    return frame.astype(dict.fromkeys(integers, "Int64"))


def _text(value: object) -> str:
    """A setting as a person writes it."""
    known = {None: "none", True: "yes", False: "no"}
    if value is None or isinstance(value, bool):
        return known[value]
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_text(each)}" for key, each in value.items())
    if isinstance(value, Sequence):
        return ", ".join(map(_text, value))
    return f"{value:,}" if isinstance(value, Integral) else f"{value:.6g}"


def write(
    frame: pd.DataFrame,
    stem: Path,
    *,
    title: str,
    label: str | None,
    notes: Sequence[str] = (),
    decimals: int | Mapping[str, int] = 3,
) -> None:
    """Write ``stem.csv``, ``stem.md`` and ``stem.tex``.

    The CSV is for scripts: six significant digits, no index, and a last column ``label`` that
    says on every row what is a stand-in, empty if nothing is.

    Parameters
    ----------
    frame
        One row per row of the table; its index is not written.
    title
        Heading in Markdown, caption in LaTeX.
    label
        What is a stand-in, or ``None``.
    notes
        Sentences below the table.
    decimals
        Of fractional numbers in Markdown and LaTeX: for all columns, or for some (others: 3).
    """
    csv = frame.assign(label=label or "").to_csv(
        index=False, float_format="%.6g", lineterminator="\n"
    )
    places = decimals if isinstance(decimals, Mapping) else dict.fromkeys(frame.columns, decimals)
    cells = pd.DataFrame(
        {name: [_cell(value, places.get(name, 3)) for value in frame[name]] for name in frame}
    )
    written = {
        "csv": csv,
        "md": _markdown(cells, _numeric(frame), title, label, notes),
        "tex": _latex(cells, _numeric(frame), title, label, notes, stem.name),
    }
    for ending, text in written.items():
        with writing(stem.with_name(f"{stem.name}.{ending}")) as partial:
            partial.write_text(text, encoding="utf-8", newline="\n")


def _cell(value: object, places: int) -> str:
    """A number for reading; one digit of what would round to nothing; nothing where nothing is."""
    if pd.isna(value):
        return ""
    if isinstance(value, Integral):
        return f"{value:,}"
    if not isinstance(value, Real):
        return str(value)
    rounded = f"{value:,.{places}f}"
    return rounded if value == 0 or float(rounded.replace(",", "")) else f"{value:.1g}"


def _numeric(frame: pd.DataFrame) -> list[bool]:
    return [pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes]


def _headings(cells: pd.DataFrame, escape: Callable[[str], str]) -> list[str]:
    return [escape(str(name).replace("_", " ")) for name in cells.columns]


def _escaper(characters: Mapping[str, str]) -> Callable[[str], str]:
    table = str.maketrans({"\n": " ", "\r": " ", **characters})
    return lambda text: text.translate(table)


escape_markdown = _escaper({mark: f"\\{mark}" for mark in "\\|*_`<>$[]"})
escape_latex = _escaper(
    {mark: f"\\{mark}" for mark in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "−": "$-$"}
)


def _markdown(
    cells: pd.DataFrame, numeric: list[bool], title: str, label: str | None, notes: Sequence[str]
) -> str:
    body = cells.map(escape_markdown).set_axis(_headings(cells, escape_markdown), axis=1)
    align = ["right" if each else "left" for each in numeric]
    table = body.to_markdown(index=False, disable_numparse=True, colalign=align)
    parts = [f"# {title}", *([f"***{label}***"] if label else []), table]
    return "\n\n".join([*parts, *map(escape_markdown, notes)]) + "\n"


def _latex(
    cells: pd.DataFrame, numeric: list[bool], title: str, label: str | None,
    notes: Sequence[str], name: str,
) -> str:  # fmt: skip
    """A booktabs table; needs the packages booktabs and adjustbox."""
    long = [max(map(len, cells[column]), default=0) > WIDE for column in cells]
    align = "".join(
        "r" if number else r"p{0.6\textwidth}" if wraps else "l"
        for number, wraps in zip(numeric, long, strict=True)
    )
    body = cells.map(escape_latex).set_axis(_headings(cells, escape_latex), axis=1)
    table = body.to_latex(index=False, escape=False, column_format=align).rstrip("\n")
    stand_in = rf" \textbf{{\emph{{{escape_latex(label)}}}}}." if label else ""
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(title)}.{stand_in}}}",
        rf"\label{{tab:{name}}}",
        r"\begin{adjustbox}{max width=\textwidth}",
        table,
        r"\end{adjustbox}",
        *(rf"\par\smallskip{{\footnotesize {escape_latex(note)}\par}}" for note in notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"
