"""Streaming an arXiv metadata snapshot: read, select, drop withdrawn papers, clean.

The rules are those of the released notebook ``get-arxiv-metadata``: five ids are kept out, the
primary category is the first token of ``categories``, a paper is withdrawn if its comments say so
in any case or its abstract in one of two, and line breaks with what follows them become a space.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from feyntune.errors import UserError
from feyntune.variants import FIELDS, SOURCES

NEEDED = ("id", "title", "categories", "comments", "abstract", "versions")
TEXTS = ("id", "title", "categories", "abstract")
LINE_BREAK = re.compile(r"\n\s*")
# After so many lines a file that is mostly unusable is read no further; the allowed share of bad
# lines is judged at the end, where alone it is known.
ENOUGH_LINES, HOPELESS = 1000, 0.5
EXAMPLES = 10


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

    def reject(self, reason: str) -> None:
        self.bad += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append((self.lines, reason))

    def described(self) -> str:
        shown = "; ".join(f"line {number}: {reason}" for number, reason in self.examples)
        return f"{self.bad} of {self.lines} lines cannot be used ({shown})"


def records(path: Path, reading: Reading, *, bad_lines_allowed: float) -> Iterator[dict[str, Any]]:
    """Yield the usable records of a snapshot, one line in memory at a time.

    Parameters
    ----------
    path
        JSON lines in the format of Kaggle's ``Cornell-University/arxiv``.
    reading
        Filled in while reading.
    bad_lines_allowed
        Share of lines that may be unusable; they are skipped and counted.

    Raises
    ------
    UserError
        If the file is missing, empty or a folder, or too many of its lines are unusable.
    """
    if path.is_dir():
        raise UserError(f"The snapshot {path} is a folder; give a file of JSON lines.")
    if not path.is_file():
        raise UserError(f"The snapshot {path} does not exist.")
    with path.open("rb") as file:
        for line in file:
            reading.lines += 1
            try:
                yield _record(line)
            except ValueError as error:
                cut = not line.endswith(b"\n")
                reading.reject(f"{error}; the file ends in the middle of it" if cut else str(error))
            if reading.lines == ENOUGH_LINES and reading.bad > HOPELESS * ENOUGH_LINES:
                break
    if reading.lines == 0:
        raise UserError(f"The snapshot {path} is empty.")
    if reading.bad > bad_lines_allowed * reading.lines:
        raise UserError(
            f"The snapshot {path} is not whole: {reading.described()}, "
            f"more than the {bad_lines_allowed:.2%} that data.bad_lines_allowed allows."
        )


def _record(line: bytes) -> dict[str, Any]:
    """One line as a record with every needed field, or a ValueError that says what is wrong."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg})") from None
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    missing = [name for name in NEEDED if name not in record]
    if missing:
        raise ValueError(f"no {', '.join(missing)}")
    no_text = [name for name in TEXTS if not isinstance(record[name], str) or not record[name]]
    if isinstance(record["categories"], str) and record["categories"].isspace():
        no_text.append("categories")
    if not isinstance(record["comments"], str | None):
        no_text.append("comments")
    if no_text:
        raise ValueError(f"no text in {', '.join(no_text)}")
    record["year"] = _year(record["versions"])
    return record


def _year(versions: Any) -> int:
    """Year of the first version, from ``Mon, 2 Apr 2007 19:18:42 GMT``."""
    try:
        return int(versions[0]["created"].split()[3])
    except (TypeError, KeyError, IndexError, AttributeError, ValueError):
        raise ValueError("no date in versions") from None


def primary(record: dict[str, Any]) -> str:
    """The primary category: the first token of ``categories``."""
    return record["categories"].split()[0]


def field_of(category: str) -> str | None:
    """The field of a primary category among ``FIELDS``, or ``None``."""
    return next((name for name in FIELDS if SOURCES[name].takes(category)), None)


def withdrawn(record: dict[str, Any]) -> bool:
    """The released rule, in its two parts with their two treatments of case."""
    comments, abstract = record["comments"] or "", record["abstract"]
    return "withdrawn" in comments.lower() or "Withdrawn" in abstract or "withdrawn" in abstract


def clean(abstract: str) -> str:
    """Line breaks and the blanks after them become one space; the ends are stripped."""
    return LINE_BREAK.sub(" ", abstract).strip()


def select(
    path: Path, *, excluded_ids: list[str], bad_lines_allowed: float
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
    """Read a snapshot once and keep the cleaned abstracts of each field, in its order.

    Returns
    -------
    rows
        For every field, rows of ``line, id, title, categories, primary, year, abstract``.
    counts
        Lines, bad lines, excluded ids, and per field what was selected, dropped and kept.
        Nothing is dropped that is not counted here.
    """
    reading, excluded = Reading(), set(excluded_ids)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in FIELDS}
    tally: dict[str, Counter] = {name: Counter() for name in (*FIELDS, "other")}
    found_excluded = []
    for record in records(path, reading, bad_lines_allowed=bad_lines_allowed):
        if record["id"] in excluded:
            found_excluded.append(record["id"])
            continue
        category = primary(record)
        name = field_of(category)
        count = tally[name or "other"]
        count["selected"] += 1
        if name is None:
            continue
        abstract = clean(record["abstract"])
        reason = "withdrawn" if withdrawn(record) else "empty" if not abstract else "kept"
        count[reason] += 1
        if reason == "kept":
            rows[name].append(
                {
                    "line": reading.lines,
                    "id": record["id"],
                    "title": clean(record["title"]),
                    "categories": record["categories"],
                    "primary": category,
                    "year": record["year"],
                    "abstract": abstract,
                }
            )
    counts = {
        "lines": reading.lines,
        "bad_lines": reading.bad,
        "bad_line_examples": reading.examples,
        "excluded_ids": sorted(found_excluded),
        "other_categories": tally["other"]["selected"],
        "fields": {
            name: {k: tally[name][k] for k in ("selected", "withdrawn", "empty", "kept")}
            for name in FIELDS
        },
    }
    return rows, counts
