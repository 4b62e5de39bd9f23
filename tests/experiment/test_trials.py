"""Trials: what makes one, what it shares, what is refused."""

import pytest

from feyntune.errors import UserError
from feyntune.experiment import load, trials
from feyntune.runs import stages

ALL = "s1-LoRA-all"
HOT = {"training.learning_rate": "1e-2"}


@pytest.fixture(autouse=True)
def output(tmp_path, monkeypatch):
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path))
    return tmp_path


def test_settings_that_move_numbers_make_a_trial(output):
    trial = load.load("smoke", HOT, trial="hot")
    assert trial.name == "smoke/trials/hot" and trial.parent.name == "smoke"
    assert trial.variants[ALL].training.learning_rate == 0.01
    folder = output / "results" / "smoke"
    assert trial.paths.adapter(ALL) == folder / "trials" / "hot" / "finetune" / ALL / "adapter"
    assert trial.paths.figures == folder / "trials" / "hot" / "figures"


def test_what_is_not_changed_is_the_experiments(output):
    trial = load.load("smoke", HOT, trial="hot")
    smoke = load.load("smoke")
    assert trial.paths.split("s1", "train") == smoke.paths.split("s1", "train")
    assert trial.paths.perplexity("base") == smoke.paths.perplexity("base")
    assert trial.paths.perplexity(ALL) != smoke.paths.perplexity(ALL)
    owners = {str(each): each.experiment.name for each in stages.plan(trial)}
    assert owners["01_data_curation"] == owners["03_perplexity-base"] == "smoke"
    assert owners[f"02_finetune-{ALL}"] == owners["07_figures_and_tables"] == trial.name


def test_a_setting_of_completions_leaves_training_and_perplexity_shared():
    trial = load.load("smoke", {"completions.temperature": 0.5})
    assert not trial.owns("finetune", ALL) and not trial.owns("perplexity", ALL)
    assert trial.owns("completions", ALL) and trial.owns("completions", "base")
    assert trial.name == "smoke/trials/temperature=0.5"


def test_settings_that_move_no_number_make_none():
    same = load.load("smoke", {"training.save_total_limit": 5, "resources.models_per_job": 1})
    assert same.name == "smoke" and same.parent is None
    assert same.training.save_total_limit == 5
    with pytest.raises(UserError, match="nothing that moves a number is set"):
        load.load("smoke", {"training.save_total_limit": 5}, trial="x")


def test_a_variant_that_is_not_listed_is_a_trial():
    trial = load.load("smoke", variant="s4-LoRA-QKV")
    assert trial.name == "smoke/trials/s4-LoRA-QKV"
    assert not trial.owns("finetune", ALL) and trial.owns("finetune", "s4-LoRA-QKV")
    with pytest.raises(UserError, match="Unknown model 's99-LoRA-QKV' of experiment smoke"):
        load.load("smoke", variant="s99-LoRA-QKV")


@pytest.mark.parametrize(
    "key", ["data.sample_seed", "base.start", "recipes.s1", "variants", "fetch"]
)
def test_other_data_or_another_base_is_another_experiment(key):
    with pytest.raises(UserError, match="cannot be set for one run: write experiments/"):
        load.load("smoke", {key: 1})


def test_a_trial_is_kept_and_never_changed():
    trials.record(load.load("smoke", HOT, trial="hot", variant="s4-LoRA-all"))
    again = load.load("smoke/trials/hot")
    assert again.overrides == {"training.learning_rate": 0.01}
    assert list(again.variants) == [ALL, "s1-LoRA-QKV", "s4-LoRA-all"]
    assert load.load("smoke", trial="hot").overrides == again.overrides
    with pytest.raises(UserError, match="There is a trial hot already, with"):
        load.load("smoke", {"training.learning_rate": 0.5}, trial="hot")
    assert trials.names("smoke") == ["smoke/trials/hot"]
    assert load.model("smoke/trials/hot/s1-LoRA-all")[0].name == "smoke/trials/hot"


UNMOVED = {
    "training.report_to": "wandb",
    "training.save_total_limit": 5,
    "resources.models_per_job": 1,
    "commercial.parallel": 2,
    "commercial.limits.usd": 0.5,
}


@pytest.mark.parametrize("key", UNMOVED)
@pytest.mark.parametrize("beside", [{}, HOT])
def test_what_moves_no_number_can_be_set_for_a_trial_there_is(key, beside):
    trials.record(load.load("smoke", HOT, trial="hot"))
    again = load.load("smoke", {**beside, key: UNMOVED[key]}, trial="hot")
    assert again.name == "smoke/trials/hot"
    assert again.overrides == {"training.learning_rate": 0.01, key: UNMOVED[key]}
    trials.record(again)  # for the stages, which load the trial by its name
    assert load.load("smoke/trials/hot").overrides == again.overrides
    assert load.load("smoke", HOT, trial="hot").overrides == {"training.learning_rate": 0.01}
    with pytest.raises(UserError, match="There is a trial hot already, with"):
        load.load("smoke", {key: UNMOVED[key], "training.learning_rate": 0.5}, trial="hot")
    with pytest.raises(UserError, match="There is a trial hot already, with"):
        load.load("smoke", {**beside, key: UNMOVED[key], "seed": 7}, trial="hot")


def test_a_part_of_what_a_trial_was_started_with_is_not_the_trial():
    trials.record(load.load("smoke", {**HOT, "completions.temperature": 0.5}, trial="hot"))
    with pytest.raises(UserError, match="There is a trial hot already, with"):
        load.load("smoke", HOT, trial="hot")


def test_a_trial_is_named_by_what_moves_numbers():
    trials.record(load.load("smoke", HOT))
    again = load.load("smoke", HOT | UNMOVED)
    assert again.name == "smoke/trials/learning_rate=0.01"
    assert trials.names("smoke") == [again.name] and again.training.save_total_limit == 5


@pytest.mark.parametrize("name", ["a/b", "../x", " ", "ä b"])
def test_a_name_that_is_no_folders(name):
    with pytest.raises(UserError, match="also a folder's"):
        load.load("smoke", HOT, trial=name)
