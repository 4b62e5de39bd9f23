"""Recording a run: by the runner, by a notebook run by hand, by taking results over.

A record is written last. It holds the key that was taken before the run, and the outputs that the
run wrote, so results are never recorded under settings that did not make them. Trials stand in a
table, too.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from feyntune import surroundings
from feyntune.errors import UserError
from feyntune.experiment import load, trials
from feyntune.experiment.files import remove, writing
from feyntune.experiment.schema import Experiment
from feyntune.paths import Paths, output_root
from feyntune.runs import code, records
from feyntune.runs.dependencies import without_secrets
from feyntune.runs.freshness import (
    FRESH,
    Freshness,
    is_recorded,
    lacking,
    places,
    set_aside,
    take_committed,
)
from feyntune.runs.stages import COMPLETIONS, FIGURES, PERPLEXITY, Run, plan, run


def check_inputs(freshness: Freshness, of: Run) -> None:
    """Refuse to run a stage whose inputs are not fresh.

    Raises
    ------
    UserError
        It names the run that has to come first, and its command.
    """
    # Drawn from whatever is fresh; without the first of them there is nothing.
    for earlier in of.needs[:1] if of.stage.gathers else of.needs:
        state, why = freshness.status(earlier)
        if state != FRESH:
            raise _comes_first(of, earlier, f"which is {state} ({why})", earlier.command)
    for earlier in lacking(of):
        why = "of which not all files are committed with the experiment"
        raise _comes_first(of, earlier, why, f"{earlier.command} --anew")


def _comes_first(of: Run, earlier: Run, why: str, command: str) -> UserError:
    return UserError(
        f"{of} needs {earlier}, {why}. Run {command} first, or ./run_all.sh --experiment "
        f"{earlier.experiment.name} for all."
    )


class Recording:
    """One run from its start, when its key is taken, to its end, when its record is written.

    Only what was written in between is recorded: an output that an earlier run left, under other
    settings perhaps, is set aside instead.
    """

    def __init__(self, of: Run):
        freshness = Freshness(of.experiment)
        check_inputs(freshness, of)
        trials.record(of.experiment)
        if of.stage.name == FIGURES:
            _name_lacking(freshness)
        self.run, self.parts = of, freshness.parts(of)
        self.started, self._clock = datetime.now(UTC), time.monotonic()
        self._before = {role: _version(file) for role, file in records.files(of.writes).items()}

    def finish(self, **facts: float | int | str) -> None:
        """Write the record, and beside it the experiment with all that it extends and overrides.

        Raises
        ------
        UserError
            If an output was not written.
        """
        of, peak = self.run, facts.pop("peak_memory_bytes", None)
        now = records.files(of.writes)
        old = {role: f for role, f in now.items() if self._before.get(role) == _version(f)}
        written = {f"{role}/" for role in now if role not in old}
        missing = [
            place.name
            for role, place in of.writes.items()
            if role not in of.stage.optional
            and not any(each.startswith(f"{role}/") for each in written)
        ]
        if missing:
            raise UserError(f"{of} ended without writing {', '.join(missing)}.")
        for role, file in old.items():
            if not role.startswith(of.stage.keeps):
                place = set_aside(of, role, file)
                print(f"{of} did not write {role}: what was there is set aside in {place}.")
        record = {
            "experiment": of.experiment.name,
            "stage": of.stage.name,
            "subject": of.subject,
            "stand_in": of.experiment.stand_in,
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self._clock, 2),
            "threads": of.threads,
            "peak_memory_bytes": peak,
            "facts": facts,
            "seed": of.seed,
            **self.parts,
            **_outputs(of),
            **records.surroundings(),
        }
        with writing(of.record_file.with_suffix(".yaml")) as partial:
            resolved = without_secrets(of.experiment.model_dump(mode="json"))
            text = yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)
            partial.write_text(text, encoding="utf-8")
        records.write(of.record_file, record)
        if of.experiment.parent:
            write_trials(of.experiment.parent.name)


def _name_lacking(freshness: Freshness) -> None:
    """Write which models' results are lacking, by which figures and tables find their place."""
    planned = plan(freshness.experiment)
    lacking = [str(each) for each in planned if each.subject and not freshness.fresh(each)]
    paths = freshness.experiment.paths
    if lacking:
        records.write(paths.lacking, {"lacking": lacking})
    else:
        remove(paths.partial)  # overtaken by the figures that are drawn now


def _version(file: Path) -> tuple[int, int]:
    stat = file.stat(follow_symlinks=False)
    return stat.st_ino, stat.st_mtime_ns


def _outputs(of: Run) -> dict[str, Any]:
    """The outputs of a run as its record has them: states, and where they are."""
    relative = {
        role: place.relative_to(output_root()).as_posix() for role, place in of.writes.items()
    }
    return {"outputs": records.states(of.writes), "places": relative}


class _Facts:
    """Within a run that the runner records: leaves it the facts alone.

    Attributes
    ----------
    fresh
        The runner makes nothing that is fresh.
    folder
        Where the executed notebook will be.
    """

    fresh = False
    finish = staticmethod(records.note)

    def __init__(self, of: Run):
        self.folder = of.notebook.parent


class _ByHand(Recording):
    """A notebook run by hand, in Jupyter: recorded if its cells ran as they are saved.

    Attributes
    ----------
    fresh
        Whether the result is there already: notebooks 02 to 04 show it then, as it was recorded,
        and compute nothing in its place.
    folder
        Where the notebook is.
    """

    def __init__(self, of: Run):
        surroundings.set_aside()
        if of.stage.gathers:
            take_committed(plan(of.experiment))
        super().__init__(of)
        # A recorded training has no adapter to show.
        self.fresh = Freshness(of.experiment).fresh(of) and not is_recorded(of.record)
        self.folder = Path.cwd()
        _use_threads(of.threads)

    @property
    def as_recorded(self) -> str:
        """What a notebook says of a fresh result, and how to compute it anew."""
        record = self.run.record_file.relative_to(output_root())
        other = "Other `overrides` and `trial`" if self.run.experiment.parent else "`overrides`"
        return (
            f"Fresh: shown as recorded, not computed again. {other} in the parameters above make "
            f"a trial, kept apart; to compute this very result anew, remove {record}."
        )

    def finish(self, **facts: float | int | str) -> None:
        differing = code.cells_not_run(self.run.stage.name)
        if differing:
            print(
                f"Not recorded: {differing} cells of notebooks/{self.run.stage.name}.ipynb did not "
                "run as they are saved. Save the notebook and run all its cells."
            )
            return
        super().finish(**facts, peak_memory_bytes=records.peak_memory())
        print(f"Recorded as {self.run}.")


def begin(experiment: Experiment, stage: str, subject: str | None = None) -> Recording | _Facts:
    """Begin a stage in its notebook: the runner records it, or, run by hand, the notebook does.

    Raises
    ------
    UserError
        If it is run by hand and its inputs are not fresh.
    """
    of = run(experiment, stage, subject)
    return _Facts(of) if os.environ.get(records.FACTS_VARIABLE) else _ByHand(of)


def _use_threads(number: int) -> None:
    """As many threads as the runner would give, for the same digits."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(number)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(number)


def take_over(freshness: Freshness, of: Run) -> bool:
    """Copy the results of another run with the same key, of whatever experiment, if there are any.

    Returns
    -------
    bool
        Whether there were. The copies do not depend on the run that they come from.
    """
    record = freshness.donor(of)
    if record is None:
        return False
    theirs = places(record)
    trials.record(of.experiment)
    for role, place in of.writes.items():
        with writing(place) as partial:
            if theirs[role].is_dir():
                shutil.copytree(theirs[role], partial)
            else:
                shutil.copy2(theirs[role], partial)
    before = record.get("taken_from", {})
    own = {
        **record,
        "experiment": of.experiment.name,
        "subject": of.subject,
        **freshness.parts(of),
        **_outputs(of),
        "taken_from": {
            "experiment": before.get("experiment", record["experiment"]),
            "subject": before.get("subject", record["subject"]),
        },
    }
    records.write(of.record_file, own)
    return True


def accept(of: Run, now: dict[str, Any], accepted: dict[str, Any]) -> None:
    """Record a result as one of today's code, with why that is right."""
    record = of.record
    earlier = record.get("accepted", [])
    records.write(of.record_file, {**record, **now, "accepted": [*earlier, accepted]})


# --- the trials of an experiment in one table -------------------------------------------------

TRIAL_COLUMNS = ("trial", "model", "overrides", "perplexity", "semscore", "date", "commit")
# The stage whose record has a mean, and the fact that it is.
MEANS = {"perplexity": PERPLEXITY, "semscore": COMPLETIONS}


def write_trials(experiment: str) -> None:
    """Write ``trials/index.csv``, a row for each trained model; without trials there is none."""
    rows = [row for name in trials.names(experiment) for row in _trial_rows(name)]
    file = Paths(experiment).trials / "index.csv"
    if not rows:
        remove(file)
        return
    with writing(file) as partial, partial.open("w", encoding="utf-8", newline="") as out:
        table = csv.DictWriter(out, TRIAL_COLUMNS)
        table.writeheader()
        table.writerows(rows)


def _trial_rows(name: str) -> list[dict[str, Any]]:
    trial = load.load(name)
    rows = []
    for model in trial.models:
        runs = {mean: run(trial, stage, model) for mean, stage in MEANS.items()}
        found = {
            mean: each.record
            for mean, each in runs.items()
            if each.experiment is trial and each.record
        }
        if found:
            last = max(found.values(), key=lambda record: record["started"])
            rows.append(
                {
                    "trial": trials.split_name(name)[1],
                    "model": model,
                    "overrides": json.dumps(trial.overrides),
                    **{mean: record["facts"].get(mean, "") for mean, record in found.items()},
                    "date": last["started"],
                    "commit": last["commit"],
                }
            )
    return rows
