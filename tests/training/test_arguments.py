"""Tokenised abstracts, flavours that differ in their target modules alone, and callbacks."""

import inspect
import json
import os
import sys
from types import SimpleNamespace

import pytest
from transformers import TrainerCallback
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

from feyntune.errors import UserError
from feyntune.experiment import load
from feyntune.experiment.sections import SCHEDULES, result_settings
from feyntune.pipeline import notebooks
from feyntune.runs import progress
from feyntune.runs.stages import FINETUNE
from feyntune.training import arguments
from feyntune.training.checkpoints import resume_point
from feyntune.training.log import training_log
from feyntune.training.memory import MemoryPlan

ALL = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
QKV = {"q_proj", "k_proj", "v_proj"}


def lora_config(experiment, variant):
    """LoraConfig as notebook 02 spells it out."""
    training = experiment.variants[variant].training
    return notebooks.executed(FINETUNE, "lora", training=training)["lora"]


def test_flavours_differ_in_their_targets_alone(stand_in, tmp_path):
    demo = load.load("demo")
    names = ("s1-LoRA-all", "s1-LoRA-QKV")
    one, other = (lora_config(demo, name).to_dict() for name in names)
    assert (set(one.pop("target_modules")), set(other.pop("target_modules"))) == (ALL, QKV)
    assert one == other
    first, second = (
        stand_in.trainer(tmp_path, training=demo.training, variant=variant)
        for variant in ("s1-LoRA-all", "s1-LoRA-QKV")
    )
    assert first.args.to_dict() == second.args.to_dict()
    assert list(first.train_dataset["input_ids"]) == list(second.train_dataset["input_ids"])


def test_an_abstract_that_is_too_long_is_named_not_cut(stand_in):
    rows = stand_in.rows("train")
    lengths = [len(ids) for ids in stand_in.tokenised("train")["input_ids"]]
    longest = rows["id"][lengths.index(max(lengths))]
    whole = arguments.tokenised(stand_in.tokenizer, rows, max_tokens=max(lengths))
    assert max(len(ids) for ids in whole["input_ids"]) == max(lengths)
    with pytest.raises(UserError, match=rf"{longest} has {max(lengths)} tokens.*max_length"):
        arguments.tokenised(stand_in.tokenizer, rows, max_tokens=max(lengths) - 1)


def test_every_argument_of_a_flavour_reaches_lora_config():
    own = {"flavours.LoRA-all.rank_pattern": {"q_proj": 4}, "flavours.LoRA-all.use_dora": True}
    made = lora_config(load.with_settings("smoke", own), "s1-LoRA-all")
    assert made.rank_pattern == {"q_proj": 4} and made.use_dora


def test_what_belongs_to_the_machine_is_no_setting_of_a_result(tmp_path):
    """No argument is given twice, and none that moves numbers comes from the machine."""
    training = load.load("smoke").training
    plan = MemoryPlan("nf4", gradient_checkpointing=True, rows=4, padding_free=False)
    given = arguments.of_the_machine(training, plan, tmp_path, "smoke/s1-LoRA-all")
    moving = set(result_settings(training))
    assert not moving & set(given)
    assert given["activation_checkpointing"] and given["output_dir"] == str(tmp_path)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_have_the_arguments_that_transformers_knows(name):
    found = inspect.signature(TYPE_TO_SCHEDULER_FUNCTION[name]).parameters
    always = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
    assert set(found) - always == set(SCHEDULES[name])


# --- callbacks that look on -------------------------------------------------------------------

KEY = {"all": "key"}


class Stopped(Exception):
    pass


class StopAfter(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Stopped


def trainer(stand_in, folder, *callbacks):
    """Eight steps, evaluated before them and after 2, 5 and 8; its log is beside checkpoints."""
    short = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "evaluations": 4}
    training = stand_in.experiment.training.model_copy(update=short)
    train = stand_in.tokenised("train").select(range(13))
    said = arguments.ProgressCallback(folder / "log.jsonl", training.evaluations)
    return stand_in.trainer(
        folder / "checkpoints", training=training, train=train, callbacks=(said, *callbacks)
    )


def assert_as_in_the_table(records: list[dict], log) -> None:
    evaluated = log.dropna(subset="eval_loss")
    assert [record["step"] for record in records] == list(evaluated["step"]) == [0, 2, 5, 8]
    assert [r["validation_loss"] for r in records] == list(evaluated["eval_loss"])
    assert [r["validation_perplexity"] for r in records] == list(evaluated["eval_perplexity"])
    losses = log.set_index("step")["loss"]
    assert records[0]["train_loss"] is None
    for record, first in zip(records[1:], (1, 3, 6), strict=True):
        assert record["train_loss"] == pytest.approx(losses.loc[first : record["step"]].mean())


def test_a_record_for_each_evaluation_agrees_with_the_table(stand_in, tmp_path, capsys):
    run = trainer(stand_in, tmp_path)
    run.train()
    records = progress.read(tmp_path / "log.jsonl")
    assert_as_in_the_table(records, training_log(run.state.log_history))
    assert [r["share"] for r in records] == [0, 0.25, 0.625, 1] and records[-1]["epoch"] == 2
    assert {r["steps"] for r in records} == {8}
    assert records[-1]["learning_rate"] == run.state.log_history[-3]["learning_rate"]
    assert records[-1]["tokens_per_second"] > 0
    # Nothing is known before some steps were taken; at the end there is nothing left.
    assert [r["seconds_left"] for r in records[:2]] == [None, None]
    assert records[2]["seconds_left"] > 0 and records[3]["seconds_left"] == 0
    assert [r["seconds"] for r in records] == sorted(r["seconds"] for r in records)
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if line.startswith("step ")] == list(map(progress.line, records))


def test_a_resumed_run_goes_on_in_the_same_file(stand_in, tmp_path):
    """Killed after step 7, it goes on from step 5; a record after that is not its own."""
    folder, file = tmp_path / "checkpoints", tmp_path / "log.jsonl"
    resume_point(folder, KEY)
    with pytest.raises(Stopped):
        trainer(stand_in, tmp_path, StopAfter(7)).train()
    before = progress.read(file)
    with file.open("a") as more:
        more.write(json.dumps({**before[-1], "step": 8}) + "\n")
    run = trainer(stand_in, tmp_path)
    run.train(resume_from_checkpoint=resume_point(folder, KEY))
    records = progress.read(file)
    assert records[:3] == before and records[3]["seconds"] >= before[-1]["seconds"]
    assert_as_in_the_table(records, training_log(run.state.log_history))


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_what_is_reported_to_gets_the_settings(stand_in, monkeypatch, name):
    kept, ended = {}, []
    config = SimpleNamespace(update=lambda given, allow_val_change: kept.update(given))
    fake = SimpleNamespace(config=config, finish=lambda: ended.append(name))
    monkeypatch.setitem(sys.modules, name, fake)
    for variable in ("TENSORBOARD_LOGGING_DIR", "WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.setenv(variable, "theirs")
    callback = arguments.ReportedSettings(stand_in.experiment, "s1-LoRA-QKV")
    assert os.environ["WANDB_PROJECT"] == os.environ["WANDB_DIR"] == "theirs"
    args = SimpleNamespace(report_to=[name])
    callback.on_train_begin(args, None, None)
    assert kept["training.learning_rate"] == stand_in.experiment.training.learning_rate
    assert kept["training.lora.target_modules"] == ["q_proj", "k_proj", "v_proj"]
    assert kept["seed"] == 42
    callback.on_train_end(args, None, None)
    assert ended == (["wandb"] if name == "wandb" else [])  # trackio's own callback ends it


def test_the_name_of_a_run_reaches_the_library(stand_in, tmp_path):
    training = stand_in.experiment.training.model_copy(update={"report_to": "trackio"})
    args = notebooks.executed(
        FINETUNE,
        "sft-config",
        training=training,
        chosen=stand_in.experiment.variants["s1-LoRA-all"],
        variant="s1-LoRA-all",
        name="smoke/s1-LoRA-all",
        plan=MemoryPlan("nf4", gradient_checkpointing=False, rows=0, padding_free=False),
        paths=SimpleNamespace(checkpoints=lambda _: tmp_path),
    )["sft_config"]
    assert (args.report_to, args.run_name) == (["trackio"], "smoke/s1-LoRA-all")
    assert args.project == "feyntune"
