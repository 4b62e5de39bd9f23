"""Adapters on disk: what their configuration says, and which ones do not fit an experiment."""

import json
import shutil

import pytest
import tiny

from feyntune.errors import UserError
from feyntune.models import adapters
from feyntune.paths import Paths


@pytest.fixture
def changed(stand_in, tmp_path, monkeypatch):
    """Put a copy of the adapter, with some of its configuration changed, in its place."""

    def change(**values):
        paths = stand_in.experiment.paths
        folder = shutil.copytree(paths.adapter(tiny.VARIANT), tmp_path / "adapter")
        config = json.loads((folder / adapters.CONFIG).read_text())
        (folder / adapters.CONFIG).write_text(json.dumps(config | values))
        monkeypatch.setattr(Paths, "adapter", lambda self, variant: folder)
        return folder

    return change


def test_the_config_names_base_and_revision(stand_in, tmp_path):
    trainer = stand_in.trainer(tmp_path)
    adapters.save_adapter(
        trainer.model, tmp_path / "adapter", "meta-llama/Meta-Llama-3.1-8B", "c0ffee"
    )
    config = json.loads((tmp_path / "adapter" / adapters.CONFIG).read_text())
    assert config["base_model_name_or_path"] == "meta-llama/Meta-Llama-3.1-8B"
    assert config["revision"] == "c0ffee"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("base_model_name_or_path", "meta-llama/Llama-2-7b", r"base model Llama-2-7b"),
        ("r", 16, r"rank 16; the experiment has 8"),
        ("lora_alpha", 8, r"alpha 8; the experiment has 32"),
        ("target_modules", ["q_proj", "k_proj"], r"target modules k_proj, q_proj"),
    ],
)
def test_an_adapter_of_another_making_is_refused(stand_in, changed, key, value, said):
    adapters.check_adapter(stand_in.experiment, tiny.VARIANT)
    changed(**{key: value})
    with pytest.raises(UserError, match=said):
        adapters.check_adapter(stand_in.experiment, tiny.VARIANT)


def test_another_revision_of_the_base_is_refused(stand_in, changed):
    lora = stand_in.experiment.lora(tiny.VARIANT)
    folder = stand_in.experiment.paths.adapter(tiny.VARIANT)
    adapters.check_adapter_folder(folder, "stand-in", lora)
    adapters.check_adapter_folder(folder, "stand-in", lora, "c0ffee")  # it names none
    other = changed(revision="badf00d")
    with pytest.raises(UserError, match="base model's revision badf00d; the experiment has c0ffee"):
        adapters.check_adapter_folder(other, "stand-in", lora, "c0ffee")


def test_a_configuration_that_cannot_be_read_is_refused(stand_in, changed):
    (changed() / adapters.CONFIG).write_text("{")
    with pytest.raises(UserError, match="holds no adapter that can be read"):
        adapters.check_adapter(stand_in.experiment, tiny.VARIANT)
