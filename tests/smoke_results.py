"""A complete run of smoke made of fakes, recorded by the real runner, and changes to it."""

import os
from pathlib import Path

from feyntune.experiment import load
from feyntune.pipeline import runner
from feyntune.runs.freshness import Freshness
from feyntune.runs.stages import (
    COMMERCIAL,
    COMPLETIONS,
    FIGURES,
    FINETUNE,
    HUMAN,
    PERPLEXITY,
    REPORT,
    Run,
    plan,
    run,
)

ALL, QKV = "s1-LoRA-all", "s1-LoRA-QKV"
Job = tuple[str, str | None]
ADAPTED = [(stage, v) for stage in (FINETUNE, PERPLEXITY, COMPLETIONS) for v in (ALL, QKV)]
MEASURED = [(stage, m) for stage in (PERPLEXITY, COMPLETIONS) for m in ("base", ALL, QKV)]
ASKED = [(COMMERCIAL, None)]
DRAWN = [(FIGURES, None), (REPORT, None)]
GATHERED = [(HUMAN, None), *DRAWN]


def smoke(**overrides):
    """The experiment smoke, changed: ``perplexity__tokens_per_batch=64``."""
    return load.with_settings("smoke", {k.replace("__", "."): v for k, v in overrides.items()})


SMOKE = smoke()


def jobs(runs) -> list[Job]:
    return [(each.stage.name, each.subject) for each in runs]


PLAN = jobs(plan(SMOKE))


def at(job: Job, settings=SMOKE) -> Run:
    return run(settings, *job)


def run_all(settings) -> list[Job]:
    """Run every stage in order; return those that had something to do."""
    return jobs(each for each in plan(settings) if runner.run(each) != runner.UP_TO_DATE)


def status(settings, *job) -> tuple[str, str]:
    return Freshness(settings).status(run(settings, *job))


def fresh(settings, *job) -> bool:
    return Freshness(settings).fresh(run(settings, *job))


def not_fresh(settings) -> list[Job]:
    freshness = Freshness(settings)
    return jobs(each for each in plan(settings) if not freshness.fresh(each))


def in_order(*wanted: Job) -> list[Job]:
    return [job for job in PLAN if job in wanted]


def rewrite(file: Path, content: str) -> None:
    """Change a file and, as a slow person would, its time."""
    stat = file.stat()
    file.write_text(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
