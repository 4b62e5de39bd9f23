"""How tables are written: titles and notes, number formats, CSV, Markdown and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import pandas as pd

from feyntune.paths import writing
from feyntune.settings import Statistics

WIDE = 40  # characters; a longer text column wraps in LaTeX

INTERVAL = "low, high: {confidence:.0%} percentile bootstrap interval, {resamples:,} resamples."
NOT_RUN_NOTE = 'Models marked "not run" have no results in this experiment.'
# Title and notes of each table, and decimals where they are not 3.
LOOKS: dict[str, dict[str, Any]] = {
    "datasets": {
        "title": "The ten training mixtures: rows of each split",
        "notes": (
            "Which of s4, s5, s6 (and of s7, s8, s9, s10) is which mixture is not known for "
            'certain: assignments marked "inferred" follow the listing order of the released '
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


# An underscore within a word, as in 01_data_curation, is no markup and stays as it is.
MARKDOWN = re.compile(r"([\\|*`<>$\[\]]|(?<!\w)_|_(?!\w))")
LATEX = str.maketrans(
    {mark: f"\\{mark}" for mark in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "−": "$-$"}
)


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
    places = decimals if isinstance(decimals, Mapping) else dict.fromkeys(frame.columns, decimals)
    cells = pd.DataFrame(
        {name: [_cell(value, places.get(name, 3)) for value in frame[name]] for name in frame}
    )
    cells.columns = [str(name).replace("_", " ") for name in frame]
    numeric = [pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes]
    labelled = frame.assign(label=label or "")
    written = {
        "csv": labelled.to_csv(index=False, float_format="%.6g", lineterminator="\n"),
        "md": _markdown(cells, numeric, title, label, notes),
        "tex": _latex(cells, numeric, title, label, notes, stem.name),
    }
    for ending, text in written.items():
        with writing(stem.with_name(f"{stem.name}.{ending}")) as partial:
            partial.write_text(text, encoding="utf-8", newline="\n")


def setting(value: object) -> str:
    """A setting as a person writes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return ", ".join(map(setting, value))
    return f"{value:,}" if isinstance(value, Integral) else f"{value:.6g}"


def _cell(value: object, places: int) -> str:
    """A number for reading; one digit of what would round to nothing; nothing where nothing is."""
    if pd.isna(value):
        return ""
    if isinstance(value, Integral):
        return f"{value:,}"
    if not isinstance(value, Real):
        return " ".join(str(value).splitlines())
    rounded = f"{value:,.{places}f}"
    return rounded if value == 0 or float(rounded.replace(",", "")) else f"{value:.1g}"


def escape_markdown(text: str) -> str:
    return MARKDOWN.sub(r"\\\1", text)


def escape_latex(text: str) -> str:
    return text.translate(LATEX)


def _markdown(
    cells: pd.DataFrame, numeric: list[bool], title: str, label: str | None, notes: Sequence[str]
) -> str:
    body = cells.map(escape_markdown).rename(columns=escape_markdown)
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
    body = cells.map(escape_latex).rename(columns=escape_latex)
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
