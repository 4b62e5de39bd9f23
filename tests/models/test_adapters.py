"""Adapters on disk: what their configuration says, and which ones do not fit an experiment."""

import json
import shutil

import documents
import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from feyntune.errors import UserError
from feyntune.experiment import load
from feyntune.experiment.recipes import BASE
from feyntune.experiment.sections import STAND_IN_LAYERS
from feyntune.models import adapters
from feyntune.models.architecture import check_lora_arguments
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
        ("use_rslora", True, r"use_rslora True; the experiment has none"),
        ("alpha_pattern", {"q_proj": 64}, r"alpha_pattern {'q_proj': 64}"),
        ("layers_to_transform", [0], r"layers_to_transform 0; the experiment has none"),
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


def test_the_lines_of_the_readme_load_an_adapter(stand_in, monkeypatch):
    """With the numbers of our own loader; merged, too."""
    monkeypatch.chdir(stand_in.output)
    (block,) = documents.blocks("python", pages=[documents.README])
    found = {}
    exec(block.text, found)
    ours = adapters.load_model(stand_in.experiment, tiny.VARIANT, dtype="float32")
    given = found["tokenizer"]("We study strings", return_tensors="pt")
    logits = found["model"](**given).logits
    assert torch.equal(logits, ours(**given).logits)
    assert not torch.equal(logits, stand_in.base()(**given).logits)
    merged = found["model"].merge_and_unload()
    torch.testing.assert_close(merged(**given).logits, logits, rtol=1e-4, atol=1e-4)


SEVEN = list(STAND_IN_LAYERS)
FLAVOURS = {
    "LoRA": {"target_modules": SEVEN},
    "DoRA": {"target_modules": SEVEN, "use_dora": True},
    "rsLoRA": {"target_modules": SEVEN, "use_rslora": True},
    "rank": {"target_modules": SEVEN, "r": 3, "lora_alpha": 5, "lora_dropout": 0.3},
    "patterns": {"target_modules": SEVEN, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"k": 7}},
    "gaussian": {"target_modules": SEVEN, "init_lora_weights": "gaussian"},
    "random": {"target_modules": SEVEN, "init_lora_weights": False},
    "lora-bias": {"target_modules": SEVEN, "lora_bias": True},
    "one-layer": {"target_modules": SEVEN, "layers_to_transform": [1]},
    "all-linear": {"target_modules": "all-linear"},
    "but-one": {"target_modules": "all-linear", "exclude_modules": ["o_proj"]},
    "expression": {"target_modules": r".*\.[qv]_proj", "use_dora": True},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
}


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_saved_adapter_is_the_trained_model(stand_in, tmp_path, monkeypatch, flavour):
    """To the bit, whatever the flavour, on a fresh base; which is as before without it."""
    mine = {"flavours.mine": FLAVOURS[flavour], "variants": ["s1-mine"]}
    settings = load.with_settings("smoke", tiny.OVERRIDES | mine)
    check_lora_arguments(settings.lora("s1-mine").arguments)
    few = stand_in.tokenised("train").select(range(8))
    trainer = tiny.StandIn(settings, stand_in.output).trainer(
        tmp_path / "run", variant="s1-mine", train=few, validation=few
    )
    trainer.train()
    monkeypatch.setattr(Paths, "adapter", lambda self, variant: tmp_path / "adapter")
    adapters.save_adapter(trainer.model, settings.paths.adapter("s1-mine"), "stand-in")
    given = {"input_ids": torch.tensor([few[0]["input_ids"]])}
    base = stand_in.base(quantized=True)
    with torch.no_grad():
        trained = trainer.model.eval()(**given).logits
        before = base(**given).logits
        loaded = adapters.attach_adapter(base, settings, "s1-mine")(**given).logits
        adapters.detach_adapter(base)
        after = base(**given).logits
    assert torch.equal(trained, loaded) and not torch.equal(trained, before)
    assert torch.equal(before, after)


def test_a_regular_expression_of_target_modules_is_kept(stand_in, tmp_path):
    lora = LoraConfig(task_type="CAUSAL_LM", target_modules=r".*\.[qv]_proj")
    adapters.save_adapter(get_peft_model(stand_in.base(), lora), tmp_path, "any")
    config = json.loads((tmp_path / adapters.CONFIG).read_text())
    assert config["target_modules"] == r".*\.[qv]_proj"


@pytest.mark.parametrize("base", ["stand-in/", "owner/stand-in", r"C:\models\stand-in",
                                  "/hub/models--owner--stand-in/snapshots/c0ffee"])  # fmt: skip
def test_the_base_model_is_known_by_its_name_wherever_it_was(stand_in, changed, base):
    changed(base_model_name_or_path=base)
    adapters.check_adapter(stand_in.experiment, tiny.VARIANT)


def moved(name: str) -> str:
    return name.replace("base_model.model", "base_model.model.base_model.model")


def first_infinite(tensors):
    tensors[min(tensors)].view(-1)[0] = float("inf")
    return tensors


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: {moved(n): v for n, v in t.items()}, "28 of its 28 tensors have no place"),
        (lambda t: {n: t[n] for n in sorted(t)[:4]}, "0 of its 4 .* 24 of 28 places get none"),
        (lambda t: t | {"base_model.model.more": torch.ones(2)}, "1 of its 29 tensors have no"),
        (lambda t: {n: v * float("nan") for n, v in t.items()}, "NaN or infinite, in 28 of its 28"),
        (first_infinite, "NaN or infinite, in 1 of its 28"),
        (lambda t: {n: v[:, 1:].contiguous() for n, v in t.items()}, "size mismatch"),
    ],
)
def test_tensors_that_do_not_fit_are_an_error(stand_in, changed, change, said):
    """Where PEFT warns, and base itself would be scored."""
    file = changed() / adapters.WEIGHTS
    save_file(change(load_file(file)), file)
    with pytest.raises(UserError, match=said) as caught:
        adapters.load_model(stand_in.experiment, tiny.VARIANT, dtype="float32")
    assert "\n" not in str(caught.value) and str(file.parent) in str(caught.value)


def test_a_base_that_a_bad_adapter_was_attached_to_is_not_kept(stand_in, changed):
    """Its tensors may be those of the base itself, which PEFT then overwrites."""
    before = adapters.resident_model(stand_in.experiment, BASE, dtype="float32").lm_head.weight
    file = changed() / adapters.WEIGHTS
    name = "base_model.model.lm_head.weight"
    save_file({**load_file(file), name: torch.zeros_like(before)}, file)
    with pytest.raises(UserError, match="1 of its 29 tensors have no place"):
        adapters.resident_model(stand_in.experiment, tiny.VARIANT, dtype="float32")
    after = adapters.resident_model(stand_in.experiment, BASE, dtype="float32").lm_head.weight
    assert after.any()


@pytest.mark.parametrize("content", [None, b"", b"version https://git-lfs.github.com/spec/v1"])
@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_model.bin"])
def test_weights_that_are_not_there_or_not_whole_are_an_error(stand_in, changed, name, content):
    folder = changed()
    (folder / adapters.WEIGHTS).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=r"is not whole|has no adapter_model\.safetensors"):
        adapters.load_model(stand_in.experiment, tiny.VARIANT, dtype="float32")
