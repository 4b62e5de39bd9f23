"""Loading an experiment: what is accepted, what wins, and one clear line for everything else."""

import os
import shutil
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from feyntune.errors import UserError, choose
from feyntune.experiment import load as experiment
from feyntune.experiment import recipes

SHIPPED = Path(experiment.EXPERIMENTS)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with copies of the shipped experiments, to which a test adds its own."""
    copies = tmp_path / "experiments"
    copies.mkdir()
    for file in SHIPPED.glob("*.yaml"):
        shutil.copy(file, copies)
    monkeypatch.setattr(experiment, "EXPERIMENTS", copies)
    for variable in [v for v in os.environ if v.startswith("FEYNTUNE")]:
        monkeypatch.delenv(variable)
    return copies


@pytest.fixture
def own(folder):
    """Write ``own.yaml``, which extends smoke, and load it."""

    def load(text: str):
        (folder / "own.yaml").write_text(f"extends: smoke\n{text}", encoding="utf-8")
        return experiment.load("own")

    return load


def refusal(load, *arguments) -> str:
    """What a UserError says, which is one line."""
    with pytest.raises(UserError) as caught:
        load(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- what is accepted -------------------------------------------------------------------------


@pytest.mark.parametrize("name", [p.stem for p in SHIPPED.glob("*.yaml") if "." not in p.stem])
def test_every_shipped_experiment_loads(name):
    loaded = experiment.load(name)
    assert loaded.name == name
    assert set(loaded.variants) <= set(recipes.VARIANTS)


def test_demo_has_the_papers_settings_where_it_can():
    demo = experiment.load("demo")
    training = demo.training
    assert demo.variants == list(recipes.VARIANTS)
    assert demo.models == ["base", *recipes.VARIANTS]
    assert len(demo.models) == 21
    assert (training.epochs, training.batch_size, training.max_grad_norm) == (4, 16, 1.0)
    assert (training.betas, training.epsilon) == ([0.9, 0.95], 1e-5)
    assert (training.weight_decay, training.warmup_share, training.min_lr_rate) == (0.1, 0.1, 0.01)
    assert (training.lora.r, training.lora.alpha, training.lora.dropout) == (8, 32, 0.05)
    assert training.lora.targets["LoRA-QKV"] == ["q_proj", "k_proj", "v_proj"]
    assert len(training.lora.targets["LoRA-all"]) == 7
    assert training.evaluations == 10


def test_the_paper_trains_as_the_released_code_does():
    """Values seen in the released configuration files (adamw.yaml, training_args.yaml, ...)."""
    paper = experiment.load("paper")
    training, lora = paper.training, paper.training.lora
    assert (training.epochs, training.batch_size, training.learning_rate) == (4, 16, 3e-4)
    assert (training.betas, training.epsilon, training.weight_decay) == ([0.9, 0.95], 1e-5, 0.1)
    assert (training.min_lr_rate, training.warmup_share, training.max_grad_norm) == (0.01, 0.1, 1)
    assert (training.evaluations, training.bf16, paper.seed) == (10, True, 42)
    assert (lora.r, lora.alpha, lora.dropout, lora.bias) == (8, 32, 0.05, "none")
    assert {flavour: len(names) for flavour, names in lora.targets.items()} == {
        "LoRA-all": 7,
        "LoRA-QKV": 3,
    }
    quantization = paper.base.quantization
    assert (quantization.type, quantization.double) == ("nf4", True)
    assert quantization.compute_dtype == "bfloat16"
    assert paper.data.sample == {**dict.fromkeys(recipes.FIELDS), "cs": 200_000}
    assert paper.variants == list(recipes.VARIANTS) and paper.overrides == {}
    assert paper.stand_in is None


def test_the_paper_reads_what_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path))
    paper = experiment.load("paper")
    fetched = tmp_path / "results" / "paper" / "fetched"
    file = fetched / "snapshot" / "arxiv-metadata-oai-snapshot.json"
    file.parent.mkdir(parents=True)
    file.touch()
    assert paper.snapshot == file
    assert paper.base_source == str(fetched / "base")
    assert paper.embedder_source == str(fetched / "embedder")
    assert not paper.on_disk
    (fetched / "base").mkdir()
    (fetched / "embedder").mkdir()
    assert paper.on_disk


def test_sources_of_the_paper():
    paper = experiment.load("paper")
    assert set(paper.sources) == {"snapshot", "base", "embedder", *recipes.VARIANTS}
    assert paper.sources["snapshot"].version == 193
    # Names in the released code that follow no rule.
    assert paper.sources["s3-LoRA-all"].id == "LLMsForHepth/s3-L-3.1-8B-base_v3"
    assert paper.sources["s1-LoRA-QKV"].id == "LLMsForHepth/s1-L-3.1-8B-qkv_v2"
    assert paper.sources["s7-LoRA-QKV"].id == "LLMsForHepth/s7-L-3.1-8B-qkv2"
    assert paper.sources["s10-LoRA-QKV"].id == "LLMsForHepth/s10-L-3.1-8B-qkv"
    assert paper.sources["s10-LoRA-all"].id == "LLMsForHepth/s10-L-3.1-8B-base"
    assert paper.compared["s9"].id == "LLMsForHepth/gr-qc_hep-ph_small"
    assert set(paper.compared) == set(recipes.DATASETS)


@pytest.mark.parametrize(("key", "spared"), [("data.snapshot", "snapshot"), ("base.model", "base")])
def test_what_the_user_gives_is_not_fetched(key, spared):
    given = experiment.load("paper", {key: "/data/own"})
    assert set(experiment.load("paper").sources) - set(given.sources) == {spared}


def test_published_needs_scores_and_no_model():
    published = experiment.load("published")
    scores = {"perplexities", "semscores", "completions", "ratings"}
    assert set(published.sources) == {*scores, *recipes.VARIANTS}
    assert published.compared == {}
    assert (
        published.absent == "nothing usable released"
        and experiment.load("demo").absent == "not run"
    )
    logs = [name for name in recipes.VARIANTS if published.sources[name].optional]
    assert logs == ["s1-LoRA-all", "s1-LoRA-QKV"]


def test_released_scores_name_the_source_that_lacks(folder):
    (folder / "own.yaml").write_text("extends: published\nfetch: {ratings: null}\n")
    assert "missing: ratings" in refusal(experiment.load, "own")


def test_a_stand_in_is_needed_where_nothing_real_is_named(folder):
    (folder / "own.yaml").write_text("extends: paper\ndata: {snapshot: null}\n")
    assert "data.stand_in is needed" in refusal(experiment.load, "own")


def test_a_source_of_an_unknown_kind(folder):
    (folder / "own.yaml").write_text("extends: paper\nfetch: {base: {origin: ftp}}\n")
    assert "fetch.base" in refusal(experiment.load, "own")


def test_ancestry():
    assert experiment.ancestry("published") == ["published", "paper"]
    assert experiment.ancestry("demo") == ["demo"]


def test_extends_overrides_keys_and_keeps_the_others():
    demo, smoke = experiment.load("demo"), experiment.load("smoke")
    assert smoke.variants == ["s1-LoRA-all", "s1-LoRA-QKV"]
    assert smoke.data.stand_in.records != demo.data.stand_in.records
    assert smoke.data.stand_in.seed == demo.data.stand_in.seed
    assert smoke.training == demo.training


def test_extends_reaches_through_two_files(own):
    loaded = own("completions: {top_k: 7}")
    assert loaded.completions.top_k == 7
    assert loaded.completions.abstracts == 8, "from smoke"
    assert loaded.completions.top_p == 0.9, "from demo"


def test_loaded_settings_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        experiment.load("smoke").seed = 1


def test_variants_are_put_in_the_order_of_the_paper(own):
    loaded = own("variants: [s2-LoRA-QKV, s10-LoRA-all, s2-LoRA-all, s2-LoRA-all]")
    assert loaded.variants == ["s2-LoRA-all", "s10-LoRA-all", "s2-LoRA-QKV"]


def test_environment_wins_over_files_and_arguments_win_over_it(monkeypatch):
    monkeypatch.setenv("FEYNTUNE__DATA__SNAPSHOT", "/data/arxiv.json")
    monkeypatch.setenv("FEYNTUNE__TRAINING__LORA__R", "16")
    monkeypatch.setenv("FEYNTUNE__TRAINING__LEARNING_RATE", "2.0e-4")
    loaded = experiment.load("smoke")
    assert loaded.data.snapshot == "/data/arxiv.json"
    assert loaded.snapshot == Path("/data/arxiv.json")
    assert loaded.training.lora.r == 16
    assert loaded.training.lora.alpha == 32
    assert loaded.training.learning_rate == 2e-4
    assert experiment.load("smoke", {"training.lora.r": 4}).training.lora.r == 4


def test_environment_can_take_a_value_away(own, monkeypatch):
    monkeypatch.setenv("FEYNTUNE__BASE__QUANTIZATION", "null")
    assert own("").base.quantization is None


def test_a_relative_snapshot_does_not_depend_on_the_working_folder(own, tmp_path, monkeypatch):
    loaded = own("data: {snapshot: data/arxiv.json}")
    before = loaded.snapshot
    monkeypatch.chdir(tmp_path)
    assert loaded.snapshot == before == SHIPPED.parent / "data" / "arxiv.json"


# --- one variant's settings -------------------------------------------------------------------


def test_overrides_change_the_training_of_their_variant_alone(own):
    loaded = own("overrides: {s1-LoRA-all: {learning_rate: 1.0e-3, lora: {r: 4}}}")
    changed, common = loaded.training_for("s1-LoRA-all"), loaded.training
    assert changed.learning_rate == 1e-3
    assert changed.lora.r == 4
    # Everything that was not named stays: undo the two, and nothing is left of the difference.
    lora = changed.lora.model_copy(update={"r": common.lora.r})
    undone = changed.model_copy(update={"learning_rate": common.learning_rate, "lora": lora})
    assert undone == common
    for variant in recipes.VARIANTS:
        if variant != "s1-LoRA-all":
            assert loaded.training_for(variant) == common


def test_common_settings_reach_an_overridden_variant(own):
    loaded = own("training: {epochs: 2}\noverrides: {s1-LoRA-QKV: {learning_rate: 1.0e-3}}")
    assert loaded.training_for("s1-LoRA-QKV").epochs == 2


# --- labels -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("snapshot", "model", "label"),
    [
        ("null", "null", "stand-in corpus and model"),
        ("arxiv.json", "null", "stand-in model"),
        ("null", "meta-llama/Llama-3.1-8B", "stand-in corpus"),
        ("arxiv.json", "meta-llama/Llama-3.1-8B", None),
    ],
)
def test_label_names_what_is_a_stand_in(own, snapshot, model, label):
    loaded = own(f"data: {{snapshot: {snapshot}}}\nbase: {{model: {model}}}")
    assert loaded.stand_in == label


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        # an unknown key, also deep down and in a section that may be null
        ("trainng: {epochs: 1}", "unknown key 'trainng' (did you mean 'training'?)"),
        (
            "training: {learning_rat: 1.0e-3}",
            "unknown key 'training.learning_rat' (did you mean 'learning_rate'?)",
        ),
        (
            "base: {quantization: {duble: true}}",
            "unknown key 'base.quantization.duble' (did you mean 'double'?)",
        ),
        (
            "overrides: {s1-LoRA-all: {lora: {alfa: 3}}}",
            "unknown key 'overrides.s1-LoRA-all.lora.alfa' (did you mean 'alpha'?)",
        ),
        ("zzz: 1", "unknown key 'zzz'."),
        # text where a number belongs
        (
            "training: {learning_rate: 2e-4}",
            "training.learning_rate: '2e-4' is text, not a number (YAML needs a dot: 2.0e-4",
        ),
        ("overrides: {s1-LoRA-QKV: {epsilon: 1e-5}}", "overrides.s1-LoRA-QKV.epsilon: '1e-5'"),
        ("seed: '42'", "seed: '42' is text, not a number"),
        # a wrong type
        ("seed: many", "seed: input should be a valid integer (got 'many')"),
        ("training: {epochs: 2.5}", "training.epochs: "),
        ("training: {epochs: true}", "training.epochs: "),
        ("training: {bf16: 1}", "training.bf16: input should be a valid boolean (got 1)"),
        ("title: 3", "title: input should be a valid string (got 3)"),
        ("variants: s1-LoRA-all", "variants: input should be a valid list"),
        ("data: {excluded_ids: [1404.0016]}", "data.excluded_ids.0: "),
        ("training: 4", "training: "),
        ("overrides: {s1-LoRA-all: 4}", "overrides.s1-LoRA-all: "),
        ("overrides: [s1-LoRA-all]", "overrides: "),
        # a value out of range
        ("training: {learning_rate: 0.0}", "training.learning_rate: input should be greater"),
        ("training: {learning_rate: -1.0e-4}", "training.learning_rate: "),
        ("training: {learning_rate: .nan}", "training.learning_rate: "),
        ("training: {epochs: 0}", "training.epochs: "),
        ("training: {lora: {dropout: 1.0}}", "training.lora.dropout: "),
        ("training: {betas: [0.9, 1.5]}", "training.betas.1: "),
        ("training: {betas: [0.9]}", "training.betas: "),
        ("training: {optimizer: sgd}", "training.optimizer: "),
        ("base: {quantization: {type: fp4}}", "base.quantization.type: "),
        ("base: {stand_in: {attention_heads: 3}}", "base.stand_in: hidden_size must be a multiple"),
        ("data: {train_share: 1.0}", "data.train_share: "),
        ("data: {bad_lines_allowed: 1.0}", "data.bad_lines_allowed: "),
        ("data: {sample: {hep-th: 0}}", "data.sample.hep-th: "),
        ("data: {sample: {math: 10}}", "data.sample: must name each of hep-th, hep-ph, gr-qc"),
        ("training: {lora: {targets: {LoRA-K: [k_proj]}}}", "training.lora.targets: must name"),
        ("completions: {top_p: 1.2}", "completions.top_p: "),
        ("statistics: {confidence: 95}", "statistics.confidence: "),
    ],
)
def test_bad_setting_is_named_in_one_line(own, text, said):
    message = refusal(own, text)
    assert message.startswith("experiments/own.yaml: ")
    assert said in message


def test_every_bad_setting_is_named_at_once(own):
    message = refusal(own, "training: {epochs: 0, batch_size: none}\nseed: 1.5")
    assert all(f"{key}: " in message for key in ("training.epochs", "training.batch_size", "seed"))


def test_a_file_that_extends_nothing_must_have_every_setting(folder):
    settings = yaml.safe_load((folder / "demo.yaml").read_text())
    del settings["training"]["epsilon"]
    (folder / "own.yaml").write_text(yaml.safe_dump(settings))
    assert refusal(experiment.load, "own") == "experiments/own.yaml: training.epsilon is missing."


@pytest.mark.parametrize(
    ("given", "meant"), [("dmeo", "demo"), ("Smoke", "smoke"), ("smoke.yaml", "smoke")]
)
def test_unknown_experiment(given, meant):
    message = refusal(experiment.load, given)
    assert f"Unknown experiment {given!r}. Did you mean {meant!r}? Valid: " in message
    assert all(name in message for name in ("demo", "smoke"))


def test_expected_values_beside_an_experiment_are_no_experiment(folder):
    (folder / "smoke.expected.yaml").write_text("claims: []\n")
    assert "smoke.expected" not in experiment.names()


@pytest.mark.parametrize("given", ["../experiments/demo", "", "a/b"])
def test_an_experiment_is_a_name_and_no_path(given):
    assert refusal(experiment.load, given).startswith(f"Unknown experiment {given!r}.")


def test_unknown_variant(own):
    message = refusal(own, "variants: [s1-lora-all]")
    assert "Unknown variant 's1-lora-all'. Did you mean 's1-LoRA-all'?" in message
    assert all(variant in message for variant in recipes.VARIANTS)
    assert "'s11-LoRA-all'" in refusal(own, "overrides: {s11-LoRA-all: {epochs: 1}}")


def test_no_near_miss_is_made_up():
    message = refusal(choose, "variant", "qqqq", ["s1-LoRA-all"])
    assert message == "Unknown variant 'qqqq'. Valid: s1-LoRA-all."


def test_extends_an_unknown_experiment(folder):
    (folder / "own.yaml").write_text("extends: demoo\n")
    message = refusal(experiment.load, "own")
    assert "extended by own" in message
    assert "Did you mean 'demo'?" in message


def test_extends_itself(folder):
    (folder / "a.yaml").write_text("extends: b\n")
    (folder / "b.yaml").write_text("extends: a\n")
    (folder / "c.yaml").write_text("extends: c\n")
    assert "extends itself: a -> b -> a" in refusal(experiment.load, "a")
    assert "extends itself: c -> c" in refusal(experiment.load, "c")


@pytest.mark.parametrize("text", ["- a\n- b\n", "demo\n", "", "# only a comment\n"])
def test_not_a_mapping(folder, text):
    (folder / "own.yaml").write_text(text)
    expected = "experiments/own.yaml must be a mapping of settings."
    assert refusal(experiment.load, "own") == expected


@pytest.mark.parametrize("text", [b"a: [1, 2\n", b"a: b: c\n", b"\ta: 1\n", b"title: \xff\xfe\n"])
def test_broken_yaml(folder, text):
    (folder / "own.yaml").write_bytes(text)
    assert refusal(experiment.load, "own").startswith("experiments/own.yaml is not YAML: ")


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("FEYNTUNE__DATA__SNAPSHT", "x", "unknown key 'data.snapsht' (did you mean 'snapshot'?)"),
        ("FEYNTUNE__TRAINING__LEARNING_RATE", "2e-4", "training.learning_rate: '2e-4' is text"),
        ("FEYNTUNE__DATA__SNAPSHOT", "[a", "FEYNTUNE__DATA__SNAPSHOT is not YAML"),
        # A key below a plain value, and below nothing at all.
        ("FEYNTUNE__SEED__X", "1", "seed: input should be a valid integer"),
        ("FEYNTUNE__DATA__SNAPSHOT__X", "1", "data.snapshot: input should be a valid string"),
        ("FEYNTUNE__NO__SUCH__KEY", "1", "unknown key 'no'"),
    ],
)
def test_bad_environment(monkeypatch, variable, value, said):
    monkeypatch.setenv(variable, value)
    assert said in refusal(experiment.load, "smoke")


# --- fingerprint ------------------------------------------------------------------------------
