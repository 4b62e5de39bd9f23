"""Runs every stage of an experiment: what ``./run_all.sh`` does once there is an environment.

Snakemake orders the stages and runs them side by side. Which of them have anything to do is
decided by the run records (`survey`), and told to Snakemake.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import psutil
from filelock import FileLock, Timeout

from feyntune.analysis.report import expectations
from feyntune.data.fetch import download
from feyntune.errors import UserError
from feyntune.experiment.files import remove
from feyntune.experiment.schema import Experiment
from feyntune.paths import REPOSITORY, WORKFLOW, named, output_root
from feyntune.pipeline import gpus as machine
from feyntune.pipeline import notebooks, runner, slurm, summary, warm
from feyntune.runs import stages
from feyntune.runs.freshness import Survey
from feyntune.runs.stages import Job

CONTROL_GROUP = Path("/sys/fs/cgroup")
# Measured peak of a stage of the stand-in, with room for the runner beside its kernel.
BYTES_PER_JOB = 1.5 * 2**30
# Warming up costs about as much as starting so many stages cold.
FEW_STAGES = 3


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
    figures_only: bool,
    dry_run: bool,
    options: list[str],
) -> int:
    """Run what is missing or stale, for ``models``, and close with a summary.

    Returns
    -------
    int
        0 if every stage ran or was fresh, otherwise not.
    """
    paths = experiment.paths
    paths.results.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    expectations.load(experiment.name)  # a mistake in it is said now, not after the last stage
    if figures_only:
        return _figures_only(experiment, dry_run)
    settings = slurm.settings_of(_profile(profile))
    if not _on_slurm(settings):
        _check_gpus(experiment)
    elif not dry_run:
        slurm.check(settings, options)
    try:
        with FileLock(paths.lock, timeout=0):
            _fetch(experiment, mirror, dry_run)
            todo = _todo(experiment, models)
            click.echo(summary.opening(experiment, todo))
            status = 0
            if todo or options:
                status = _snakemake(experiment, todo, models, jobs, profile, dry_run, options)
            if dry_run:
                return status
            failed = _not_fresh(experiment, models)
            click.echo(summary.closing(experiment, failed, time.monotonic() - started))
            return status or int(bool(failed))
    except Timeout:
        raise UserError(f"Another run of {experiment.name} is at work: {paths.lock}.") from None


def _fetch(experiment: Experiment, mirror: Path | None, dry_run: bool) -> None:
    """Bring what is not here yet; with everything in place nothing asks for a network."""
    absent = download.missing(experiment, experiment.sources)
    if absent and dry_run:
        click.echo(f"Would fetch {', '.join(absent)}.")
        return
    if absent:
        click.echo(f"Experiment {experiment.name}: fetching what it needs from outside.")
        download.fetch(experiment, experiment.sources, mirror=mirror)
    _check_snapshot(experiment)


def _check_gpus(experiment: Experiment) -> None:
    """Refuse what Snakemake would wait for, or refuse in its own words, after hours."""
    there, asked = len(machine.gpus()), experiment.resources.finetune.gpus
    if there and asked > there:
        raise UserError(
            f"Every variant asks for {asked} GPUs (resources.finetune.gpus), {there} exist on this "
            f"machine: ask for at most {there}."
        )


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


def _not_fresh(experiment: Experiment, models: list[str]) -> list[Job]:
    survey = Survey(experiment)
    return [job for job in stages.plan(experiment, models) if not survey.fresh(*job)]


def _todo(experiment: Experiment, models: list[str]) -> list[Job]:
    todo = _not_fresh(experiment, models)
    for job in stages.gathering(experiment):
        # Up to date with the results there are; new results before it make it stale.
        if job not in todo and any(each in _before(experiment, job) for each in todo):
            todo.append(job)
    return todo


def _before(experiment: Experiment, job: Job) -> list[Job]:
    planned = stages.plan(experiment)
    return planned[: planned.index(job)]


def _figures_only(experiment: Experiment, dry_run: bool) -> int:
    drawing = stages.gathering(experiment)
    if dry_run:
        click.echo(f"Would run {', '.join(named(*job) for job in drawing)}.")
        return 0
    did = [runner.run(experiment, *job, threads=1) for job in drawing]
    text = "Drawn from the results there are." if any(did) else "Figures and report are up to date."
    click.echo("\n".join([text, *summary.made(experiment)]))
    return 0


def _cores() -> int:
    """Processors this process may use: by affinity, and by a container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _control_group("cpu.max").split()
    allowed = int(quota[0]) // int(quota[1]) if len(quota) == 2 and quota[0] != "max" else cores
    return max(1, min(cores, allowed))


def _memory() -> int:
    """Bytes that are free here, or that a container leaves of its limit."""
    free = psutil.virtual_memory().available
    limit, used = _control_group("memory.max"), _control_group("memory.current")
    return min(free, int(limit) - int(used)) if limit.isdigit() and used.isdigit() else free


def _control_group(name: str) -> str:
    """A limit of the container that this runs in (Linux, version 2), or nothing."""
    try:
        return (CONTROL_GROUP / name).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _snakemake(experiment, todo, models, jobs, profile, dry_run, options) -> int:
    on_slurm = _on_slurm(slurm.settings_of(_profile(profile)))
    where, gpus = (_cluster, 0) if on_slurm else (_machine, len(machine.gpus()))
    place, config, around = where(experiment, len(todo), jobs, dry_run)
    stamps = _stamps(experiment, todo, stages.shares(experiment, models, gpus))
    for stamp in [] if dry_run else stamps:
        remove(stamp)
    command = [
        sys.executable, "-m", "snakemake",
        "--snakefile", str(WORKFLOW / "Snakefile"),
        "--directory", str(output_root()),
        "--profile", str(_profile(profile)),
        *place,
        "--config", f"experiment={experiment.name}", f"models={','.join(models)}", f"gpus={gpus}",
        *config,
        *(["--dry-run"] if dry_run else []),
        *(["--forcerun", *map(_relative, stamps)] if dry_run and stamps else []),
        *options,
    ]  # fmt: skip
    # The plugin that shows progress lives beside the Snakefile.
    search = [str(WORKFLOW), str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, search)),
        # Absolute: stages start in folders of their own, and on other machines.
        "FEYNTUNE_OUTPUT": str(output_root()),
    }
    with around as variables:
        return subprocess.run(
            command, env={**environment, **variables}, preexec_fn=_end_with_parent
        ).returncode


def _stamps(experiment: Experiment, todo: list[Job], shares: dict[str, list[str]]) -> list[Path]:
    """What Snakemake would take for done: the stamps of stages, and of jobs that run several."""
    jobs = dict.fromkeys(
        (stage, stages.share_of(shares, stage, subject)) for stage, subject in todo
    )
    return [experiment.paths.stamp(*job) for job in jobs]


def _machine(experiment: Experiment, stages_to_run: int, jobs: int | None, dry_run: bool):
    """Options and configuration for this machine, whose cores the jobs share; what goes around."""
    cores, gpus = _cores(), len(machine.gpus())
    jobs = jobs or max(1, min(cores, int(_memory() / BYTES_PER_JOB)))
    threads = max(1, cores // jobs)
    around = _warm(experiment, stages_to_run, threads, dry_run)
    place = ["--cores", str(jobs * threads)]
    # Waiting for a GPU, a stage would keep its cores; without any, none is waited for.
    place += ["--resources", f"gpu={gpus}"] if gpus else []
    return place, [f"threads={threads}"], around


def _cluster(experiment: Experiment, stages_to_run: int, jobs: int | None, dry_run: bool):
    """The same for a cluster, where a job has the cores that the experiment asks for."""
    results = experiment.paths.results
    place = ["--slurm-jobname-prefix", slurm.job_prefix(results)]
    place += ["--jobs", str(jobs)] if jobs else []
    around = contextlib.nullcontext({}) if dry_run else slurm.alone_in_queue(results)
    return place, [], around


def _warm(experiment: Experiment, stages_to_run: int, threads: int, dry_run: bool):
    """The warm process, where it is safe and saves more than it costs."""
    pays = stages_to_run > FEW_STAGES and threads == 1 and experiment.base.model is None
    if dry_run or not pays or not warm.usable():
        return contextlib.nullcontext({})
    log = experiment.paths.stage_log("warm", None)
    return warm.server({**os.environ, **notebooks.quiet(threads, offline=True)}, log)


def _relative(path: Path) -> str:
    """As the Snakefile names it."""
    return os.path.relpath(path, output_root())


def _end_with_parent() -> None:
    """On Linux, let Snakemake be killed when this process is, and with it its jobs.

    Not terminated: Snakemake would wait for its running jobs, beside whatever is started next.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
