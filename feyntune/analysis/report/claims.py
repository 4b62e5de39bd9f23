"""Every claim of an experiment beside what was found: met, missed, undecided, or not run and why.

Values are looked up only in result files that a fresh run record lists. A claim whose value is not
there is not run; it never counts as met.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from feyntune.analysis.report import expectations
from feyntune.analysis.report.expectations import (
    MET,
    MISSED,
    NOT_RUN,
    REFERENCE,
    UNDECIDED,
    AnyClaim,
    FileClaim,
    Found,
    Statement,
    TableClaim,
    Value,
    readable,
)
from feyntune.data.fetch import revisions
from feyntune.errors import UserError, choose
from feyntune.experiment.schema import Experiment
from feyntune.paths import Paths
from feyntune.runs.freshness import is_recorded, result_files
from feyntune.runs.stages import REPORT, Run, plan, run

# Result files that are fresh, each with the run that made it.
Files = Mapping[Path, Run]


@dataclass(frozen=True)
class Verdict:
    """A claim beside what was found.

    Attributes
    ----------
    found
        The values that there are; empty where nothing is.
    verdict
        ``met``, ``missed``, ``undecided`` or ``not run``.
    why
        Why it is undecided or not run; empty otherwise.
    file, made_by
        The result file the values stand in, and the run that made it; ``None`` if there is none.
    """

    claim: AnyClaim
    found: tuple[Found, ...]
    verdict: str
    why: str = ""
    file: Path | None = None
    made_by: Run | None = None

    @property
    def expected(self) -> str:
        """What is expected, in words."""
        claim = self.claim
        if isinstance(claim, Statement):
            return ""
        within = f" ± {readable(claim.tolerance)}" if claim.tolerance else ""
        if isinstance(claim.expected, dict):
            count = len(claim.expected)
            return f"{f'{count} values, each ' if count > 1 else ''}as recorded{within}"
        relation = "" if claim.relation == "equal" else f"{claim.relation} "
        whole = ", the whole interval" if claim.judged == "interval" else ""
        each = f", each of {claim.rows}" if getattr(claim, "rows", 1) > 1 else ""
        return f"{relation}{readable(claim.expected)}{within}{whole}{each}"

    @property
    def summary(self) -> str:
        """What was found, in words; of several values how many are as expected, and the worst."""
        if not self.found:
            return ""
        if len(self.found) == 1 and not self.found[0].name:
            return str(self.found[0])
        claim, found = self.claim, self.found
        if self.verdict == UNDECIDED:
            open_ = [each for each in found if claim.undecided(each)]
            nearest = min(open_, key=claim.margin)
            return f"{len(open_)} of {claim.count} undecided; {nearest.name} {nearest}"
        good = sum(map(claim.meets, found))
        return f"{good} of {claim.count}{_described_worst(claim, min(found, key=claim.margin))}"

    def described(self) -> str:
        """The verdict in a line."""
        found = f": {self.summary}" if self.found else ""
        expected = f", expected {self.expected}" if self.verdict != MET and self.expected else ""
        why = f" ({self.why})" if self.why else ""
        return f"{self.verdict:7} {self.claim.claim}{found}{expected}{why}"

    def as_dict(self) -> dict[str, Any]:
        """For ``claims.json``, which scripts read."""
        return {
            **self.claim.model_dump(include={"claim", "source", "certainty"}),
            "expected": self.expected,
            "found": self.summary,
            "verdict": self.verdict,
            "why": self.why,
        }


def _described_worst(claim: TableClaim, found: Found) -> str:
    """What a summary of several values adds: the one nearest to being missed, or missed most."""
    met = claim.meets(found)
    if not isinstance(claim.expected, dict):
        return f"; {'nearest to the limit' if met else 'farthest off'}: {found.name} {found}"
    expected = claim.expected_of(found.name)
    if not met:
        return f"; farthest off: {found.name} {found} for {readable(expected)}"
    off = 0 if isinstance(expected, str) else abs(found.value - expected)
    return f"; farthest off by {off:.1g}: {found.name}" if off else ", all exactly"


def count(verdicts: Iterable[str]) -> dict[str, int]:
    """How many claims were met, missed and not run; undecided, where any are."""
    found = Counter(verdicts)
    states = (MET, MISSED, *([UNDECIDED] if found[UNDECIDED] else []), NOT_RUN)
    return {state: found[state] for state in states}


def total(verdicts: Iterable[str]) -> str:
    """How many claims had which verdict, in words."""
    return ", ".join(f"{number} {state}" for state, number in count(verdicts).items())


# --- looking values up ------------------------------------------------------------------------


def fresh_files(experiment: Experiment) -> Files:
    """The result files that claims are judged on."""
    return result_files(run(experiment, REPORT))


def judge(experiment: Experiment) -> list[Verdict]:
    """Every claim of an experiment against its fresh results.

    Raises
    ------
    UserError
        If the file of claims is not well-formed, or names a table or column that does not exist.
    """
    expected = expectations.load(experiment.name)
    if expected is None:
        return []
    files = fresh_files(experiment)
    judged = _judged(experiment, expected.claims)
    return [judge_one(claim, experiment.paths, files) for claim in judged]


def _judged(experiment: Experiment, stated: list[AnyClaim]) -> list[AnyClaim]:
    """The claims; values of a run of ours are not judged where they cannot be reproduced."""
    why = _why_not_reproduced(experiment)
    if why is None:
        return stated
    return [
        claim.model_copy(update={"not_judged": claim.not_judged or why})
        if claim.certainty == REFERENCE
        else claim
        for claim in stated
    ]


def _why_not_reproduced(experiment: Experiment) -> str | None:
    """Why values of a run of ours say nothing of this machine; ``None`` where they do."""
    changes = revisions.changes(experiment)
    if changes is not None and changes.too_many:
        return f"too many abstracts are not those of our run: {changes}"
    made = [each.record for each in plan(experiment) if not each.stage.gathers]
    if made and all(map(is_recorded, made)):
        return "these are the committed results; nothing was computed here"
    return None


def judge_one(claim: AnyClaim, paths: Paths, files: Files) -> Verdict:
    """One claim against result files.

    Parameters
    ----------
    files
        As :func:`fresh_files` gives them.
    """
    if isinstance(claim, Statement):
        return Verdict(claim, (), NOT_RUN, claim.not_judged)
    file = claim.path(paths)
    if file not in files:
        there = "is not of today's settings, code and data" if file.is_file() else "is not there"
        return Verdict(claim, (), NOT_RUN, claim.not_judged or f"{claim.place} {there}")
    found, lacking = _look_up(claim, file)
    why = claim.not_judged or ""
    if why:
        verdict = NOT_RUN
    elif not all(claim.meets(each) or claim.undecided(each) for each in found):
        verdict = MISSED  # whatever else is lacking
    elif lacking:
        verdict, why = NOT_RUN, lacking
    elif any(map(claim.undecided, found)):
        verdict, why = UNDECIDED, "the interval holds what is expected"
    else:
        verdict = MET
    return Verdict(claim, tuple(found), verdict, why, file, files[file])


def values(entry: Mapping[str, Any], paths: Paths, files: Files) -> Value | dict[str, Value]:
    """What a reference claim is to expect after this run: its value, or those of all rows with one.

    Parameters
    ----------
    entry
        A claim as in the file; what it expects so far does not count.

    Raises
    ------
    UserError
        If there is none.
    """
    claim = expectations.without_values(entry)
    file = claim.path(paths)
    if file not in files:
        raise UserError(f"{claim.place} is not there or not up to date: run the experiment.")
    if isinstance(claim, FileClaim):
        found, lacking = _look_up(claim, file)
    else:
        found = [_found(row, claim, claim.each) for row in _rows(claim, file).to_dict("records")]
        lacking = "" if found else f"no row of {claim.place} fits it"
    several = {each.name: each.value for each in found if each.value is not None}
    if lacking or not several:
        raise UserError(f'The claim "{claim.claim}": {lacking or "its rows have no values"}.')
    return several if "each" in entry else found[0].value


def _look_up(claim: FileClaim | TableClaim, file: Path) -> tuple[list[Found], str]:
    """The values that a claim is about, and why some of them are lacking."""
    return _in_json(claim, file) if isinstance(claim, FileClaim) else _in_table(claim, file)


def _in_json(claim: FileClaim, file: Path) -> tuple[list[Found], str]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return [], f"{claim.file} is not JSON"
    value = expectations.at(content, claim.key)
    return ([], f"{claim.file} has no {claim.key}") if value is None else ([Found(value)], "")


def _in_table(claim: TableClaim, file: Path) -> tuple[list[Found], str]:
    frame = _rows(claim, file)
    if claim.each is not None:
        frame = frame[frame[claim.each].isin(list(claim.expected))]
        twice = frame[claim.each][frame[claim.each].duplicated()]
        if len(twice):
            return [], f"{twice.iloc[0]} stands twice in {claim.place}"
    if len(frame) > claim.count:
        return [], f"{len(frame)} rows of {claim.place} fit it, not {claim.count}"
    named = claim.each or ("model" if claim.rows > 1 and "model" in frame else None)
    found = [_found(row, claim, named) for row in frame.to_dict("records")]
    there = [each for each in found if each.value is not None]
    if len(there) == claim.count:
        return there, ""
    notes = sorted(set(frame["note"]) - {""}) if "note" in frame else []
    because = f" ({'; '.join(notes)})" if notes else ""
    return there, f"{len(there)} of {claim.count} values in {claim.place}{because}"


def _rows(claim: TableClaim, file: Path) -> pd.DataFrame:
    """The rows of a table, as texts, that fit a claim's ``where``."""
    frame = pd.read_csv(file, dtype=str, keep_default_na=False)
    columns = [claim.column, *claim.where, *(claim.interval or []), *filter(None, [claim.each])]
    for name in columns:
        try:
            choose("column", name, frame.columns, of=claim.place)
        except UserError as error:
            lacking = f'The claim "{claim.claim}" names a column that the table does not have.'
            raise UserError(f"{lacking} {error}") from None
    for name, value in claim.where.items():
        frame = frame[frame[name] == str(value)]
    return frame


def _found(row: Mapping[str, str], claim: TableClaim, named: str | None) -> Found:
    ends = [_value(row[end]) for end in claim.interval or []]
    interval = {} if None in ends else dict(zip(("low", "high"), ends, strict=False))
    return Found(_value(row[claim.column]), row[named] if named else "", **interval)


def _value(cell: str) -> Value | None:
    """A cell of a CSV file: a whole number, another, or a text; nothing where it is empty."""
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell or None
