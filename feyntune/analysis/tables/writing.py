"""How tables are written: captions, number formats, CSV, Markdown and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from math import floor, log10
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from feyntune.analysis.tables import typesetting
from feyntune.analysis.tables.typesetting import Cells
from feyntune.experiment.files import writing
from feyntune.experiment.sections import Statistics
from feyntune.paths import CAPTIONS

DECIMALS = 3  # where a caption says nothing
MOST_DECIMALS = 6
# Characters of a table in Markdown, and between two of its columns: what a page of GitHub or of a
# notebook shows without scrolling.
PAGE, GAP = 110, 3

# An underscore within a word, as in 01_data_curation, is no markup and stays as it is, and so do
# brackets that no link follows.
MARKDOWN = re.compile(r"([\\|*`<>$]|\](?=[(\[])|(?<!\w)_|_(?!\w))")


@cache
def captions() -> dict[str, dict[str, dict[str, Any]]]:
    """What ``tables`` and ``figures`` are called and mean, by name."""
    return yaml.safe_load(CAPTIONS.read_text(encoding="utf-8"))


def caption(name: str, settings: Statistics) -> dict[str, Any]:
    """Title, notes, decimals, intervals and keys of a table, as :func:`write` takes them."""
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
    decimals: Mapping[str, int | str] | None = None,
    intervals: Mapping[str, Sequence[str]] | None = None,
    keys: int = 1,
) -> None:
    """Write ``stem.csv``, ``stem.md`` and ``stem.tex``.

    The CSV is for scripts: six significant digits, every number apart, no index, and a last
    column ``label`` that says on every row what is a stand-in, empty if nothing is.

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
        Of fractional numbers in Markdown and LaTeX, by column where they are not 3; the name of
        another column for as many as that has.
    intervals
        By column of a value, the columns of its ends: in Markdown and LaTeX all three are one,
        ``40.8 [37.2, 44.5]``, with as many decimals as :func:`digits` says.
    keys
        Columns that say what a row is of, the first ones. A table that is wider than a page is
        broken into several, each with these.
    """
    cells = _cells(frame, decimals or {}, intervals or {}, keys)
    labelled = frame.assign(label=label or "")
    written = {
        "csv": labelled.to_csv(index=False, float_format="%.6g", lineterminator="\n"),
        "md": _markdown(cells, title, label, notes),
        "tex": typesetting.latex(cells, title, label, notes, stem.name),
    }
    for ending, text in written.items():
        with writing(stem.with_name(f"{stem.name}.{ending}")) as partial:
            partial.write_text(text, encoding="utf-8", newline="\n")


def digits(table: pd.DataFrame, low: str = "low", high: str = "high") -> int:
    """Decimals that show two digits of half the width of a narrow interval of a table.

    Narrow is the lower quartile of the widths.
    """
    widths = (table[high] - table[low]).astype(float)
    half = widths[widths > 0].quantile(0.25) / 2
    if np.isnan(half):
        return DECIMALS
    return min(max(1 - floor(log10(half)), 0), MOST_DECIMALS)


def _cells(
    frame: pd.DataFrame,
    decimals: Mapping[str, int | str],
    intervals: Mapping[str, Sequence[str]],
    keys: int,
) -> Cells:
    """The table as people read it: intervals beside their values, no column of empty notes."""
    places = {value: digits(frame, *ends) for value, ends in intervals.items()}
    places |= {name: DECIMALS for name in frame if name not in places}
    places |= {name: given for name, given in decimals.items() if isinstance(given, int)}
    places |= {name: places[like] for name, like in decimals.items() if isinstance(like, str)}
    ends = {end for both in intervals.values() for end in both}
    texts, numeric = {}, []
    for name in frame.columns:
        if name in ends:
            continue
        column = [_cell(value, places[name]) for value in frame[name]]
        number = pd.api.types.is_numeric_dtype(frame[name].dtype)
        if not number and not any(column) and len(column):
            continue
        heading = str(name).replace("_", " ")
        if name in intervals:
            both = frame[list(intervals[name])].itertuples(index=False)
            column = [
                _with_ends(value, *pair, places[name])
                for value, pair in zip(frame[name], both, strict=True)
            ]
            heading += " [low, high]"
        texts[heading] = column
        numeric.append(number)
    return Cells(pd.DataFrame(texts, dtype=str), numeric, keys)


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


def _with_ends(value: float, low: float, high: float, places: int) -> str:
    """``40.8 [37.2, 44.5]``; the value alone where there is no interval."""
    if pd.isna(low) or pd.isna(high):
        return _cell(value, places)
    # Adding zero takes the sign from what rounds to nothing. An end keeps it: it tells on which
    # side of zero the interval ends.
    middle = f"{round(value, places) + 0:,.{places}f}"
    return f"{middle} [{_cell(float(low), places)}, {_cell(float(high), places)}]"


def _markdown(cells: Cells, title: str, label: str | None, notes: Sequence[str]) -> str:
    """A heading, the label, the table in as many parts as its width asks for, and the notes."""
    tables = []
    for part in cells.parts(PAGE, GAP, len):
        body = part.texts.map(_escape_markdown).rename(columns=_escape_markdown)
        align = ["right" if each else "left" for each in part.numeric]
        tables.append(body.to_markdown(index=False, disable_numparse=True, colalign=align))
    heading = [f"# {title}", *([f"***{label}***"] if label else [])]
    return "\n\n".join([*heading, *tables, *map(_escape_markdown, notes)]) + "\n"


def _escape_markdown(text: str) -> str:
    return MARKDOWN.sub(r"\\\1", text)
