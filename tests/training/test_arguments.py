"""Tokenised abstracts, and that the two flavours differ in nothing but their target modules."""

import pytest

from feyntune.errors import UserError
from feyntune.experiment import load
from feyntune.experiment.sections import result_settings
from feyntune.pipeline import notebooks
from feyntune.runs.stages import FINETUNE
from feyntune.training import arguments
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
    given = arguments.of_the_machine(training, plan, tmp_path)
    moving = set(result_settings(training))
    assert not moving & set(given)
    assert given["activation_checkpointing"] and given["output_dir"] == str(tmp_path)
