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
from feyntune.experiment.files import from_yaml

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
    assert loaded.models[0] == "base"


def test_demo_has_the_papers_settings_where_it_can():
    demo = experiment.load("demo")
    training = demo.training
    assert list(demo.variants) == list(recipes.VARIANTS)
    assert demo.models == ["base", *recipes.VARIANTS]
    assert len(demo.models) == 21
    assert (training.num_train_epochs, training.per_device_train_batch_size) == (4, 16)
    assert (training.adam_beta1, training.adam_beta2, training.adam_epsilon) == (0.9, 0.95, 1e-5)
    assert (training.weight_decay, training.warmup_steps, training.max_grad_norm) == (0.1, 0.1, 1.0)
    assert training.lr_scheduler_kwargs == {"min_lr_rate": 0.01}
    assert (training.lora.r, training.lora.lora_alpha, training.lora.lora_dropout) == (8, 32, 0.05)
    assert demo.lora("s1-LoRA-QKV").target_modules == ["q_proj", "k_proj", "v_proj"]
    assert len(demo.lora("s10-LoRA-all").target_modules) == 7


def test_the_paper_trains_as_the_released_code_does():
    """Values seen in the released configuration files (adamw.yaml, training_args.yaml, ...)."""
    paper = experiment.load("paper")
    training, lora = paper.training, paper.training.lora
    assert (training.num_train_epochs, training.per_device_train_batch_size) == (4, 16)
    assert (training.learning_rate, training.adam_beta1, training.adam_beta2) == (3e-4, 0.9, 0.95)
    assert (training.adam_epsilon, training.weight_decay, training.max_grad_norm) == (1e-5, 0.1, 1)
    assert training.lr_scheduler_type == "cosine_with_min_lr"
    assert (training.lr_scheduler_kwargs, training.warmup_steps) == ({"min_lr_rate": 0.01}, 0.1)
    assert (training.evaluations, training.bf16, paper.seed) == (10, True, 42)
    assert (lora.r, lora.lora_alpha, lora.lora_dropout, lora.bias) == (8, 32, 0.05, "none")
    modules = {f: len(given["target_modules"]) for f, given in paper.flavours.items()}
    assert modules == {"LoRA-all": 7, "LoRA-QKV": 3}
    quantization = paper.base.quantization
    assert (quantization.type, quantization.double) == ("nf4", True)
    assert quantization.compute_dtype == "bfloat16"
    assert paper.data.sample == {**dict.fromkeys(paper.fields), "cs": 200_000}
    assert list(paper.variants) == list(recipes.VARIANTS)
    assert {v.training.learning_rate for v in paper.variants.values()} == {3e-4}
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
    assert set(paper.outside) == {"snapshot", "base", "embedder", *recipes.VARIANTS}
    assert paper.outside["snapshot"].version == 193
    # Names in the released code that follow no rule.
    assert paper.outside["s3-LoRA-all"].id == "LLMsForHepth/s3-L-3.1-8B-base_v3"
    assert paper.outside["s1-LoRA-QKV"].id == "LLMsForHepth/s1-L-3.1-8B-qkv_v2"
    assert paper.outside["s7-LoRA-QKV"].id == "LLMsForHepth/s7-L-3.1-8B-qkv2"
    assert paper.outside["s10-LoRA-QKV"].id == "LLMsForHepth/s10-L-3.1-8B-qkv"
    assert paper.outside["s10-LoRA-all"].id == "LLMsForHepth/s10-L-3.1-8B-base"
    assert paper.compared["s9"].id == "LLMsForHepth/gr-qc_hep-ph_small"
    assert set(paper.compared) == set(recipes.DATASETS)


@pytest.mark.parametrize(("key", "spared"), [("data.snapshot", "snapshot"), ("base.model", "base")])
def test_what_the_user_gives_is_not_fetched(key, spared):
    given = experiment.with_settings("paper", {key: "/data/own"})
    assert set(experiment.load("paper").outside) - set(given.outside) == {spared}


def test_published_needs_scores_and_no_model():
    published = experiment.load("published")
    scores = {"perplexities", "semscores", "completions", "ratings"}
    assert set(published.outside) == {*scores, *recipes.VARIANTS}
    assert published.compared == {}
    assert published.absent == "not available" and experiment.load("demo").absent == "not run"
    logs = [name for name in recipes.VARIANTS if published.outside[name].optional]
    assert logs == ["s1-LoRA-all", "s1-LoRA-QKV"]


def test_released_scores_may_lack_all_sources_but_one(folder):
    nulls = [f"{name}: null" for name in ("perplexities", "semscores", "completions", "ratings")]
    for number, null in enumerate(nulls):
        rest = nulls[:number] + nulls[number + 1 :]
        text = f"extends: published\nadapters: null\nfetch: {{{', '.join(rest)}}}\n"
        (folder / "own.yaml").write_text(text)
        assert experiment.load("own").released == [null.split(":")[0]]
    text = f"extends: published\nadapters: null\nfetch: {{{', '.join(nulls)}}}\n"
    (folder / "own.yaml").write_text(text)
    assert "need one of the sources perplexities" in refusal(experiment.load, "own")


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
    assert list(smoke.variants) == ["s1-LoRA-all", "s1-LoRA-QKV"]
    assert smoke.data.stand_in.records != demo.data.stand_in.records
    assert smoke.data.stand_in.seed == demo.data.stand_in.seed
    assert demo.training == smoke.training.model_copy(update={"evaluations": 5})
    assert smoke.training.evaluations == 10


def test_extends_reaches_through_two_files(own):
    loaded = own("completions: {top_k: 7}")
    assert loaded.completions.top_k == 7
    assert loaded.completions.abstracts == 8, "from smoke"
    assert loaded.completions.top_p == 0.9, "from demo"


def test_loaded_settings_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        experiment.load("smoke").seed = 1


def test_variants_are_in_the_order_of_the_file(own):
    loaded = own("variants: [s2-LoRA-QKV, s10-LoRA-all, s2-LoRA-all]")
    assert list(loaded.variants) == ["s2-LoRA-QKV", "s10-LoRA-all", "s2-LoRA-all"]


def test_overrides_win_over_files():
    loaded = experiment.with_settings(
        "smoke", {"data.snapshot": "/data/arxiv.json", "training.lora.r": 16}
    )
    assert loaded.data.snapshot == "/data/arxiv.json"
    assert loaded.snapshot == Path("/data/arxiv.json")
    assert (loaded.training.lora.r, loaded.lora("s1-LoRA-QKV").r) == (16, 16)
    assert loaded.training.lora.lora_alpha == 32


def test_a_number_with_an_exponent_needs_no_dot(own):
    loaded = own("training: {learning_rate: 1e-2, adam_epsilon: 2E-5}")
    assert (loaded.training.learning_rate, loaded.training.adam_epsilon) == (0.01, 2e-5)
    # As papermill and a shell hand it on.
    assert experiment.with_settings("smoke", {"training.learning_rate": "1e-2"}).training == (
        own("training: {learning_rate: 1e-2}").training
    )


def test_a_hash_that_begins_like_a_number_is_a_text():
    assert from_yaml("{a: 1465e70c30e902e9, b: 1e-2, c: 12e}", "it") == {
        "a": "1465e70c30e902e9",
        "b": 0.01,
        "c": "12e",
    }


def test_null_takes_a_value_away(own):
    assert own("base: {quantization: null}").base.quantization is None


def test_null_takes_an_argument_of_a_schedule_away(own):
    loaded = own(
        "training: {lr_scheduler_type: cosine, lr_scheduler_kwargs: {min_lr_rate: null}}\n"
        "variants: [{name: s1-LoRA-all, training: {lr_scheduler_kwargs: {num_cycles: 2}}}]"
    )
    assert loaded.training.lr_scheduler_kwargs == {}
    assert loaded.variants["s1-LoRA-all"].training.lr_scheduler_kwargs == {"num_cycles": 2}


def test_a_relative_snapshot_does_not_depend_on_the_working_folder(own, tmp_path, monkeypatch):
    loaded = own("data: {snapshot: data/arxiv.json}")
    before = loaded.snapshot
    monkeypatch.chdir(tmp_path)
    assert loaded.snapshot == before == SHIPPED.parent / "data" / "arxiv.json"


# --- one variant's settings -------------------------------------------------------------------


def test_a_variant_changes_its_own_training_alone(own):
    loaded = own(
        "variants: [s1-LoRA-QKV, "
        "{name: s1-LoRA-all, training: {learning_rate: 1e-3, lora: {r: 4}}}]"
    )
    changed, common = loaded.variants["s1-LoRA-all"].training, loaded.training
    assert (changed.learning_rate, changed.lora.r) == (1e-3, 4)
    # Everything that was not named stays: undo the two, and nothing is left of the difference.
    targets = changed.lora.target_modules
    lora = common.lora.model_copy(update={"target_modules": targets})
    undone = changed.model_copy(update={"learning_rate": common.learning_rate, "lora": lora})
    assert undone == common.model_copy(update={"lora": lora})
    assert loaded.variants["s1-LoRA-QKV"].training.learning_rate == common.learning_rate


def test_common_settings_reach_a_variant_with_its_own(own):
    loaded = own(
        "training: {num_train_epochs: 2}\n"
        "variants: [{name: s1-LoRA-QKV, training: {learning_rate: 1.0e-3}}]"
    )
    assert loaded.variants["s1-LoRA-QKV"].training.num_train_epochs == 2


def test_set_wins_over_a_variant(folder, own):
    own("variants: [{name: hot, dataset: s1, flavour: LoRA-all, training: {learning_rate: 1e-2}}]")
    loaded = experiment.with_settings("own", {"training.learning_rate": 0.5, "seed": 7})
    assert loaded.variants["hot"].training.learning_rate == 0.5
    assert loaded.variants["hot"].seed == 7


# --- tables of an experiment's own ------------------------------------------------------------

MINE = """
recipes:
  s11: {title: gr-qc alone, parts: {gr-qc: 1.0}}
  s12: {title: half and half, parts: {gr-qc: 0.5, hep-th: 0.5}}
  s13: {title: as large as s1, parts: {hep-ph: 0.25, gr-qc: 0.75}, size_of: s1}
  s10: null
flavours:
  DoRA: {target_modules: [q_proj, v_proj], use_dora: true}
  rank 16: null
sources:
  astro-ph: [astro-ph.]
variants:
  - s1-LoRA-all
  - s1-DoRA
  - s11-LoRA-QKV
  - {name: s1-hot, dataset: s1, flavour: LoRA-all, training: {learning_rate: 1.0e-2}}
  - {name: again, dataset: s1, flavour: LoRA-all, seed: 7}
"""


def test_an_experiment_adds_datasets_flavours_and_variants(own):
    loaded = own(MINE)
    assert list(loaded.recipes) == [*(f"s{n}" for n in range(1, 10)), "s11", "s12", "s13"]
    assert list(loaded.flavours) == ["LoRA-all", "LoRA-QKV", "DoRA"]
    assert [*loaded.fields][-1] == "astro-ph" and loaded.data.sample["astro-ph"] is None
    assert loaded.models == ["base", "s1-LoRA-all", "s1-DoRA", "s11-LoRA-QKV", "s1-hot", "again"]
    dora, hot, again = (loaded.variants[name] for name in ("s1-DoRA", "s1-hot", "again"))
    assert dora.training.lora.use_dora and dora.training.lora.target_modules == ["q_proj", "v_proj"]
    assert (hot.dataset, hot.flavour, hot.training.learning_rate) == ("s1", "LoRA-all", 0.01)
    assert (hot.seed, again.seed) == (42, 7)
    assert again.training == loaded.variants["s1-LoRA-all"].training


def test_the_short_form_of_a_recipe(own):
    recipes_ = own(MINE).recipes
    (alone,) = recipes_["s11"].parts
    assert (alone.source, alone.take) == ("gr-qc", None)
    assert [part.take for part in recipes_["s12"].parts] == [0.5, 0.5]
    assert recipes_["s12"].size_of is None
    # The first fills up, so that the mixture is as large as asked, to the row.
    assert [part.take for part in recipes_["s13"].parts] == ["fill", 0.75]


def test_all_stands_for_the_papers_twenty_beside_others(own):
    loaded = own("flavours: {K: {target_modules: [k_proj]}}\nvariants: [all, s3-K]")
    assert list(loaded.variants) == [*recipes.VARIANTS, "s3-K"]


def test_any_argument_of_lora_config_is_a_flavours(own):
    loaded = own(
        "flavours: {odd: {target_modules: all-linear, rank_pattern: {q_proj: 2}, bias: all}}\n"
        "variants: [s1-odd]"
    )
    lora = loaded.lora("s1-odd")
    assert lora.arguments["rank_pattern"] == {"q_proj": 2} and lora.bias == "all"
    assert lora.target_modules == "all-linear"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("recipes: {s11: {title: x, parts: {maths: 1.0}}}", "recipes.s11: unknown source maths"),
        ("recipes: {s11: {title: x, parts: {hep-th: 0.5, gr-qc: 0.4}}}", "add up to 0.9, not to 1"),
        ("recipes: {s11: {title: x, parts: {hep-th: -1}}}", "shares must be numbers above 0"),
        (
            "recipes: {s11: {title: x, parts: {hep-th: 1.0}, size_of: s12}}",
            "there is no dataset s12",
        ),
        ("recipes: {s11: {title: x, parts: {hep-th: 1.0}, size_of: s11}}", "leads back to s11"),
        ("recipes: {s1: null}\nvariants: [s2-LoRA-all]", "s1 is needed, whose test set"),
        ("recipes: {s11: {title: x, parts: [{source: hep-th, take: fill}]}}", "needs size_of"),
        ("recipes: {s11: {title: x, parts: [{source: cs, only: gr-qc}]}}", "cs has no field gr-qc"),
        ("recipes: {'s 11': {title: x, parts: {cs: 1.0}}}", "recipes.s 11"),
        ("sources: {strings: [hep-th]}", "share the category hep-th"),
        ("sources: {two: {fields: [hep-th, maths]}}", "sources.two: maths is no field"),
        ("data: {sample: {math: 10}}", "data.sample: math is no field of sources"),
        ("variants: [s1-LoRA-all, s1-LoRA-all]", "the name s1-LoRA-all is taken twice"),
        ("variants: [all, s1-LoRA-all]", "the name s1-LoRA-all is taken twice"),
        ("variants: [base]", "the name base is taken twice"),
        (
            "variants: [{name: base, dataset: s1, flavour: LoRA-all}]",
            "the name base is taken twice",
        ),
        ("variants: [{dataset: s1, flavour: LoRA-all}]", "an entry has no name"),
        (
            "variants: [{name: x, dataset: s99, flavour: LoRA-all}]",
            "Unknown dataset 's99' of variant x",
        ),
        (
            "variants: [{name: x, dataset: s1, flavour: LoRA}]",
            "Unknown flavour 'LoRA' of variant x",
        ),
        ("variants: [{name: x, dataset: s1}]", "Unknown flavour 'None' of variant x"),
        ("variants: [{name: x, dataset: s1, flavour: LoRA-all, rate: 1}]", "unknown key 'rate'"),
        ("variants: [{name: s1-LoRA-all, dataset: s2}]", "is the name of LoRA-all on s1"),
        ("variants: [{name: a/b, dataset: s1, flavour: LoRA-all}]", "variants.a/b"),
        ("flavours: {K: {use_dora: true}}\nvariants: [s1-K]", "flavour K names no target_modules"),
        (
            "flavours: {K: {target_modules: [k], r: 0}}\nvariants: [s1-K]",
            "variants.s1-K.training.lora.r",
        ),
    ],
)
def test_a_bad_entry_of_a_table_is_one_line(own, text, said):
    assert said in refusal(own, text)


@pytest.mark.parametrize(("old", "now"), experiment.OLD_KEYS.items())
def test_an_old_key_names_the_new_one(own, old, now):
    text = "1"
    for part in reversed(old.split(".")):
        text = f"{{{part}: {text}}}"
    message = refusal(own, f"{text[1:-1]}")
    assert message == f"experiments/own.yaml: {old} is now {now}."


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
        ("trainng: {seed: 1}", "unknown key 'trainng' (did you mean 'training'?)"),
        (
            "training: {learning_rat: 1.0e-3}",
            "unknown key 'training.learning_rat' (did you mean 'learning_rate'?)",
        ),
        (
            "base: {quantization: {duble: true}}",
            "unknown key 'base.quantization.duble' (did you mean 'double'?)",
        ),
        (
            "variants: [{name: s1-LoRA-all, training: {learning_rat: 3}}]",
            "unknown key 'variants.s1-LoRA-all.training.learning_rat'",
        ),
        ("zzz: 1", "unknown key 'zzz'."),
        # text where a number belongs
        ("training: {learning_rate: '2e-4'}", "training.learning_rate: '2e-4' is text"),
        ("seed: '42'", "seed: '42' is text, not a number"),
        # a wrong type
        ("seed: many", "seed: input should be a valid integer (got 'many')"),
        ("training: {num_train_epochs: 2.5}", "training.num_train_epochs: "),
        ("training: {num_train_epochs: true}", "training.num_train_epochs: "),
        ("training: {bf16: 1}", "training.bf16: input should be a valid boolean (got 1)"),
        ("title: 3", "title: input should be a valid string (got 3)"),
        ("variants: 7", "variants: input should be a valid dictionary (got 7)"),
        ("data: {excluded_ids: [1404.0016]}", "data.excluded_ids.0: "),
        ("training: 4", "training: "),
        ("variants: [{name: s1-LoRA-all, training: {seed: 4}}]", "training.seed"),
        # a value out of range
        ("training: {learning_rate: 0.0}", "training.learning_rate: input should be greater"),
        ("training: {learning_rate: -1.0e-4}", "training.learning_rate: "),
        ("training: {learning_rate: .nan}", "training.learning_rate: "),
        ("training: {num_train_epochs: 0}", "training.num_train_epochs: "),
        ("training: {lora: {lora_dropout: 1.0}}", "training.lora.lora_dropout: "),
        ("training: {adam_beta2: 1.5}", "training.adam_beta2: "),
        ("training: {optim: sgd}", "training.optim: "),
        ("training: {lr_scheduler_type: cosin}", "training.lr_scheduler_type: "),
        (
            "training: {lr_scheduler_type: cosine}",
            "cosine takes num_cycles, not min_lr_rate: leave it out, or set it to null",
        ),
        ("training: {lr_scheduler_kwargs: {min_lr_rat: 0.1}}", "rate, not min_lr_rat: leave"),
        ("training: {lr_scheduler_kwargs: {min_lr_rate: much}}", "min_lr_rate"),
        ("training: {lr_scheduler_kwargs: {min_lr: 0.1}}", "needs one of min_lr and min_lr_rate"),
        ("training: {lr_scheduler_kwargs: {min_lr_rate: null}}", "one of min_lr and min_lr_rate"),
        (
            "training: {lr_scheduler_type: polynomial, "
            "lr_scheduler_kwargs: {min_lr_rate: null, lr_end: 1}}",
            "lr_end must be below learning_rate",
        ),
        (
            "variants: [{name: s1-LoRA-all, training: {lr_scheduler_type: linear}}]",
            "variants.s1-LoRA-all.training: lr_scheduler_kwargs: linear takes no argument",
        ),
        ("base: {quantization: {type: fp4}}", "base.quantization.type: "),
        ("base: {stand_in: {attention_heads: 3}}", "base.stand_in: hidden_size must be a multiple"),
        ("data: {train_share: 1.0}", "data.train_share: "),
        ("data: {bad_lines_allowed: 1.0}", "data.bad_lines_allowed: "),
        ("data: {sample: {hep-th: 0}}", "data.sample.hep-th: "),
        ("completions: {top_p: 1.2}", "completions.top_p: "),
        ("statistics: {confidence: 95}", "statistics.confidence: "),
    ],
)
def test_bad_setting_is_named_in_one_line(own, text, said):
    message = refusal(own, text)
    assert message.startswith("experiments/own.yaml: ")
    assert said in message


def test_every_bad_setting_is_named_at_once(own):
    message = refusal(own, "training: {num_train_epochs: 0, learning_rate: none}\nseed: 1.5")
    named = ("training.num_train_epochs", "training.learning_rate", "seed")
    assert all(message.count(f"{key}: ") == 1 for key in named), "and once, not for every variant"


def test_a_file_that_extends_nothing_must_have_every_setting(folder):
    settings = yaml.safe_load((folder / "demo.yaml").read_text())
    del settings["training"]["adam_epsilon"]
    (folder / "own.yaml").write_text(yaml.safe_dump(settings))
    said = refusal(experiment.load, "own")
    assert said == "experiments/own.yaml: training.adam_epsilon is missing."


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
    assert "'s11-LoRA-all'" in refusal(own, "variants: [{name: s11-LoRA-all}]")


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
    ("key", "value", "said"),
    [
        ("data.snapsht", "x", "unknown key 'data.snapsht' (did you mean 'snapshot'?)"),
        # A key below a plain value, and below nothing at all.
        ("seed.x", 1, "seed: input should be a valid integer"),
        ("data.snapshot.x", 1, "data.snapshot: input should be a valid string"),
        ("no.such.key", 1, "unknown key 'no'"),
    ],
)
def test_bad_overrides(key, value, said):
    message = refusal(experiment.with_settings, "smoke", {key: value})
    assert said in message and f"(with {key} set)" in message


@pytest.mark.parametrize("variable", ["FEYNTUNE__TRAINING__EPOCHS", "FEYNTUNE_TRAINING__EPOCHS"])
def test_surroundings_set_nothing(monkeypatch, variable):
    monkeypatch.setenv(variable, "2")
    message = refusal(experiment.load, "smoke")
    assert variable in message and "--set training.epochs=" in message


# --- a snapshot of the user's -----------------------------------------------------------------


def test_a_snapshot_makes_an_experiment_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path / "out"))
    one, other = tmp_path / "a" / "my papers.json.gz", tmp_path / "b" / "my papers.json.gz"
    name = experiment.with_snapshot("smoke", one)
    assert name == experiment.with_snapshot("smoke", one) == "smoke-my-papers"
    assert experiment.with_snapshot("smoke", other) == "smoke-my-papers-2"
    loaded = experiment.load(name)
    assert loaded.snapshot == one and loaded.completions == experiment.load("smoke").completions
    assert loaded.paths.results == tmp_path / "out" / "results" / name
    assert {name, "smoke-my-papers-2"} <= set(experiment.names())


# --- fingerprint ------------------------------------------------------------------------------
