"""The ``feyntune`` command."""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from feyntune import surroundings
from feyntune.analysis import results
from feyntune.analysis.report import verify as verification
from feyntune.data.fetch import download
from feyntune.errors import UserError, choose
from feyntune.evaluation.grouping import Models
from feyntune.experiment import load as experiments
from feyntune.experiment import trials
from feyntune.experiment.files import from_yaml
from feyntune.experiment.schema import Experiment
from feyntune.pipeline import engine, leftovers, resolved, runner, summary
from feyntune.ratings import means, sheets
from feyntune.runs import progress, signals, stages
from feyntune.runs.freshness import FRESH, Freshness, is_recorded, take_committed


class Command(click.Group):
    """Shows a user's error as one line and names the command that was nearly meant."""

    def main(self, args=None, **settings):
        if args is None:  # started as a process, not called
            surroundings.enter()
        return super().main(args, **settings)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name.startswith("-"):
            return super().get_command(context, name)
        return super().get_command(context, choose("command", name, self.list_commands(context)))

    def invoke(self, context: click.Context):
        try:
            try:
                return super().invoke(context)
            except click.NoSuchOption as error:
                options = [o for p in error.ctx.command.params for o in p.opts if o[0] == "-"]
                choose("option", error.option_name, options)
            except click.UsageError as error:
                raise UserError(error.format_message()) from None
        except UserError as error:
            click.echo(f"feyntune: {error}", err=True)
            preempted = isinstance(error, signals.Preempted)
            context.exit(signals.REQUEUE_STATUS if preempted else 2)


def _complete_experiment(context, parameter, incomplete) -> list[CompletionItem]:
    return [CompletionItem(n) for n in experiments.names() if n.startswith(incomplete)]


with_experiment = click.option(
    "--experiment",
    "name",
    default="demo",
    show_default=True,
    metavar="NAME",
    shell_complete=_complete_experiment,
    help="An experiment: experiments/NAME.yaml.",
)
with_snapshot = click.option(
    "--snapshot",
    metavar="FILE",
    help="Curate this file, in the format of Kaggle's arXiv metadata snapshot, "
    "as experiment NAME-<name of the file>; if NAME lists abstracts by id, take these from it.",
)
with_settings = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of this run: training.learning_rate=1e-2. If it moves numbers, a trial.",
)
with_trial = click.option(
    "--trial", default="", metavar="NAME", help="The trial's name.  [default: what is set]"
)


with_mirror = click.option(
    "--mirror",
    metavar="DIR",
    help="Take outside sources from this folder, laid out as docs/sources-and-mirrors.md says.",
)


@click.group(cls=Command, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """The FeynTune paper artifact: run one stage or all, see what came of it, use the models."""
    signals.heed_interrupts()


def _load(name: str, snapshot: str | None, **trial) -> Experiment:
    """Load an experiment, its like with another snapshot, or a trial of either.

    An experiment that lists its abstracts by id stays itself: a snapshot only holds them.
    """
    if snapshot == "":
        raise UserError("--snapshot needs the name of a file.")
    if snapshot is not None and not experiments.load(name).listed:
        name = experiments.with_snapshot(name, Path(snapshot))
    return experiments.load(name, **trial)


def _holding(experiment: Experiment, snapshot: str | None) -> Path | None:
    """A snapshot to take abstracts from that an experiment lists by id."""
    return Path(snapshot).absolute() if snapshot and experiment.listed else None


def _overrides(settings: Iterable[str]) -> dict[str, Any]:
    """What ``--set`` gave, by dotted key."""
    found = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise UserError(f"--set wants KEY=VALUE, as in training.learning_rate=1e-2: {setting}.")
        found[key.strip()] = from_yaml(value, f"--set {setting}")
    return found


@main.command()
@click.argument("names", nargs=-1, required=True, metavar="STAGE")
@with_experiment
@click.option(
    "--variant",
    "variants",
    multiple=True,
    metavar="V",
    help="A variant, of a stage that runs per variant. Several share a kernel.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="M",
    help="Base or a variant, of a stage that runs per model. Several share one base in memory.",
)
@with_snapshot
@with_settings
@with_trial
@click.option(
    "--anew",
    is_flag=True,
    help="Compute also what is fresh or committed; an interrupted training goes on.",
)
def run(names, name, variants, models, snapshot, settings, trial, anew) -> None:
    """Run one STAGE: a notebook, through papermill.

    Does nothing if its results are fresh; takes those that are committed with the experiment. In
    place of a STAGE several runs may be given, by the names that `feyntune list` shows: they share
    a kernel.
    """
    signals.end_with_owner()
    wanted, overrides = [*variants, *models], _overrides(settings)
    experiment = _load(name, snapshot, overrides=overrides, trial=trial, variant=wanted)
    runs = _runs(experiment, names, variants, models)
    progress.check_reporters(runs)
    started = time.monotonic()
    if engine.JOBS_VARIABLE not in os.environ:  # the engine has taken them
        planned = stages.plan(experiment)
        take_committed(planned)
        for line in Freshness(experiment).taken(planned).lines(experiment):
            click.echo(line, err=True)
    again = engine.again_in_this_job()
    computed = [e for e in runs if anew or (str(e) in again and is_recorded(e.record))]
    for each, what in runner.run_together(runs, anew=computed):
        now = time.monotonic()
        click.echo(f"{each}: {what} ({now - started:.0f} s)", err=True)
        started = now


def _stage_name(given: str) -> str:
    """Also a stage's number (``03``) or its name without the number (``perplexity``)."""
    short = {name.split("_", 1)[0]: name for name in stages.STAGES if name[0].isdigit()}
    short |= {name.split("_", 1)[1]: name for name in short.values()}
    return choose("stage", short.get(given, given), stages.STAGES)


def _runs(experiment, names, variants, models) -> list[stages.Run]:
    planned = {str(each): each for each in stages.plan(experiment)}
    if len(names) == 1 and (variants or models or names[0] not in planned):
        return _of_stage(experiment, stages.STAGES[_stage_name(names[0])], variants, models)
    if variants or models:
        raise UserError("--variant and --model go with one stage.")
    return [planned[choose("run", each, planned)] for each in dict.fromkeys(names)]


def _of_stage(experiment, stage: stages.Stage, variants, models) -> list[stages.Run]:
    given = {"variant": variants, "model": models}
    for option, values in given.items():
        if values and option != stage.per:
            raise UserError(f"{stage.name} runs per {stage.per}; --{option} does not apply to it.")
    if stage.per == "experiment":
        return [stages.run(experiment, stage.name)]
    if not given[stage.per]:
        raise UserError(f"{stage.name} runs per {stage.per}: say which with --{stage.per}.")
    of = f"{stage.per} of experiment {experiment.name}"
    known = stage.subjects(experiment)
    chosen = dict.fromkeys(choose(of, value, known) for value in given[stage.per])
    return [stages.run(experiment, stage.name, subject) for subject in chosen]


@main.command("list")
@with_experiment
@with_snapshot
def list_results(name, snapshot) -> None:
    """List every run: fresh, stale or missing, and why.

    Those of trials come after the experiment's own.
    """
    experiment = _load(name, snapshot)
    freshness = Freshness(experiment)
    planned = stages.plan(experiment)
    click.echo(summary.listed((each, freshness.status(each)) for each in planned))
    for trial in map(experiments.load, trials.names(experiment.name)):
        freshness = Freshness(trial)
        own = [each for each in stages.plan(trial) if each.experiment is trial and each.record]
        click.echo(f"\nTrial {trial.name}: {summary.set_for(trial)}")
        click.echo(summary.listed((each, freshness.status(each)) for each in own))


@main.command()
@click.argument("name", default="demo", metavar="[EXPERIMENT]", shell_complete=_complete_experiment)
@click.option("--diff", is_flag=True, help="What differs from its parent, and where it was set.")
@click.option("--schema", is_flag=True, help="The JSON schema of such a file, for editors.")
def show(name, diff, schema) -> None:
    """Show an EXPERIMENT, or a trial, with all its settings.

    A trial is named as in smoke/trials/hot.
    """
    if schema:
        click.echo(json.dumps(resolved.schema(), indent=1))
        return
    experiment = experiments.load(name)
    found = resolved.differences(experiment) if diff else [resolved.whole(experiment).rstrip()]
    click.echo("\n".join(found))


@main.command()
@click.argument("references", nargs=-1, required=True, metavar="MODEL MODEL ...")
def compare(references) -> None:
    """Put models side by side, with paired differences.

    Each is EXPERIMENT/MODEL or EXPERIMENT/trials/NAME/MODEL. Shown are scores with intervals,
    paired differences from the first, then the settings that differ.
    """
    from feyntune.explore import comparison  # takes seconds that no other command needs

    click.echo(comparison.text(comparison.models(references)))


@main.command()
@click.argument("stage_names", nargs=-1, required=True, metavar="STAGE ...")
@with_experiment
@click.option("--why", required=True, metavar="TEXT", help="Why the change of code changed none.")
def accept(stage_names, name, why) -> None:
    """Keep results whose code changed but not their numbers.

    One result of each STAGE is computed again and compared byte for byte; the report lists what
    was accepted.
    """
    experiment = experiments.load(name)
    for stage in map(_stage_name, stage_names):
        sample, accepted = runner.accept(stages.every(experiment, stage), why)
        click.echo(f"{sample}: computed again, the same bytes. Results accepted: {len(accepted)}.")


@main.command()
@click.option("--trials", is_flag=True, help="Only trials.")
@click.option("--set-aside", is_flag=True, help="Only checkpoints and outputs that were set aside.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def clean(trials, set_aside, yes) -> None:
    """Remove trials and what was set aside, after asking.

    Their sizes are shown first.
    """
    found = leftovers.find(trials=trials or not set_aside, set_aside=set_aside or not trials)
    if not found:
        click.echo("Nothing to remove.")
        return
    for place, size in found.items():
        click.echo(f"{size / 1e6:10.1f} MB  {place}")
    if yes or click.confirm(f"Remove {len(found)} of {sum(found.values()) / 1e6:.1f} MB?"):
        leftovers.remove_all(found)


@main.command()
@with_experiment
@with_mirror
@click.option(
    "--snapshot", metavar="FILE", help="Take abstracts that are listed by id from this file."
)
@click.option("--update", is_flag=True, help="Pin what the sources hold today.")
def fetch(name, mirror, snapshot, update) -> None:
    """Fetch what an experiment needs, pinned and checked."""
    experiment = experiments.load(name)
    if not experiment.outside:
        click.echo(f"Experiment {name} needs nothing from outside.")
        return
    if snapshot is not None and not experiment.listed:
        raise UserError(f"Experiment {name} lists no abstracts by id: --snapshot is for those.")
    download.fetch(
        experiment,
        experiment.outside,
        mirror=_folder(mirror),
        snapshot=_holding(experiment, snapshot),
        update=update,
    )


@main.command()
@with_experiment
@click.option(
    "--variant",
    "variants",
    multiple=True,
    metavar="V",
    help="Only this variant; may be repeated.  [default: all]",
)
@click.option("--to", "owner", required=True, metavar="OWNER", help="A user or organisation.")
@click.option("--push", is_flag=True, help="Do it; otherwise only say what would be pushed.")
@click.option("--public", is_flag=True, help="Make new repositories public.")
def publish(name, variants, owner, push, public) -> None:
    """Show adapters as Hub repositories; --push pushes them."""
    from feyntune.models import publishing

    experiment = experiments.load(name)
    of = f"variant of experiment {name}"
    chosen = [choose(of, v, experiment.variants) for v in variants] or experiment.variants
    _check_fresh_scores(experiment, chosen)
    found = publishing.prepare(experiment, list(chosen), owner)
    click.echo("\n".join(publishing.show(publication) for publication in found))
    if push:
        publishing.push(found, private=not public, report=click.echo)
    else:
        click.echo("Nothing was pushed: --push does it.")


def _check_fresh_scores(experiment: Experiment, variants) -> None:
    """A card must not speak of another run than the adapter's, or of another adapter's scores."""
    freshness = Freshness(experiment)
    for variant in variants:
        training = stages.run(experiment, stages.FINETUNE, variant)
        trained, why = freshness.status(training)
        if trained != FRESH:
            raise UserError(f"{training} is {trained} ({why}): run it again.")
        measuring = stages.run(experiment, stages.PERPLEXITY, variant)
        measured, why = freshness.status(measuring)
        if measured != FRESH and experiment.paths.perplexity(variant).is_file():
            raise UserError(
                f"{measuring} is {measured} ({why}): run it again, or remove its result."
            )


@main.command()
@click.option(
    "--model",
    "given",
    required=True,
    metavar="EXPERIMENT/MODEL",
    help="demo/base, demo/s1-LoRA-all, smoke/trials/hot/s1-LoRA-all.",
)
@click.argument("file", type=click.File(encoding="utf-8"), default="-", metavar="[FILE]")
def complete(given, file) -> None:
    """Continue a text of your own, as notebook 04 does.

    All of the FILE, or of the standard input, is the prompt: give the beginning of an abstract.
    Line breaks count as blanks. The completion alone is written to the standard output.
    """
    experiment, model = experiments.model(given)
    try:
        text = file.read()
    except UnicodeDecodeError:
        raise UserError(f"{file.name} is no text in UTF-8.") from None
    # These take seconds that no other command needs.
    from transformers.utils import logging

    from feyntune.explore.session import Session

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)  # of libraries, to each other
    completion = Session(experiment).continuation(text, model)
    if experiment.stand_in:
        click.echo(f"feyntune: {experiment.name} has a {experiment.stand_in}.", err=True)
    click.echo(completion)


def _folder(mirror: str | None) -> Path | None:
    if mirror is None:
        return None
    if not mirror or not Path(mirror).is_dir():
        raise UserError(f"The mirror {mirror!r} is no folder.")
    return Path(mirror).resolve()


@main.command()
@with_experiment
@with_mirror
def verify(name, mirror) -> None:
    """Recheck every recorded hash and every claim.

    Exit status 1 if anything differs.
    """
    experiment = experiments.load(name)
    # What was taken before is checked as it lies there.
    take_committed([each for each in stages.plan(experiment) if each.record is None])
    findings = verification.verify(experiment, mirror=_folder(mirror), report=click.echo)
    for finding in findings:
        click.echo(f"{finding.state:11} {finding.text}")
    count = Counter(finding.state for finding in findings)
    click.echo(
        f"{count[verification.OK] + count[verification.WRONG]} checked, "
        f"{count[verification.WRONG]} differ, {count[verification.UNCHECKED]} could not be checked."
    )
    sys.exit(int(count[verification.WRONG] > 0))


@main.command("ratings-sheet")
@with_experiment
@click.option("--raters", metavar="R,R", help="Initials or names, a sheet for each.")
@click.option("--systems", metavar="S,S", help="Whose completions are rated: base, variants.")
@click.option("--shared", type=click.IntRange(min=0), help="Papers that every rater gets.")
@click.option("--own", type=click.IntRange(min=0), help="More papers for each rater alone.")
@click.option("--paper", "papers", metavar="ID", multiple=True, help="A paper for every rater.")
@click.option("--seed", type=click.IntRange(min=0), help="Of the papers and of every order.")
@click.option("--output", metavar="DIR", help="Where to.  [default: results/NAME/rating-sheets]")
def ratings_sheet(name, raters, systems, shared, own, papers, seed, output) -> None:
    """Make blinded rating sheets and their key.

    Each rater gets a page and a CSV. What is not given stands in the experiment, under
    human_evaluation.
    """
    given = {
        "raters": raters and [each.strip() for each in raters.split(",")],
        "systems": systems and [each.strip() for each in systems.split(",")],
        "shared_papers": shared,
        "own_papers": own,
        "seed": seed,
    }
    overrides = {f"human_evaluation.{k}": value for k, value in given.items() if value is not None}
    experiment = experiments.with_settings(name, overrides)
    found = results.load(experiment, stages.HUMAN)
    apart = experiment.real_providers
    completions = sheets.texts_to_rate(found.completions, found.commercial, apart)
    names = means.names_with(Models.of(experiment))
    items = sheets.make(completions, experiment.human_evaluation, papers, names)
    folder = Path(output) if output else experiment.paths.rating_sheets
    key, *files = sheets.write(items, folder, experiment.stand_in, names)
    for file in files:
        click.echo(f"for a rater  {file}")
    click.echo(f"for you      {key} (whose each completion is: no rater may see it)")
    for provider in [each for each in found.commercial if each in apart]:
        click.echo(f"not on the sheets: {provider} ({apart[provider]})")
    for row in sheets.revealing(items).itertuples():
        click.echo(f"may give itself away: {row.code} of {row.system}, by the word {row.word!r}")


@main.command(context_settings={"ignore_unknown_options": False})
@with_experiment
@click.option(
    "--variants",
    metavar="V,V",
    help="Only these variants (and base); one that the experiment does not list is a trial.",
)
@with_settings
@with_trial
@with_snapshot
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Stages run at the same time; threads are divided among them.  [default: what fits]",
)
@click.option(
    "--profile", default="local", show_default=True, metavar="NAME", help="This machine, or slurm."
)
@with_mirror
@click.option("--figures-only", is_flag=True, help="Only draw, from the results there are.")
@click.option("--dry-run", is_flag=True, help="Say what would run, and run nothing.")
@click.argument("snakemake", nargs=-1, type=click.UNPROCESSED, metavar="[-- SNAKEMAKE OPTIONS]")
def reproduce(
    name,
    variants,
    settings,
    trial,
    snapshot,
    jobs,
    profile,
    mirror,
    figures_only,
    dry_run,
    snakemake,
) -> None:
    """Run everything: all figures and tables (./run_all.sh)."""
    if snakemake and not snakemake[0].startswith("-"):
        raise UserError(
            f"What is {snakemake[0]!r}? An experiment is given with --experiment; "
            "options of Snakemake follow after --."
        )
    wanted = [v.strip() for v in variants.split(",")] if variants is not None else []
    overrides = _overrides(settings)
    experiment = _load(name, snapshot, overrides=overrides, trial=trial, variant=wanted)
    chosen = [m for m in experiment.models if m == stages.BASE or m in wanted or not wanted]
    sys.exit(
        engine.reproduce(
            experiment,
            models=chosen,
            jobs=jobs,
            profile=choose("profile", profile, engine.profiles()),
            mirror=_folder(mirror),
            snapshot=_holding(experiment, snapshot),
            figures_only=figures_only,
            dry_run=dry_run,
            options=list(snakemake),
        )
    )
