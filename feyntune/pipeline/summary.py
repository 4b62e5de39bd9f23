"""What a run says: how much there is to do and why, and at its end what was made and what not."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from feyntune.analysis.report import claims, expectations
from feyntune.experiment.schema import Experiment
from feyntune.runs import records, stages
from feyntune.runs.freshness import Freshness, Status
from feyntune.runs.stages import Run

# Results that took at least this long are named before they are made anew.
LONG = 60.0
WIDTH = 34


def opening(experiment: Experiment, todo: dict[Run, str]) -> str:
    """How much there is to do, and what changed for results that took long to make."""
    label = f" ({experiment.stand_in})" if experiment.stand_in else ""
    what = f"{len(todo)} stages to run" if todo else "nothing to do, every result is up to date"
    return "\n".join([f"Experiment {experiment.name}{label}: {what}.", *_made_anew(todo)])


def _made_anew(todo: dict[Run, str]) -> list[str]:
    """A line for each reason to make results of a stage anew that took long."""
    groups: dict[tuple[str, str], list[float]] = {}
    for each, why in todo.items():
        record = each.record
        if record and not each.stage.gathers:
            groups.setdefault((each.stage.name, why), []).append(record["seconds"])
    return [
        f"  made anew: {stage}, {len(seconds)} of {_long(sum(seconds))} ({why})"
        for (stage, why), seconds in groups.items()
        if sum(seconds) >= LONG
    ]


def would_run(todo: dict[Run, str]) -> str:
    """What a run would do, in order, with a reason for each."""
    lines = [f"would run {each!s:{WIDTH}} {why}".rstrip() for each, why in todo.items()]
    return "\n".join([*lines, f"{len(todo)} stages to run."])


def listed(found: Iterable[tuple[Run, Status]]) -> str:
    """One line per run, its state first, and a summary."""
    lines, counts = [], {}
    for each, (state, why) in found:
        counts[state] = counts.get(state, 0) + 1
        lines.append(f"{state:8} {each!s:{WIDTH}} {why}".rstrip())
    total = ", ".join(f"{count} {state}" for state, count in counts.items())
    return "\n".join([*lines, f"{len(lines)} runs: {total}."])


def set_for(trial: Experiment) -> str:
    """What a trial has of its own, in a line."""
    more = [name for name in trial.variants if name not in trial.parent.variants]
    return ", ".join([*more, *(f"{key}={value}" for key, value in trial.overrides.items())])


def closing(experiment: Experiment, failed: list[Run], seconds: float) -> str:
    """What a run made or what kept it from that.

    Parameters
    ----------
    failed
        The runs that are not fresh after it.
    seconds
        It took.
    """
    paths, freshness = experiment.paths, Freshness(experiment)
    lines = [f"\nExperiment {experiment.name}: {_long(seconds)}."]
    skipped = (records.read(paths.curation) or {}).get("bad_lines", 0)
    if skipped:
        lines.append(f"{skipped} lines of the snapshot were skipped; see {_short(paths.curation)}.")
    lines += _not_released(experiment)
    if not failed:
        return "\n".join([*lines, *made(experiment)])
    # Those that nothing else holds up are the cause; the others wait for them.
    causes = [each for each in failed if all(map(freshness.fresh, each.needs))]
    lines += [f"Did not end: {each}" for each in causes]
    lines.append(f"{len(failed) - len(causes)} more stages wait. Run again to continue.")
    lines.append(f"Executed notebooks, failed ones too: {_short(paths.results / 'notebooks')}")
    lines.append("To draw what there is: --figures-only")
    return "\n".join(lines)


def interrupted(experiment: Experiment, models: list[str]) -> str:
    """What is done after Ctrl-C, and how to go on."""
    freshness, planned = Freshness(experiment), stages.plan(experiment, models)
    done = sum(map(freshness.fresh, planned))
    return (
        f"\nStopped by Ctrl-C: {done} of {len(planned)} stages of {experiment.name} are done, and "
        "trainings keep their last checkpoint. The same command goes on from there."
    )


def made(experiment: Experiment) -> list[str]:
    """What there is and where, and which claims it meets, a line each."""
    paths = experiment.paths
    figures = sorted(path.stem for path in paths.figures.glob("*.pdf"))
    tables = sorted(path.stem for path in paths.tables.glob("*.csv"))
    lacking = (records.read(paths.lacking) or {}).get("lacking", [])
    return [
        *([f"Drawn without {len(lacking)} results that are not up to date."] if lacking else []),
        f"Figures   {_short(paths.figures)}: {', '.join(figures) or 'none'}",
        f"Tables    {_short(paths.tables)}: {', '.join(tables) or 'none'}",
        f"Notebooks {_short(paths.results / 'notebooks')}: the executed copies",
        *_claims(experiment),
    ]


def _not_released(experiment: Experiment) -> list[str]:
    """What the authors' release lacks or holds that cannot be used, a line each."""
    found = records.read(experiment.paths.released) or {}
    lines = [
        f"Not available: {kind}, {subject}: {why}"
        for kind, reasons in found.get("missing", {}).items()
        for subject, why in reasons.items()
    ]
    place = _short(experiment.paths.released)
    lines += [
        f"Left out: {len(ids)} abstracts, {why} ({ids[0]}, ...; all in {place})"
        for why, ids in found.get("left_out", {}).items()
    ]
    unexpected = found.get("unexpected_columns", {})
    return lines + [f"Not used: {s}: {', '.join(columns)}" for s, columns in unexpected.items()]


def _claims(experiment: Experiment) -> list[str]:
    """How many claims were met, each that was missed or is undecided, and where the report is."""
    judged = (records.read(experiment.paths.verdicts) or {}).get("claims", [])
    telling = (expectations.MISSED, expectations.UNDECIDED)
    telling = [each for each in judged if each["verdict"] in telling]
    return [
        f"Claims    {claims.total(each['verdict'] for each in judged) if judged else 'none'}",
        *(
            f"  {m['verdict']:10}{m['claim']}: {m['found']}, expected {m['expected']}"
            for m in telling
        ),
        f"Report    {_short(experiment.paths.page)}",
    ]


def _long(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def _short(path: Path) -> str:
    """A path as a person at the repository's root would type it."""
    return os.path.relpath(path) if path.is_relative_to(os.getcwd()) else str(path)
