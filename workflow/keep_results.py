"""Commit the results of an experiment with it, in ``experiments/<name>/``.

    ./run_all.sh --experiment small && python workflow/keep_results.py --experiment small

Scores, completions, training logs and run records; no abstract and no weight. Who clones the
repository draws from them without computing, and what is added is computed beside them.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import click
import pandas as pd

from feyntune.errors import UserError
from feyntune.experiment import load
from feyntune.experiment.files import writing
from feyntune.experiment.recipes import MEASURED_ON
from feyntune.runs import freshness, records, stages
from feyntune.runs.dependencies import outside
from feyntune.runs.freshness import FRESH, Freshness
from feyntune.runs.stages import Run

# Outputs that are committed, by role, and their columns that are not. All others are left out:
# abstracts, weights, and what is made from them in seconds.
COMMITTED: dict[str, tuple[str, ...]] = {
    "curation": (),
    f"data/{MEASURED_ON}/test": ("title", "abstract"),
    "log": (),
    "perplexity": (),
    "completions": ("prompt", "truth"),
    "similarity": (),
}


@click.command()
@click.option("--experiment", "name", required=True, metavar="NAME")
def main(name: str) -> None:
    try:
        kept = keep(name)
        click.echo(f"{len(kept)} results of {name} kept in {load.load(name).paths.recorded}.")
    except UserError as error:
        click.echo(f"keep_results: {error}", err=True)
        sys.exit(2)


def keep(name: str) -> list[Path]:
    """Write what is committed of every result that was computed here.

    Raises
    ------
    UserError
        If a result is not fresh.
    """
    experiment = load.load(name)
    look = Freshness(experiment)
    runs = [each for each in stages.plan(experiment) if not each.stage.gathers]
    for each in runs:
        state, why = look.status(each)
        if state != FRESH:
            raise UserError(f"{each} is {state} ({why}): run ./run_all.sh --experiment {name}.")
    changed = look.taken(runs).inputs
    if changed:
        raise UserError(
            f"Committed results of {name} are of another {changed[0]} than is here: with new ones "
            "beside them, models would be compared on different texts. Compute all of them."
        )
    return commit([each for each in runs if not freshness.is_recorded(each.record)])


def commit(runs: list[Run]) -> list[Path]:
    """Write the results of runs where they are committed; return the places of their records."""
    kept = {}
    for each in runs:
        kept |= _outputs(each)
    for each in runs:
        record, reads = each.record, records.files(each.reads)
        outputs = {
            role: _with_kept(state, freshness.place(each, role), kept)
            for role, state in record["outputs"].items()
        }
        inputs = {r: _with_kept(state, reads[r], kept) for r, state in record["inputs"].items()}
        new = {
            **record,
            "recorded": True,
            "outside": outside(each.experiment, each.reads),
            "outputs": outputs,
            "inputs": inputs,
        }
        records.write(freshness.committed(each, each.record_file), new)
    return [freshness.committed(each, each.record_file) for each in runs]


def _outputs(of: Run) -> dict[Path, str]:
    """Write what is committed of a run's outputs; return the hash of each by the output's place."""
    found = {}
    for role, columns in COMMITTED.items():
        if role in of.record["outputs"]:
            place = freshness.place(of, role)
            copy = freshness.committed(of, place)
            with writing(copy) as partial:
                if columns:
                    pd.read_parquet(place).drop(columns=[*columns]).to_parquet(partial)
                else:
                    shutil.copyfile(place, partial)
            found[place] = records.sha256(copy)
    return found


def _with_kept(state: dict[str, Any], file: Path, kept: dict[Path, str]) -> dict[str, Any]:
    """The state of a file, with what is committed in its place if that is something else."""
    return state if kept.get(file) == state["sha256"] else {**state, "kept": kept.get(file)}


if __name__ == "__main__":
    main()
