"""Tokenised abstracts, and that the two flavours differ in nothing but their target modules."""

import inspect

import pytest
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

from feyntune.errors import UserError
from feyntune.experiment import load
from feyntune.experiment.sections import SCHEDULES
from feyntune.training import arguments

ALL = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
QKV = {"q_proj", "k_proj", "v_proj"}


def test_flavours_differ_in_their_targets_alone(stand_in, tmp_path):
    demo = load.load("demo")
    names = ("s1-LoRA-all", "s1-LoRA-QKV")
    one, other = (arguments.lora_config(demo.lora(name)).to_dict() for name in names)
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


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_have_the_arguments_that_transformers_knows(name):
    found = inspect.signature(TYPE_TO_SCHEDULER_FUNCTION[name]).parameters
    always = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
    assert set(found) - always == set(SCHEDULES[name])
