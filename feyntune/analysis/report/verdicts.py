"""A claim beside what was found, and how that is said: in a line, in a table, for scripts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feyntune.analysis.report.expectations import (
    MET,
    MISSED,
    NOT_RUN,
    AnyClaim,
    Found,
    Statement,
    TableClaim,
    expected_of,
    margin,
    meets,
    plain,
)
from feyntune.runs.stages import Run

STATES = (MET, MISSED, NOT_RUN)


@dataclass(frozen=True)
class Verdict:
    """A claim beside what was found.

    Attributes
    ----------
    found
        The values that there are; empty where nothing is.
    verdict
        ``met``, ``missed`` or ``not run``.
    why
        Why it is not run; empty otherwise.
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
        if isinstance(claim.expected, dict):
            within = f" ± {plain(claim.tolerance)}" if claim.tolerance else ""
            count = len(claim.expected)
            each = f"{count} values, each " if count > 1 else ""
            return f"{each}as recorded{within}"
        relation = "" if claim.relation == "equal" else f"{claim.relation} "
        within = f" ± {plain(claim.tolerance)}" if claim.tolerance else ""
        whole = ", the whole interval" if claim.judged == "interval" else ""
        each = f", each of {claim.rows}" if getattr(claim, "rows", 1) > 1 else ""
        return f"{relation}{plain(claim.expected)}{within}{whole}{each}"

    @property
    def summary(self) -> str:
        """What was found, in words; of several values how many are as expected, and the worst."""
        claim = self.claim
        if not self.found:
            return ""
        if len(self.found) == 1 and not self.found[0].name:
            return str(self.found[0])
        good = sum(meets(claim, each) for each in self.found)
        worst = min(self.found, key=lambda each: margin(claim, each))
        return f"{good} of {wanted(claim)}{_of_the_worst(claim, worst)}"

    def described(self) -> str:
        """The verdict in a line."""
        found = f": {self.summary}" if self.found else ""
        expected = f", expected {self.expected}" if self.verdict != MET and self.expected else ""
        why = f" ({self.why})" if self.why else ""
        return f"{self.verdict:7} {self.claim.claim}{found}{expected}{why}"

    def plain(self) -> dict[str, Any]:
        """For ``claims.json``, which scripts read."""
        return {
            **self.claim.model_dump(include={"claim", "source", "certainty"}),
            "expected": self.expected,
            "found": self.summary,
            "verdict": self.verdict,
            "why": self.why,
        }


def wanted(claim: TableClaim) -> int:
    """How many values a claim is about."""
    return len(claim.expected) if isinstance(claim.expected, dict) else claim.rows


def _of_the_worst(claim: TableClaim, found: Found) -> str:
    """What a summary of several values adds: the one nearest to being missed, or missed most."""
    if not isinstance(claim.expected, dict):
        last = "nearest to the limit" if meets(claim, found) else "farthest off"
        return f"; {last}: {found.name} {found}"
    expected = expected_of(claim, found.name)
    if not meets(claim, found):
        return f"; farthest off: {found.name} {found} for {plain(expected)}"
    off = 0 if isinstance(expected, str) else abs(found.value - expected)
    return f"; farthest off by {off:.1g}: {found.name}" if off else ", all exactly"


def total(verdicts: Iterable[str]) -> str:
    """How many were met, missed, not run, in words."""
    count = Counter(verdicts)
    return ", ".join(f"{count[state]} {state}" for state in STATES)
