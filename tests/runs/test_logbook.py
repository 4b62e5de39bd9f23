"""The table of trials."""

import csv

from smoke_results import ALL, at

from feyntune.experiment import load
from feyntune.pipeline import leftovers, runner
from feyntune.runs import stages


def rows(experiment) -> list[dict]:
    with (experiment.paths.trials / "index.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_model_of_a_trial_has_a_row_until_it_is_removed(output):
    smoke = load.load("smoke")
    hot = load.load("smoke", {"training.learning_rate": 0.01}, trial="hot")
    before = {path: path.read_bytes() for path in smoke.paths.results.rglob("*.json")}
    for stage in (stages.FINETUNE, stages.PERPLEXITY, stages.COMPLETIONS):
        assert runner.run(at((stage, ALL), hot)) == runner.DONE
    (row,) = rows(smoke)
    assert (row["trial"], row["model"]) == ("hot", ALL)
    assert row["overrides"] == '{"training.learning_rate": 0.01}' and row["date"]
    assert {path: path.read_bytes() for path in before} == before, "nothing of smoke is touched"
    leftovers.remove_all(leftovers.find(trials=True, set_aside=False))
    assert not (smoke.paths.trials / "index.csv").exists()
