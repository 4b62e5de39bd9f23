r"""How a table fits a page: broken into parts of some of its columns, and as LaTeX.

A LaTeX table fits the text of an A4 page in ``article`` at 10 pt, the narrowest that is common,
in type of 7 to 9 pt whatever the class; no box is scaled. One that is longer than a page is a
``longtable``. Widths are those of Computer Modern, rounded up.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import pandas as pd

WRAPPED = 30  # characters: a longer text wraps
WORD = 24  # characters of a word that LaTeX may not break; a longer one gets places to break at

TEXT_WIDTH, TEXT_HEIGHT = 345.0, 560.0  # points
COLUMN_GAP = 3.0  # points on both sides of a column
# Sizes in points, the best first, and how much wider than its size Computer Modern sets them.
SIZES = {9: 1.03, 8: 1.07, 7: 1.14}
LEADING = 1.2
NARROW, BROAD = frozenset("iljtfrI.,;:'|!()[] -"), frozenset("mwMW@%&…—")

LATEX = str.maketrans(
    {mark: f"\\{mark}" for mark in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "−": "$-$"}
)
# First in a line these two would be taken for an option of the end of the line before.
OPTIONS = re.compile(r"^([\[*])")
WORDS = re.compile(r" (?![^\[]*\])")  # of a heading; "[low, high]" is one
# What every LaTeX typesets; other characters are named by their number.
KNOWN = re.compile(r"[^\x20-\x7e\xa1-\xff–—‘’“”…−]")
MINUS = re.compile(r"(?<![\w.)-])-(?=[\d.])")


@dataclass(frozen=True)
class Cells:
    """A table as text: columns with their headings, which are numbers, how many say what a row is.

    ``keys`` counts the first columns, which every part of a broken table has.
    """

    texts: pd.DataFrame
    numeric: Sequence[bool]
    keys: int

    def width(self, place: int, measure: Callable[[str], float]) -> float:
        """Of a column, by the measure of a text; headings and long texts wrap."""
        name = self.texts.columns[place]
        widest = max(map(measure, self.texts[name]), default=0.0)
        if self.wraps(place):
            widest = measure("x" * WRAPPED)
        return max(widest, *map(measure, WORDS.split(name)))

    def wraps(self, place: int) -> bool:
        longest = self.texts.iloc[:, place].str.len().max() if len(self.texts) else 0
        return not self.numeric[place] and longest > WRAPPED

    def parts(self, room: float, gap: float, measure: Callable[[str], float]) -> list[Cells]:
        """Tables that are no wider than the room, unless a single column with the keys is."""
        widths = [self.width(place, measure) + gap for place in range(len(self.numeric))]
        taken = sum(widths[: self.keys])
        parts: list[list[int]] = [[]]
        left = room - taken
        for place in range(self.keys, len(widths)):
            if parts[-1] and widths[place] > left:
                parts.append([])
                left = room - taken
            parts[-1].append(place)
            left -= widths[place]
        return [self._of([*range(min(self.keys, len(widths))), *part]) for part in parts]

    def _of(self, places: Sequence[int]) -> Cells:
        numeric = [self.numeric[place] for place in places]
        return Cells(self.texts.iloc[:, list(places)], numeric, self.keys)


def latex(cells: Cells, title: str, label: str | None, notes: Sequence[str], name: str) -> str:
    """A table that compiles with the packages its first line names.

    Parameters
    ----------
    title, label
        Its caption, and what is a stand-in, or ``None``.
    notes
        Sentences below it.
    name
        It is referred to as ``tab:name``.
    """
    size, parts = _fitted(cells)
    long = _height(parts, notes, size) > TEXT_HEIGHT
    stand_in = rf" \textbf{{\emph{{{escaped(label)}}}}}." if label else ""
    caption = rf"\caption{{{escaped(title)}.{stand_in}}}\label{{tab:{name}}}"
    packages = ["array", "booktabs", *(["longtable"] if long else [])]
    set_in = rf"\fontsize{{{size}}}{{{LEADING * size:.1f}}}\selectfont"
    set_in += rf"\setlength{{\tabcolsep}}{{{COLUMN_GAP:g}pt}}"
    body = _long(parts, size, caption) if long else _short(parts, size, caption, set_in)
    below = [rf"\par\smallskip{{\footnotesize\raggedright {escaped(note)}\par}}" for note in notes]
    if long:
        lines = ["{", set_in, *body, "}", *below]
    else:
        lines = [r"\begin{table}", *body, *below, r"\end{table}"]
    return "\n".join([f"% Packages: {', '.join(packages)}.", *lines]) + "\n"


def escaped(text: str) -> str:
    """A text for LaTeX: no markup, every character one that it has, long words breakable."""
    named = KNOWN.sub(lambda mark: f"U+{ord(mark[0]):04X}", text)
    words = (_breakable(word) for word in named.split(" "))
    return OPTIONS.sub(r"{\1}", MINUS.sub("$-$", " ".join(words)))


def _breakable(word: str) -> str:
    pieces = textwrap.wrap(word, WORD, break_on_hyphens=False) or [word]
    return r"\allowbreak{}".join(piece.translate(LATEX) for piece in pieces)


def points(text: str, size: int) -> float:
    """Width of a text in Computer Modern, rounded up."""
    ems = (
        0.4 if mark in NARROW else 0.85 if mark in BROAD else 0.76 if mark.isupper() else 0.54
        for mark in text
    )  # fmt: skip
    return size * SIZES[size] * sum(ems)


def _fitted(cells: Cells) -> tuple[int, list[Cells]]:
    """The largest type in which the table needs the fewest parts."""
    room = TEXT_WIDTH + 2 * COLUMN_GAP
    found = {
        size: cells.parts(room, 2 * COLUMN_GAP, lambda text, size=size: points(text, size))
        for size in SIZES
    }
    size = min(SIZES, key=lambda each: (len(found[each]), -each))
    return size, found[size]


def _height(parts: Sequence[Cells], notes: Sequence[str], size: int) -> float:
    """Of the whole table, in points."""
    lines = sum(_lines(part, size) + 4 for part in parts)
    note_lines = sum(ceil(points(note, 8) / TEXT_WIDTH) for note in notes)
    return lines * size * LEADING + note_lines * 8 * LEADING + 40


def _lines(part: Cells, size: int) -> int:
    """Of the rows, some of which wrap."""
    widths = _paragraphs(part, size)
    lines = pd.DataFrame(1, part.texts.index, ["one"])
    for place, width in widths.items():
        text = part.texts.iloc[:, place]
        lines[place] = [max(1, ceil(1.1 * points(each, size) / width)) for each in text]
    return int(lines.max(axis=1).sum())


def _paragraphs(part: Cells, size: int) -> dict[int, float]:
    """Widths of the columns that wrap: they share what the others leave."""

    def measure(text: str) -> float:
        return points(text, size)

    places = range(len(part.numeric))
    wrapped = [place for place in places if part.wraps(place)]
    fixed = sum(part.width(place, measure) for place in places if place not in wrapped)
    left = TEXT_WIDTH - fixed - 2 * COLUMN_GAP * (len(places) - 1)
    return {place: left / len(wrapped) for place in wrapped}


def _short(parts: Sequence[Cells], size: int, caption: str, set_in: str) -> Iterator[str]:
    yield from (r"\centering", caption, rf"\par\medskip{set_in}")
    for number, part in enumerate(parts):
        if number:
            yield r"\par\medskip"
        yield rf"\begin{{tabular}}{{{_columns(part, size)}}}"
        yield from (r"\toprule", _headings(part, size), r"\midrule", *_rows(part), r"\bottomrule")
        yield r"\end{tabular}"


def _long(parts: Sequence[Cells], size: int, caption: str) -> Iterator[str]:
    for number, part in enumerate(parts):
        head = [r"\toprule", _headings(part, size), r"\midrule"]
        yield rf"\begin{{longtable}}{{{_columns(part, size)}}}"
        if not number:
            yield rf"{caption}\\"
        yield from (*head, r"\endhead", r"\bottomrule", r"\endfoot", *_rows(part))
        yield r"\end{longtable}"
        if number:
            yield r"\addtocounter{table}{-1}"  # every longtable counts itself


def _columns(part: Cells, size: int) -> str:
    paragraphs = _paragraphs(part, size)
    kinds = [
        rf">{{\raggedright\arraybackslash}}p{{{paragraphs[place]:.0f}pt}}"
        if place in paragraphs
        else "r" if number else "l"
        for place, number in enumerate(part.numeric)
    ]  # fmt: skip
    return "@{}" + "".join(kinds) + "@{}"


def _headings(part: Cells, size: int) -> str:
    """Headings over one another's words where a line would be wider than the column."""
    headings = []
    paragraphs = _paragraphs(part, size)
    for place, name in enumerate(part.texts.columns):
        room = paragraphs.get(place) or part.width(place, lambda text: points(text, size))
        lines = [""]
        for word in WORDS.split(name):
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and points(longer, size) > room:
                lines.append(word)
            else:
                lines[-1] = longer
        text = r"\\".join(map(escaped, lines))
        side = "r" if part.numeric[place] else "l"
        headings.append(rf"\shortstack[{side}]{{{text}}}" if len(lines) > 1 else text)
    return " & ".join(headings) + r" \\"


def _rows(part: Cells) -> Iterator[str]:
    for row in part.texts.map(escaped).itertuples(index=False):
        yield " & ".join(row) + r" \\"
