"""Every claim of an experiment beside what was found: met, missed, or not run and why.

Values are looked up only in result files that a fresh run record vouches for. A claim whose value
is not there is not run; it never counts as met.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from feyntune.analysis.report import expectations
from feyntune.analysis.report.expectations import (
    MET,
    MISSED,
    NOT_RUN,
    REFERENCE,
    AnyClaim,
    FileClaim,
    Found,
    Statement,
    TableClaim,
    meets,
)
from feyntune.analysis.report.verdicts import Verdict, wanted
from feyntune.errors import UserError, choose
from feyntune.experiment import load as experiments
from feyntune.experiment.schema import Experiment
from feyntune.paths import Paths
from feyntune.runs.freshness import result_files
from feyntune.runs.stages import REPORT, Run, run

Vouched = Mapping[Path, Run]


def vouched(experiment: Experiment) -> Vouched:
    """The result files that claims are judged on, each with the run that made it."""
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
    made, changed = vouched(experiment), experiments.changed(experiment)
    return [judged(claim, experiment.paths, made, changed) for claim in expected.claims]


def judged(claim: AnyClaim, paths: Paths, made: Vouched, changed: Iterable[str] = ()) -> Verdict:
    """One claim against the files that are vouched for.

    Parameters
    ----------
    made
        Result files with the run that made each, as :func:`vouched` gives them.
    changed
        Settings that are not those of the experiment's file, for which reference values hold.
    """
    if isinstance(claim, Statement):
        return Verdict(claim, (), NOT_RUN, claim.not_judged)
    file = _file(claim, paths)
    if file not in made:
        there = "is not of today's settings, code and data" if file.is_file() else "is not there"
        return Verdict(claim, (), NOT_RUN, claim.not_judged or f"{_asked(claim)} {there}")
    look = _in_json if isinstance(claim, FileClaim) else _in_table
    found, absent = look(claim, file)
    other = f"recorded with other settings: {', '.join(changed)}" if changed else ""
    why = claim.not_judged or (other if claim.certainty == REFERENCE else "")
    if why:
        verdict = NOT_RUN
    elif not all(meets(claim, each) for each in found):
        verdict = MISSED  # what else is absent cannot mend it
    else:
        verdict, why = (NOT_RUN, absent) if absent else (MET, "")
    return Verdict(claim, tuple(found), verdict, why, file, made[file])


def _in_json(claim: FileClaim, file: Path) -> tuple[list[Found], str]:
    """The value of a claim, or why there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return [], f"{claim.file} is not JSON"
    value = expectations.at(content, claim.key)
    return ([], f"{claim.file} has no {claim.key}") if value is None else ([Found(value)], "")


def rows(claim: TableClaim, file: Path) -> pd.DataFrame:
    """The rows of a table, as texts, that fit a claim's ``where``.

    Raises
    ------
    UserError
        If the table lacks a column that the claim names.
    """
    frame = pd.read_csv(file, dtype=str, keep_default_na=False)
    columns = [claim.column, *claim.where, *(claim.interval or []), *filter(None, [claim.each])]
    for name in columns:
        try:
            choose(f"column of table {claim.table}", name, frame.columns)
        except UserError as error:
            raise UserError(f'The claim "{claim.claim}" asks in vain. {error}') from None
    for name, value in claim.where.items():
        frame = frame[frame[name] == str(value)]
    return frame


def _in_table(claim: TableClaim, file: Path) -> tuple[list[Found], str]:
    """The values of a claim's rows, and why some that it is about are not among them."""
    frame = rows(claim, file)
    if claim.each is not None:
        frame = frame[frame[claim.each].isin(list(claim.expected))]
        twice = frame[claim.each][frame[claim.each].duplicated()]
        if len(twice):
            return [], f"{twice.iloc[0]} stands twice in table {claim.table}"
    if len(frame) > wanted(claim):
        return [], f"{len(frame)} rows of table {claim.table} fit it, not {wanted(claim)}"
    named = claim.each or ("model" if claim.rows > 1 and "model" in frame else None)
    found = [_found(row, claim, named) for row in frame.to_dict("records")]
    there = [each for each in found if each.value is not None]
    if len(there) == wanted(claim):
        return there, ""
    notes = sorted(set(frame["note"]) - {""}) if "note" in frame else []
    because = f" ({'; '.join(notes)})" if notes else ""
    return there, f"{len(there)} of {wanted(claim)} values in table {claim.table}{because}"


def _found(row: Mapping[str, str], claim: TableClaim, named: str | None) -> Found:
    ends = [_value(row[end]) for end in claim.interval or []]
    interval = {} if None in ends else dict(zip(("low", "high"), ends, strict=False))
    return Found(_value(row[claim.column]), row[named] if named else "", **interval)


def _value(cell: str) -> expectations.Value | None:
    """A cell of a CSV file: a whole number, another, or a text; nothing where it is empty."""
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell or None


def _file(claim: FileClaim | TableClaim, paths: Paths) -> Path:
    if isinstance(claim, FileClaim):
        return paths.results / claim.file
    return paths.table(claim.table).with_suffix(".csv")


def _asked(claim: FileClaim | TableClaim) -> str:
    return claim.file if isinstance(claim, FileClaim) else f"table {claim.table}"


def values(
    entry: Mapping[str, Any], paths: Paths, made: Vouched
) -> expectations.Value | dict[str, expectations.Value]:
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
    claim = expectations.of(entry)
    file = _file(claim, paths)
    if file not in made:
        raise UserError(f"{_asked(claim)} is not there or not up to date: run the experiment.")
    if isinstance(claim, FileClaim):
        found, lacking = _in_json(claim, file)
    else:
        found = [_found(row, claim, claim.each) for row in rows(claim, file).to_dict("records")]
        lacking = "" if found else f"no row of table {claim.table} fits it"
    several = {each.name: each.value for each in found if each.value is not None}
    if lacking or not several:
        raise UserError(f'The claim "{claim.claim}": {lacking or "its rows have no values"}.')
    return several if "each" in entry else found[0].value
