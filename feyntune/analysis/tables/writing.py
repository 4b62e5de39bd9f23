"""How tables are written: captions, number formats, CSV, Markdown and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from feyntune.experiment.files import writing
from feyntune.experiment.sections import Statistics
from feyntune.paths import CAPTIONS

WIDE = 40  # characters; a longer text column wraps in LaTeX

# An underscore within a word, as in 01_data_curation, is no markup and stays as it is.
MARKDOWN = re.compile(r"([\\|*`<>$\[\]]|(?<!\w)_|_(?!\w))")
LATEX = str.maketrans(
    {mark: f"\\{mark}" for mark in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "−": "$-$"}
)


@cache
def captions() -> dict[str, dict[str, dict[str, Any]]]:
    """Titles, notes and decimals of ``tables``, titles and captions of ``figures``, by name."""
    return yaml.safe_load(CAPTIONS.read_text(encoding="utf-8"))


def caption(name: str, settings: Statistics) -> dict[str, Any]:
    """Title, notes and decimals of a table, as :func:`write` takes them."""
    about = captions()["tables"][name]
    notes = [note.format(**settings.model_dump()) for note in about.get("notes", [])]
    return {**about, "notes": notes}


def write(
    frame: pd.DataFrame,
    stem: Path,
    *,
    title: str,
    label: str | None,
    notes: Sequence[str] = (),
    decimals: Mapping[str, int] | None = None,
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
        Of fractional numbers in Markdown and LaTeX, by column where they are not 3.
    """
    places = decimals or {}
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


def _markdown(
    cells: pd.DataFrame, numeric: list[bool], title: str, label: str | None, notes: Sequence[str]
) -> str:
    body = cells.map(_escape_markdown).rename(columns=_escape_markdown)
    align = ["right" if each else "left" for each in numeric]
    table = body.to_markdown(index=False, disable_numparse=True, colalign=align)
    parts = [f"# {title}", *([f"***{label}***"] if label else []), table]
    return "\n\n".join([*parts, *map(_escape_markdown, notes)]) + "\n"


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
    body = cells.map(_escape_latex).rename(columns=_escape_latex)
    table = body.to_latex(index=False, escape=False, column_format=align).rstrip("\n")
    stand_in = rf" \textbf{{\emph{{{_escape_latex(label)}}}}}." if label else ""
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escape_latex(title)}.{stand_in}}}",
        rf"\label{{tab:{name}}}",
        r"\begin{adjustbox}{max width=\textwidth}",
        table,
        r"\end{adjustbox}",
        *(rf"\par\smallskip{{\footnotesize {_escape_latex(note)}\par}}" for note in notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _escape_markdown(text: str) -> str:
    return MARKDOWN.sub(r"\\\1", text)


def _escape_latex(text: str) -> str:
    return text.translate(LATEX)
