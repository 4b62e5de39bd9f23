"""Reading an arXiv metadata snapshot: what a record is, which lines are none, what is withdrawn.

The rules are those of the released notebook ``get-arxiv-metadata``: the primary category is the
first token of ``categories``, a paper is withdrawn if its comments say so in any case or its
abstract in one of two, and line breaks with what follows them become a space.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec

from feyntune.data.blocks import blocks, lines
from feyntune.errors import UserError

Text = Annotated[str, msgspec.Meta(min_length=1)]
LINE_BREAK, BLANK_AFTER_BREAK = re.compile(r"\n\s*"), re.compile(r"\n\s")
# After so many lines a file that is mostly unusable is read no further; the allowed share of bad
# lines is judged at the end, where alone it is known.
ENOUGH_LINES, HOPELESS = 1000, 0.5
EXAMPLES = 10


class Version(msgspec.Struct, gc=False):
    """One version of a paper."""

    created: str


class Paper(msgspec.Struct, gc=False):
    """What curation reads of a record of Kaggle's ``Cornell-University/arxiv``.

    A line whose fields are missing, or of other types than these, cannot be used.
    """

    # In the order of the file, in which they are found faster.
    id: Text
    title: Text
    comments: str | None
    categories: Text
    abstract: str
    versions: list[Version]

    @property
    def withdrawn(self) -> bool:
        """The released rule, in its two parts with their two treatments of case."""
        if self.comments and "withdrawn" in self.comments.lower():
            return True
        abstract = self.abstract
        # One search instead of two where there is no such word.
        return "ithdrawn" in abstract and ("Withdrawn" in abstract or "withdrawn" in abstract)


@dataclass
class Reading:
    """What was met while a snapshot was read.

    Attributes
    ----------
    lines, bad
        Lines read, and lines that could not be used.
    examples
        Line number and reason of the first bad lines.
    """

    lines: int = 0
    bad: int = 0
    examples: list[tuple[int, str]] = field(default_factory=list)

    @property
    def gives_up(self) -> bool:
        """Whether the first lines show that this is another kind of file."""
        return self.lines == ENOUGH_LINES and self.bad > HOPELESS * ENOUGH_LINES

    def reject(self, reason: str) -> None:
        self.bad += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append((self.lines, reason))

    def add(self, further: Reading) -> None:
        """Append what was met in the lines that follow."""
        moved = [(self.lines + number, reason) for number, reason in further.examples]
        self.examples = [*self.examples, *moved][:EXAMPLES]
        self.lines += further.lines
        self.bad += further.bad

    def judge(self, path: Path, bad_lines_allowed: float) -> None:
        """Refuse a file that is empty or of which too much cannot be used."""
        if self.lines == 0:
            raise UserError(f"The snapshot {path} is empty.")
        if self.bad > bad_lines_allowed * self.lines:
            shown = "; ".join(f"line {number}: {reason}" for number, reason in self.examples)
            raise UserError(
                f"The snapshot {path} is not whole: {self.bad} of {self.lines} lines cannot be "
                f"used ({shown}), more than the {bad_lines_allowed:.2%} that "
                "data.bad_lines_allowed allows."
            )


def parse(
    lines: Iterable[bytes], reading: Reading, *, from_start: bool
) -> Iterator[tuple[Paper, str, int]]:
    """Yield the usable papers among lines; count and name the other lines.

    Parameters
    ----------
    lines
        With their ends; only the last one of a file can be without.
    from_start
        Whether ``reading`` counts from the start of the file, whose first lines may show that the
        rest is not worth reading.

    Yields
    ------
    paper, primary, year
        A paper, its primary category, and the year of its first version.
    """
    decode = msgspec.json.Decoder(Paper).decode
    for line in lines:
        reading.lines += 1
        try:
            paper = decode(line)
            primary = paper.categories.split(None, 1)[0]
            # Of "Mon, 2 Apr 2007 19:18:42 GMT".
            year = int(paper.versions[0].created.split(None, 4)[3])
        except (ValueError, IndexError) as error:
            if isinstance(error, msgspec.ValidationError):
                reason = str(error)
            elif isinstance(error, msgspec.DecodeError | UnicodeDecodeError):
                reason = f"not JSON ({error})"
            else:
                reason = f"no {'date in versions' if paper.categories.strip() else 'category'}"
            end = "" if line.endswith(b"\n") else "; the file ends in the middle of it"
            reading.reject(f"{reason}{end}")
        else:
            yield paper, primary, year
        if from_start and reading.gives_up:
            return


def papers(
    path: Path, reading: Reading, *, bad_lines_allowed: float
) -> Iterator[tuple[Paper, str, int]]:
    """Yield the usable papers of a snapshot as :func:`parse` does, few of them in memory.

    Parameters
    ----------
    path
        JSON lines in the format of Kaggle's ``Cornell-University/arxiv``, plain or compressed.
    reading
        Filled in while reading.
    bad_lines_allowed
        Share of lines that may be unusable; they are skipped and counted.

    Raises
    ------
    UserError
        If the file cannot be read (see `blocks`), is empty, or too many lines are unusable.
    """
    for block in blocks(path):
        yield from parse(lines(block), reading, from_start=True)
        if reading.gives_up:
            break
    reading.judge(path, bad_lines_allowed)


def clean(text: str) -> str:
    """Line breaks and the blanks after them become one space; the ends are stripped."""
    indented = BLANK_AFTER_BREAK.search(text)  # rarely, and the faster way then says the same
    return (LINE_BREAK.sub(" ", text) if indented else text.replace("\n", " ")).strip()
