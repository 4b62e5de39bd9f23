"""The trials of an experiment in one table, ``trials/index.csv``: a row for each trained model."""

from __future__ import annotations

import csv
import json
from typing import Any

from feyntune.experiment import load, trials
from feyntune.experiment.files import remove, writing
from feyntune.paths import Paths
from feyntune.runs import stages

COLUMNS = ("trial", "model", "overrides", "perplexity", "semscore", "date", "commit")
# The stage whose record has a mean, and the fact that it is.
MEANS = {"perplexity": stages.PERPLEXITY, "semscore": stages.COMPLETIONS}


def write(experiment: str) -> None:
    """Write the table anew from the records of all trials; none of them, no table."""
    rows = [row for name in trials.names(experiment) for row in _rows(name)]
    file = Paths(experiment).trials / "index.csv"
    if not rows:
        remove(file)
        return
    with writing(file) as partial, partial.open("w", encoding="utf-8", newline="") as out:
        table = csv.DictWriter(out, COLUMNS)
        table.writeheader()
        table.writerows(rows)


def _rows(name: str) -> list[dict[str, Any]]:
    trial = load.load(name)
    rows = []
    for model in trial.models:
        runs = {mean: stages.run(trial, stage, model) for mean, stage in MEANS.items()}
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
