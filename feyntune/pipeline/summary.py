"""What a run says of itself: how much it has to do, and at its end what was made and what not."""

from __future__ import annotations

import os
from pathlib import Path

from feyntune.analysis.report import claims, expectations
from feyntune.experiment.schema import Experiment
from feyntune.paths import named
from feyntune.runs import records, stages
from feyntune.runs.freshness import Survey
from feyntune.runs.stages import Job


def opening(experiment: Experiment, todo: list[Job]) -> str:
    """How much there is to do."""
    label = f" ({experiment.stand_in})" if experiment.stand_in else ""
    what = f"{len(todo)} stages to run" if todo else "nothing to do, every result is up to date"
    return f"Experiment {experiment.name}{label}: {what}."


def closing(experiment: Experiment, failed: list[Job], seconds: float) -> str:
    """What a run made or what kept it from that.

    Parameters
    ----------
    failed
        The stages that are not fresh after it.
    seconds
        It took.
    """
    paths, survey = experiment.paths, Survey(experiment)
    minutes, rest = divmod(round(seconds), 60)
    lines = [f"\nExperiment {experiment.name}: {minutes} min {rest:02d} s."]
    skipped = (records.read(paths.curation) or {}).get("bad_lines", 0)
    if skipped:
        lines.append(f"{skipped} lines of the snapshot were skipped; see {_short(paths.curation)}.")
    lines += _not_released(experiment)
    if not failed:
        return "\n".join([*lines, *made(experiment)])
    # Those that nothing else holds up are the cause; the others wait for them.
    causes = [
        job
        for job in failed
        if all(survey.fresh(*n) for n in stages.STAGES[job[0]].needs(experiment, job[1]))
    ]
    lines += [f"Did not end: {named(*job)}" for job in causes]
    lines.append(f"{len(failed) - len(causes)} more stages wait. Run again to continue.")
    lines.append(f"Executed notebooks, failed ones too: {_short(paths.results / 'notebooks')}")
    lines.append("To draw what there is: --figures-only")
    return "\n".join(lines)


def made(experiment: Experiment) -> list[str]:
    """What there is and where, and which claims it meets, a line each."""
    paths = experiment.paths
    figures = sorted(path.stem for path in paths.figures.glob("*.pdf"))
    tables = sorted(path.stem for path in paths.tables.glob("*.csv"))
    return [
        f"Figures   {_short(paths.figures)}: {', '.join(figures) or 'none'}",
        f"Tables    {_short(paths.tables)}: {', '.join(tables) or 'none'}",
        f"Notebooks {_short(paths.results / 'notebooks')}: the executed copies",
        *_claims(experiment),
    ]


def _not_released(experiment: Experiment) -> list[str]:
    """What the authors' release lacks or holds that cannot be used, a line each."""
    found = records.read(experiment.paths.released) or {}
    lines = [
        f"Nothing usable released: {kind}, {subject}: {why}"
        for kind, reasons in found.get("missing", {}).items()
        for subject, why in reasons.items()
    ]
    unexpected = found.get("unexpected_columns", {})
    return lines + [f"Not used: {s}: {', '.join(columns)}" for s, columns in unexpected.items()]


def _claims(experiment: Experiment) -> list[str]:
    """How many claims were met, each that was missed, and where the report is."""
    judged = (records.read(experiment.paths.verdicts) or {}).get("claims", [])
    missed = [each for each in judged if each["verdict"] == expectations.MISSED]
    return [
        f"Claims    {claims.total(each['verdict'] for each in judged) if judged else 'none'}",
        *(f"  missed  {m['claim']}: {m['found']}, expected {m['expected']}" for m in missed),
        f"Report    {_short(experiment.paths.page)}",
    ]


def _short(path: Path) -> str:
    """A path as a person at the repository's root would type it."""
    return os.path.relpath(path) if path.is_relative_to(os.getcwd()) else str(path)
