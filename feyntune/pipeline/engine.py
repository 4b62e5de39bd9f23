"""Runs every stage of an experiment: what ``./run_all.sh`` does once there is an environment.

Which runs have anything to do is decided by the run records. They are divided into jobs, which
Snakemake orders and runs side by side.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path

import click
from filelock import FileLock, Timeout

from feyntune import machine, surroundings
from feyntune.analysis.report import expectations
from feyntune.data.fetch import download
from feyntune.errors import UserError
from feyntune.experiment import trials
from feyntune.experiment.files import remove
from feyntune.experiment.schema import Experiment
from feyntune.experiment.sections import STAND_IN_LAYERS
from feyntune.paths import WORKFLOW, output_root
from feyntune.pipeline import gpus, runner, slurm, summary
from feyntune.runs import progress, recording, records, signals, stages
from feyntune.runs.freshness import FRESH, Freshness, is_recorded, needed_again, take_committed
from feyntune.runs.stages import Run

# Set for jobs: where it says what a run of the workflow has to do.
JOBS_VARIABLE = "FEYNTUNE_JOBS"
# Measured peak of a stage of the stand-in, with room for the runner beside its kernel.
BYTES_PER_JOB = 1.5 * 2**30


def again_in_this_job() -> list[str]:
    """The runs that a job of the engine computes although their results are committed, by name."""
    place = os.environ.get(JOBS_VARIABLE)
    return (records.read(Path(place)) or {}).get("again", []) if place else []


def profiles() -> list[str]:
    """Names of the Snakemake profiles there are."""
    return sorted(path.parent.name for path in WORKFLOW.glob("profiles/*/config.yaml"))


def _profile(name: str) -> Path:
    return WORKFLOW / "profiles" / name


def _on_slurm(settings: dict) -> bool:
    """Whether a profile's jobs are SLURM's, by its settings."""
    return settings.get("executor") == "slurm"


def reproduce(
    experiment: Experiment,
    *,
    models: list[str],
    jobs: int | None,
    profile: str,
    mirror: Path | None,
    snapshot: Path | None = None,
    figures_only: bool,
    dry_run: bool,
    options: list[str],
) -> int:
    """Run what is missing or stale, for ``models``, and close with a summary.

    Returns
    -------
    int
        0 if every stage ran or was fresh, 130 after Ctrl-C, otherwise another.
    """
    paths = experiment.paths
    paths.results.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    expectations.load(experiment.name)  # a mistake in it is said now, not after the last stage
    if figures_only:
        return _figures_only(experiment, dry_run)
    progress.check_reporters(stages.plan(experiment, models))
    settings = slurm.settings_of(_profile(profile))
    if _on_slurm(settings) and not dry_run:
        slurm.check(settings, options)
    try:
        with FileLock(paths.lock, timeout=0):
            if _take_committed(experiment, models):
                _fetch(experiment, mirror, snapshot, dry_run)
            if dry_run:
                click.echo(summary.would_run(_todo(experiment, models)))
                return 0
            trials.record(experiment)
            _take_over(experiment, models)
            status = _run_all(experiment, models, jobs, profile, options)
            failed = _not_fresh(Freshness(experiment), models)
            click.echo(summary.closing(experiment, failed, time.monotonic() - started))
            return status or int(bool(failed))
    except Timeout:
        raise UserError(f"Another run of {experiment.name} is at work: {paths.lock}.") from None
    except KeyboardInterrupt:
        click.echo(summary.interrupted(experiment, models))
        return signals.INTERRUPTED_STATUS


def _run_all(
    experiment: Experiment, models: list[str], jobs: int | None, profile: str, options: list[str]
) -> int:
    """Run what there is to do; return the exit status.

    Beside committed results there may be several rounds: the curation first, as it says whether
    they hold, and last what only then turns out to be stale.
    """
    todo = _todo(experiment, models)
    click.echo(summary.opening(experiment, todo))
    status, several = 0, any(is_recorded(each.record) for each in stages.plan(experiment, models))
    before: list[Run] = []
    while todo and list(todo) != before and status == 0:
        before = list(todo)
        curated = [e for e in todo if e.stage.name in (stages.SNAPSHOT, stages.CURATION)]
        now = curated if several and curated else list(todo)
        status = _snakemake(experiment, now, jobs, profile, options)
        if not several:
            break
        todo = _todo(experiment, models)
    return status


def _fetch(
    experiment: Experiment, mirror: Path | None, snapshot: Path | None, dry_run: bool
) -> None:
    """Bring what is not here yet; with everything in place nothing asks for a network."""
    absent = download.missing(experiment, experiment.outside)
    _check_base(experiment, dry_run)
    if absent and dry_run:
        click.echo(f"Would fetch {', '.join(absent)}.")
        return
    if absent:
        click.echo(f"Experiment {experiment.name}: fetching what it needs from outside.")
        partly = experiment.scores == "released"  # whatever there is is drawn
        download.fetch(
            experiment, experiment.outside, mirror=mirror, snapshot=snapshot, partly=partly
        )
        _check_base(experiment, dry_run)
    _check_snapshot(experiment)


def _check_base(experiment: Experiment, dry_run: bool) -> None:
    """Say at once what notebook 02 would say after the curation; nothing is downloaded to plan."""
    usual = experiment.base.model is None and _usual_flavours(experiment)
    to_be_converted = experiment.unconverted and not experiment.paths.base.is_dir()
    if usual or to_be_converted or experiment.scores != "computed":
        return
    from feyntune.models import suitability  # imports torch, which a stand-in must not wait for

    suitability.check_base(experiment, ask_hub=not dry_run)


def _usual_flavours(experiment: Experiment) -> bool:
    """Whether all flavours are of layers of the stand-in, in words that need no check by PEFT."""
    loras = [variant.training.lora for variant in experiment.variants.values()]
    targets = [lora.target_modules for lora in loras]
    lists = all(isinstance(names, list) and {*names} <= {*STAND_IN_LAYERS} for names in targets)
    usual = {"bias": "none", "init_lora_weights": True}
    plain = all(
        not lora.model_extra and usual.items() <= lora.model_dump().items() for lora in loras
    )
    return lists and plain


def _check_snapshot(experiment: Experiment) -> None:
    """Say at once what the first stage would say after a minute."""
    given = experiment.data.snapshot
    if not given or not stages.STAGES[stages.CURATION].when(experiment):
        return
    path = experiment.snapshot
    kind = "is a folder" if path.is_dir() else "does not exist" if not path.is_file() else None
    kind = kind or (None if path.stat().st_size else "is empty")
    if kind:
        raise UserError(f"The snapshot {given} {kind}; give a file of JSON lines.")


def _not_fresh(freshness: Freshness, models: list[str]) -> list[Run]:
    planned = stages.plan(freshness.experiment, models)
    return [each for each in planned if not freshness.fresh(each)]


def _todo(experiment: Experiment, models: list[str]) -> dict[Run, str]:
    """What has to run, in order, and why."""
    freshness, todo = Freshness(experiment), {}
    for each in stages.plan(experiment, models):
        state, why = freshness.status(each)
        if state != FRESH:
            todo[each] = why
        elif each.stage.gathers and todo:
            # Up to date with the results there are; new results before it make it stale.
            todo[each] = "drawn again from new results"
    needed = dict.fromkeys(needed_again(freshness, todo), "its files are needed, not committed")
    return {each: (todo | needed)[each] for each in _planned(experiment, [*todo, *needed])}


def again(experiment: Experiment, todo: list[Run]) -> list[str]:
    """Which of what is to be run is fresh, being committed, and computed for its files."""
    freshness = Freshness(experiment)
    return [str(e) for e in todo if is_recorded(e.record) and freshness.fresh(e)]


def _planned(experiment: Experiment, runs: list[Run]) -> list[Run]:
    """Some runs in the order of the plan."""
    return [each for each in stages.plan(experiment) if each in runs]


def _take_committed(experiment: Experiment, models: list[str]) -> bool:
    """Take what is committed with the experiment; return whether anything may have to be fetched.

    With committed results alone nothing is computed, and nothing from outside is needed.
    """
    planned = stages.plan(experiment, models)
    take_committed(planned)
    for line in (taken := Freshness(experiment).taken(planned)).lines(experiment):
        click.echo(line)
    computed = [each for each in _todo(experiment, models) if not each.stage.gathers]
    return bool(computed) or not taken.number


def _take_over(experiment: Experiment, models: list[str]) -> None:
    """Copy the results that another experiment has already, before anything is made anew."""
    taken, freshness = [], Freshness(experiment)
    for each in stages.plan(experiment, models):
        ready = all(map(freshness.fresh, each.needs)) and not freshness.fresh(each)
        if ready and recording.take_over(freshness, each):
            taken.append(each)
            freshness = Freshness(experiment)
    if taken:
        donors = sorted({each.record["taken_from"]["experiment"] for each in taken})
        click.echo(f"{len(taken)} results are taken over from {', '.join(donors)}.")


def _figures_only(experiment: Experiment, dry_run: bool) -> int:
    drawing = [each for each in stages.plan(experiment) if each.stage.gathers]
    if dry_run:
        click.echo(f"Would run {', '.join(map(str, drawing))}.")
        return 0
    planned = stages.plan(experiment)
    take_committed(planned)
    for line in Freshness(experiment).taken(planned).lines(experiment):
        click.echo(line)
    did = [what != runner.UP_TO_DATE for _, what in runner.run_together(drawing)]
    text = "Drawn from the results there are." if any(did) else "Figures and report are up to date."
    click.echo("\n".join([text, *summary.made(experiment)]))
    return 0


# --- this machine -----------------------------------------------------------------------------


def _workers(experiment: Experiment, jobs: int | None) -> int:
    """Jobs that run at the same time on this machine."""
    if jobs:
        return jobs
    if there := len(gpus.gpus()):
        return there
    needs = experiment.resources.finetune
    least = BYTES_PER_JOB if experiment.base.model is None else needs.memory_gb * 1e9
    return max(1, min(machine.cores() // needs.cores, int(machine.free_memory() / least)))


# --- Snakemake --------------------------------------------------------------------------------


def _snakemake(
    experiment: Experiment, todo: list[Run], jobs: int | None, profile: str, options: list[str]
) -> int:
    on_slurm = _on_slurm(slurm.settings_of(_profile(profile)))
    workers = None if on_slurm else _workers(experiment, jobs)
    described = _jobs(experiment, todo, workers)
    plan = {
        "again": again(experiment, todo),
        "experiment": experiment.name,
        "overrides": {} if experiment.parent else experiment.overrides,
        "workers": workers,
        "jobs": described,
    }
    records.write(experiment.paths.jobs, plan)
    for job in described:
        remove(output_root() / job["stamp"])
    place, around = _cluster(experiment, jobs) if on_slurm else _machine(experiment, workers)
    command = [
        sys.executable, "-P", "-m", "snakemake_logger_plugin_feyntune",
        "--snakefile", str(WORKFLOW / "Snakefile"),
        "--directory", str(output_root()),
        "--profile", str(_profile(profile).relative_to(WORKFLOW)),  # a pattern for Snakemake
        *place,
        "--config", f"jobs={experiment.paths.jobs}",
        *options,
    ]  # fmt: skip
    environment = {
        **surroundings.ours(),
        # Absolute: stages start in folders of their own, and on other machines.
        "FEYNTUNE_OUTPUT": str(output_root()),
        JOBS_VARIABLE: str(experiment.paths.jobs),
        **({machine.WORKERS_VARIABLE: str(workers)} if workers else {}),
    }
    with around:
        return signals.supervised(command, environment, WORKFLOW)


def _jobs(experiment: Experiment, todo: list[Run], workers: int | None) -> list[dict]:
    """The jobs of a run as the Snakefile wants them: what each runs, and which come before it."""
    parts = stages.shared(todo, workers)
    job_of = {each: str(part[0]) for part in parts for each in part}
    earlier = _seconds(experiment)
    found = []
    for part in parts:
        first, name = part[0], str(part[0])
        gathered = todo[: todo.index(first)] if first.stage.gathers else []
        before = gathered or [earlier for each in part for earlier in each.needs]
        needs = dict.fromkeys(job_of[each] for each in before if each in job_of)
        log = experiment.paths.job_log(name)
        found.append(
            {
                "name": name,
                "stamp": _stamp(experiment, name),
                "after": [_stamp(experiment, other) for other in needs if other != name],
                "log": os.path.relpath(log, output_root()),
                "threads": max(each.threads for each in part),
                "stage": first.stage.name,
                "runs": [_described(each, earlier) for each in part],
            }
        )
    return found


def _seconds(experiment: Experiment) -> dict[str, list[float]]:
    """What earlier runs took, by name, and of each stage also by its name."""
    found: dict[str, list[float]] = {}
    for each in stages.plan(experiment):
        if (seconds := (each.record or {}).get("seconds")) is not None:
            for name in {str(each), each.stage.name}:
                found.setdefault(name, []).append(seconds)
    return found


def _described(of: Run, earlier: dict[str, list[float]]) -> dict:
    """A run as the display of progress wants it; ``seconds`` of before, its own or its stage's."""
    took = earlier.get(str(of)) or earlier.get(of.stage.name)
    seconds = sum(took) / len(took) if took else None
    return {"name": str(of), "stage": of.stage.name, "subject": of.subject, "seconds": seconds}


def _stamp(experiment: Experiment, name: str) -> str:
    """What Snakemake sees of a finished job, relative to the output folder."""
    return os.path.relpath(experiment.paths.job_stamp(name), output_root())


def _machine(experiment: Experiment, workers: int):
    """Options for this machine, whose cores the jobs share."""
    cores = workers * experiment.resources.finetune.cores
    there = len(gpus.gpus())
    # Waiting for a GPU, a stage would keep its cores; without any, none is waited for.
    return [
        "--cores", str(cores), *(["--resources", f"gpu={there}"] if there else [])
    ], contextlib.nullcontext()  # fmt: skip


def _cluster(experiment: Experiment, jobs: int | None):
    """The same for a cluster, where a job has the cores that the experiment asks for."""
    results = experiment.paths.results
    place = ["--slurm-jobname-prefix", slurm.job_prefix(results)]
    return [*place, *(["--jobs", str(jobs)] if jobs else [])], slurm.alone_in_queue(results)
