"""Claims as data: what ``experiments/<name>.expected.yaml`` says must come out, and what did.

A claim names a value in a result file, where the expectation comes from and how certain that is.
One whose value does not exist is not run; it never counts as met.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from feyntune import experiment as experiments
from feyntune.errors import UserError
from feyntune.paths import EXPERIMENTS
from feyntune.sections import Name, Section
from feyntune.settings import Experiment
from feyntune.sources import KaggleDataset

MET, MISSED, NOT_RUN = "met", "missed", "not run"
CURATION = "data/curation.json"


class Snapshot(Section):
    """The version of the snapshot that claims about its counts hold for."""

    id: Name
    version: int


class Claim(Section):
    """One expected value.

    ``file`` is a JSON file below ``results/<experiment>/`` and ``key`` the dotted place in it;
    the value is met within ``tolerance`` (absolute).
    """

    claim: Name
    file: Name
    key: Name
    expected: int | float | str
    tolerance: Annotated[float, Field(ge=0)]
    source: Name
    certainty: Literal["released", "computed", "inferred", "reference"]


class Expected(Section):
    """A whole file of claims."""

    snapshot: Snapshot | None
    claims: list[Claim]


@dataclass(frozen=True)
class Verdict:
    """A claim beside what was found; ``found`` is ``None`` where nothing was."""

    claim: Claim
    found: Any
    verdict: str

    def described(self) -> str:
        """The verdict in a line."""
        beside = "" if self.verdict == MET else f", expected {_plain(self.claim.expected)}"
        found = "" if self.found is None else f": {_plain(self.found)}"
        return f"{self.verdict:7} {self.claim.claim}{found}{beside}"


def load(name: str) -> Expected | None:
    """Read ``experiments/<name>.expected.yaml``, if there is one.

    Raises
    ------
    UserError
        If it is not of the form described by :class:`Expected`.
    """
    path = EXPERIMENTS / f"{name}.expected.yaml"
    if not path.is_file():
        return None
    try:
        return Expected.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValidationError) as error:
        raise UserError(f"experiments/{path.name}: {' '.join(str(error).split())}") from None


def judge(experiment: Experiment) -> list[Verdict]:
    """Every claim of an experiment against its result files."""
    expected = load(experiment.name)
    files: dict[str, Any] = {}
    verdicts = []
    for claim in expected.claims if expected else []:
        if claim.file not in files:
            files[claim.file] = _read(experiment.paths.results / claim.file)
        verdicts.append(_judged(claim, files[claim.file]))
    return verdicts


def hold_counts(experiment: Experiment, counts: Mapping[str, Any]) -> list[str]:
    """Compare what selection counted with the claims of the experiment, or of one it extends.

    Parameters
    ----------
    counts
        As :func:`feyntune.selection.select` gives them: the beginnings of ``curation.json``.

    Returns
    -------
    list of str
        A line for every count that differs.

    Raises
    ------
    UserError
        If one differs although the snapshot is the very version that the claims are about.
    """
    line = experiments.ancestry(experiment.name)
    expected = next((e for e in map(load, line) if e and e.snapshot), None)
    if expected is None:
        return []
    judged = [_judged(claim, counts) for claim in expected.claims if claim.file == CURATION]
    differ = [verdict.described() for verdict in judged if verdict.verdict == MISSED]
    if differ and _is(experiment, expected.snapshot):
        of = f"{expected.snapshot.id} version {expected.snapshot.version}"
        raise UserError(f"This snapshot has other counts than {of}: {'; '.join(differ)}.")
    return differ


def _is(experiment: Experiment, snapshot: Snapshot) -> bool:
    """Whether an experiment claims to read this version."""
    return any(
        isinstance(source, KaggleDataset)
        and experiment.data.snapshot == source.id == snapshot.id
        and source.version == snapshot.version
        for source in experiment.fetch.values()
    )


def _judged(claim: Claim, content: Any) -> Verdict:
    found = _at(content, claim.key)
    if found is None:
        return Verdict(claim, None, NOT_RUN)
    number = isinstance(claim.expected, int | float) and isinstance(found, int | float)
    near = number and abs(found - claim.expected) <= claim.tolerance
    return Verdict(claim, found, MET if near or found == claim.expected else MISSED)


def _at(content: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(content, Mapping) or part not in content:
            return None
        content = content[part]
    return content


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _plain(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
