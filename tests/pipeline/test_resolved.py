"""What `feyntune show` shows."""

import yaml

from feyntune.experiment import load
from feyntune.pipeline import resolved


def test_the_whole_file_has_every_setting_and_is_read_again():
    settings = yaml.safe_load(resolved.whole(load.load("smoke")))
    assert settings["completions"]["abstracts"] == 8, "smoke's own"
    assert settings["training"]["num_train_epochs"] == 4, "demo's"
    assert "s10" in settings["recipes"], "the paper's"


def test_what_differs_is_said_with_where_it_was_set():
    lines = resolved.differences(load.load("smoke"))
    assert "completions.abstracts: null -> 8  (experiments/smoke.yaml)" in lines


def test_a_trial_differs_from_its_experiment():
    trial = load.load("smoke", {"training.learning_rate": "1e-2"}, variant="s4-LoRA-QKV")
    rate, variants = sorted(resolved.differences(trial))
    assert rate.startswith("training.learning_rate: 0.003 -> 0.01  (trial smoke/trials/")
    assert variants.startswith("variants: ") and "s4-LoRA-QKV" in variants


def test_the_schema_asks_for_nothing_and_knows_the_short_forms():
    schema = resolved.schema()
    assert "required" not in schema and "extends" in schema["properties"]
    parts = schema["$defs"]["Recipe"]["properties"]["parts"]["anyOf"]
    assert {"type": "object", "additionalProperties": {"type": "number"}} in parts
