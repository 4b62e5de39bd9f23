"""What must come out, as data: ``experiments/<name>.expected.yaml``, and how a value is judged.

A claim names a value in a result file or values in a table, where the expectation comes from and
how certain that is. :mod:`feyntune.analysis.report.claims` looks the values up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Discriminator, Field, Tag, TypeAdapter, ValidationError, model_validator

from feyntune import paths
from feyntune.errors import UserError, choose
from feyntune.experiment.sections import Name, Section

MET, MISSED, NOT_RUN = "met", "missed", "not run"
REFERENCE = "reference"
Value = int | float | str


class Snapshot(Section):
    """The version of the snapshot that claims about its counts hold for."""

    id: Name
    version: int


class Claim(Section):
    """What every claim says: in words, after whom, and how certain that is.

    ``certainty`` is ``stated`` (the paper's words), ``released`` (read in what the authors
    released), ``computed`` (from that), ``inferred`` (partly ours) or ``reference`` (a run of
    ours). ``figure`` is where a reader sees it. ``not_judged`` says why this experiment cannot
    meet or miss it; such a claim stands in the report and counts as not run.
    """

    claim: Name
    source: Name
    certainty: Literal["stated", "released", "computed", "inferred", "reference"]
    figure: Name | None = None
    not_judged: Name | None = None


class Expectation(Claim):
    """A claim on values: each equal to what is expected within ``tolerance`` (absolute), or beyond.

    With ``judged: interval`` a value is above (below) only if its whole interval is.
    """

    expected: Value | dict[str, Value]
    relation: Literal["equal", "above", "below"] = "equal"
    tolerance: Annotated[float, Field(ge=0)] = 0.0
    judged: Literal["value", "interval"] = "value"

    @model_validator(mode="after")
    def _numbers_compared(self) -> Expectation:
        if self.relation != "equal" and isinstance(self.expected, str | dict):
            raise ValueError(f"{self.relation} needs one number in expected")
        if self.judged == "interval" and self.relation == "equal":
            raise ValueError("judged: interval needs the relation above or below")
        return self

    def expected_of(self, name: str) -> Value:
        """What is expected of the value of this name."""
        return self.expected[name] if isinstance(self.expected, dict) else self.expected

    def margin(self, found: Found) -> float:
        """How far a value is on the good side of what is expected; negative on the other.

        Of texts, and of an interval that does not exist: 0 or minus infinity.
        """
        expected, value = self.expected_of(found.name), found.value
        if isinstance(expected, str) or isinstance(value, str):
            return 0.0 if str(value) == str(expected) else -math.inf
        if self.relation == "equal":
            return self.tolerance - abs(value - expected)
        ends = {"above": found.low, "below": found.high}
        judged = ends[self.relation] if self.judged == "interval" else value
        if math.isnan(judged):
            return -math.inf
        beyond = judged - expected if self.relation == "above" else expected - judged
        return beyond or -math.inf  # touching is not beyond

    def meets(self, found: Found) -> bool:
        """Whether a value is as expected; the rounding of a decimal tolerance does not count."""
        slack = 1e-12 * max(1.0, self.tolerance) if self.relation == "equal" else 0.0
        return self.margin(found) >= -slack


class FileClaim(Expectation):
    """``key`` is a dotted place in the JSON file ``file`` below ``results/<experiment>/``."""

    file: Name
    key: Name
    expected: Value

    @property
    def place(self) -> str:
        return self.file

    def path(self, places: paths.Paths) -> Path:
        return places.results / self.file


class TableClaim(Expectation):
    """Values of ``column`` in a table, in the rows whose columns are as in ``where``.

    There must be ``rows`` of them; or ``expected`` names them by their value in column ``each``.
    ``interval`` names the columns of the ends of their intervals.
    """

    table: Name
    column: Name
    where: dict[str, Value] = Field(default_factory=dict)
    rows: Annotated[int, Field(gt=0)] = 1
    each: Name | None = None
    interval: Annotated[list[Name], Field(min_length=2, max_length=2)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> TableClaim:
        choose("table", self.table, _tables())
        if isinstance(self.expected, dict) != (self.each is not None):
            raise ValueError("several expected values need the column that names them: each")
        if self.judged == "interval" and self.interval is None:
            raise ValueError("judged: interval needs the columns of its ends: interval")
        return self

    @property
    def place(self) -> str:
        return f"table {self.table}"

    def path(self, places: paths.Paths) -> Path:
        return places.table(self.table).with_suffix(".csv")

    @property
    def count(self) -> int:
        """How many values the claim is about."""
        return len(self.expected) if isinstance(self.expected, dict) else self.rows


class Statement(Claim):
    """A claim that this experiment has no value for."""

    not_judged: Name


@cache
def _tables() -> list[str]:
    """The tables that there are."""
    return list(yaml.safe_load(paths.CAPTIONS.read_text(encoding="utf-8"))["tables"])


def _form(entry: Any) -> str:
    """Which of the three a claim is: by its keys in the file."""
    keys = entry if isinstance(entry, dict) else vars(entry)
    if "table" in keys:
        return "table"
    return "file" if {"file", "key", "expected"} & set(keys) else "statement"


AnyClaim = Annotated[
    Annotated[FileClaim, Tag("file")]
    | Annotated[TableClaim, Tag("table")]
    | Annotated[Statement, Tag("statement")],
    Discriminator(_form),
]


class Expected(Section):
    """A whole file of claims."""

    snapshot: Snapshot | None
    claims: list[AnyClaim]


@dataclass(frozen=True)
class Found:
    """A value that a claim is about: its name among several, and its interval where it has one."""

    value: Value | None
    name: str = ""
    low: float = math.nan
    high: float = math.nan

    def __str__(self) -> str:
        if self.value is None:
            return "none"
        ends = "" if math.isnan(self.low) else f" [{readable(self.low)}, {readable(self.high)}]"
        return readable(self.value) + ends


def load(name: str) -> Expected | None:
    """Read ``experiments/<name>.expected.yaml``, if there is one.

    Raises
    ------
    UserError
        If it is not of the form described by :class:`Expected`, or names an unknown table.
    """
    path = paths.expectations(name)
    if not path.is_file():
        return None
    try:
        return Expected.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        problems = "; ".join(_problem(each) for each in error.errors())
        raise UserError(f"experiments/{path.name}: {problems}") from None
    except (yaml.YAMLError, UnicodeDecodeError, UserError) as error:
        raise UserError(f"experiments/{path.name}: {' '.join(str(error).split())}") from None


def without_values(entry: Mapping[str, Any]) -> FileClaim | TableClaim:
    """A claim of a file, whatever it expects so far."""
    unknown = {"any": 0} if "each" in entry else 0
    return TypeAdapter(AnyClaim).validate_python({**entry, "expected": unknown})


def _problem(error: Mapping[str, Any]) -> str:
    """A finding of pydantic in a line; claims are counted from 1."""
    place = [str(part + 1) if isinstance(part, int) else part for part in error["loc"]]
    return f"{' '.join(place)}: {error['msg']}"


def at(content: Any, key: str) -> Value | None:
    """The number or text at a dotted place, or ``None``."""
    for part in key.split("."):
        if not isinstance(content, Mapping) or part not in content:
            return None
        content = content[part]
    return content if isinstance(content, int | float | str) else None


def readable(value: Value) -> str:
    """A number for reading: whole ones grouped, others to four digits."""
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
