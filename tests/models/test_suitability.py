"""A base model that cannot be used is refused in one line, before anything runs."""

import json
import shutil

import pytest
from other_bases import SHAPES, experiment, make
from transformers import BertConfig, T5Config

from feyntune.errors import UserError
from feyntune.experiment import load
from feyntune.models import suitability
from feyntune.pipeline import engine

TEXTS = [
    "We study strings on a torus, and find that they wind around it.",
    "Black holes evaporate.",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("bases")
    return {name: make(SHAPES[name], TEXTS, place / name) for name in ("qwen2", "gpt_neox")}


@pytest.fixture
def copy(folders, tmp_path):
    """A folder of a model that a test may spoil."""

    def copied(name):
        return shutil.copytree(folders[name], tmp_path / name)

    return copied


def refused(settings, said):
    with pytest.raises(UserError, match=said) as error:
        suitability.check_base(settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def rewritten(folder, name, **changes):
    file = folder / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return folder


def test_what_fits_is_not_refused(folders):
    for name, folder in folders.items():
        suitability.check_base(experiment(SHAPES[name], folder))


@pytest.mark.parametrize(
    "name", ["./nowhere", "/no/such/folder", "~/nowhere", "no/such/folder", "nothing"]
)
def test_neither_a_folder_nor_a_hub_id(name):
    refused(load.with_settings("smoke", {"base.model": name}), "no folder here, and no Hub id")


def test_a_hub_id_that_cannot_be_read(monkeypatch):
    def unreachable(*_, **__):
        raise OSError("We couldn't connect to the Hub.\nmore")

    monkeypatch.setattr(suitability.PretrainedConfig, "get_config_dict", unreachable)
    settings = load.with_settings("smoke", {"base.model": "owner/name"})
    refused(settings, r"owner/name cannot be used: it from the Hub cannot be read \(We couldn't")
    suitability.check_base(settings, ask_hub=False)


def test_what_is_yet_to_be_fetched_is_checked_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path))
    suitability.check_base(load.load("paper"))


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("config.json", "no config.json in"),
        ("token*", "no tokenizer in"),
        ("*.safetensors", "no weights in .* as safetensors"),
    ],
)
def test_a_folder_that_lacks_a_file(copy, pattern, said):
    folder = copy("qwen2")
    for file in folder.glob(pattern):
        file.unlink()
    refused(experiment(SHAPES["qwen2"], folder), said)


def test_a_shard_that_is_not_there(copy):
    folder = copy("qwen2")
    (folder / suitability.INDEX).write_text(json.dumps({"weight_map": {"x": "m-2.safetensors"}}))
    refused(experiment(SHAPES["qwen2"], folder), "lacks m-2.safetensors")


@pytest.mark.parametrize("kind", [BertConfig, T5Config])
def test_an_architecture_that_is_no_causal_model(copy, kind):
    folder = copy("qwen2")
    architecture = {BertConfig: "BertForMaskedLM", T5Config: "T5ForConditionalGeneration"}[kind]
    kind(architectures=[architecture]).save_pretrained(folder)
    refused(experiment(SHAPES["qwen2"], folder), "no causal language model")


def test_code_of_its_own_is_not_run(copy):
    folder = rewritten(
        copy("qwen2"), "config.json", model_type="mine", auto_map={"AutoConfig": "x"}
    )
    refused(
        experiment(SHAPES["qwen2"], folder), "no model type 'mine', and its own code is not run"
    )


def test_target_modules_that_are_not_there(folders):
    settings = experiment(SHAPES["qwen2"], folders["gpt_neox"])
    said = refused(settings, r"LoRA-QKV cannot be put on q_proj, k_proj, v_proj; a gpt_neox")
    assert "has query_key_value, dense, dense_h_to_4h, dense_4h_to_h" in said


def test_all_that_is_wrong_is_said_at_once(folders):
    settings = experiment(SHAPES["qwen2"], folders["gpt_neox"], base__start="<|startoftext|>")
    said = refused(settings, "no single token of the tokenizer")
    assert "cannot be put on q_proj" in said


def test_a_tokenizer_without_what_stands_before_an_abstract(folders):
    settings = experiment(SHAPES["qwen2"], folders["qwen2"], base__start="bos")
    refused(settings, "base.start is bos, but the tokenizer has no BOS")


def test_a_tokenizer_without_eos(copy):
    folder = rewritten(copy("qwen2"), "tokenizer_config.json", eos_token=None)
    refused(experiment(SHAPES["qwen2"], folder, base__start="none"), "no EOS")


def test_a_tokenizer_with_more_tokens_than_the_embedding(copy):
    folder = rewritten(copy("qwen2"), "config.json", vocab_size=200)
    refused(experiment(SHAPES["qwen2"], folder), r"tokenizer has \d+ tokens and its embedding only")


def test_a_context_that_is_too_short(copy):
    folder = rewritten(copy("qwen2"), "config.json", max_position_embeddings=8)
    said = refused(experiment(SHAPES["qwen2"], folder), "reads 8 tokens: lower training.max_length")
    assert "completions.max_new_tokens 8 exceeds" in said


def test_widths_that_end_inside_a_block_of_nf4(copy, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    folder = rewritten(copy("qwen2"), "config.json", intermediate_size=100)
    refused(experiment(SHAPES["qwen2"], folder), r"multiples of 64, NF4's block \(down_proj 100\)")
    suitability.check_base(experiment(SHAPES["qwen2"], folder, base__quantization=None))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    suitability.check_base(experiment(SHAPES["qwen2"], folder))


def test_targets_that_the_stand_in_has_not():
    flavour = {"target_modules": ["query_key_value"]}
    settings = load.with_settings("smoke", {"flavours.LoRA-all": flavour})
    refused(settings, "The stand-in base cannot be used: LoRA-all cannot be put on query_key_value")


@pytest.mark.parametrize("dry_run", [True, False])
def test_the_workflow_says_it_before_the_first_stage(folders, tmp_path, monkeypatch, dry_run):
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path))
    monkeypatch.setattr(engine, "_snakemake", lambda *_: pytest.fail("a stage was started"))
    settings = experiment(SHAPES["qwen2"], folders["gpt_neox"])
    with pytest.raises(UserError, match="cannot be put on q_proj"):
        engine.reproduce(
            settings, models=settings.models, jobs=1, profile="local", mirror=None,
            figures_only=False, dry_run=dry_run, options=[],
        )  # fmt: skip
