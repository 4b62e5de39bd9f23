"""An experiment of a user's own: every figure and table takes the models that it has."""

from __future__ import annotations

import pytest
from drawn_figures import ABSENT, LABEL, SETTINGS, all_figures, completed, log, scored, texts

from feyntune.analysis import loss_steps
from feyntune.analysis.report import claims
from feyntune.analysis.tables import scores, setup, writing
from feyntune.evaluation.grouping import Models
from feyntune.experiment import load
from feyntune.ratings import means

MINE = load.with_settings(
    "smoke",
    {
        "recipes.s11": {"title": "gr-qc alone", "parts": {"gr-qc": 1.0}},
        "flavours.DoRA": {"target_modules": ["q_proj", "down_proj"], "use_dora": True},
        "variants": [
            *("s1-LoRA-all", "s1-DoRA", "s11-LoRA-QKV"),
            {"name": "s1-hot", "dataset": "s1", "flavour": "LoRA-all"}
            | {"training": {"learning_rate": 1.0e-2}},
            {"name": "s1-again", "dataset": "s1", "flavour": "LoRA-all", "seed": 43},
        ],
    },
)
MODELS = Models.of(MINE)


@pytest.fixture(scope="module")
def figures():
    return all_figures(LABEL, MODELS)


def legend(figure) -> set[str]:
    return {text.get_text() for each in figure.legends for text in each.get_texts()}


def test_figures_show_the_variants_that_there_are(figures):
    titles = [axes.get_title(loc="left") for axes in figures["fig-3.1"].axes]
    assert titles == ["(a) s1-LoRA-all", "(b) s1-hot", "(c) s1-DoRA"]
    left, right = figures["fig-3.3"].axes
    names = [label.get_text() for label in left.get_xticklabels()]
    assert names == ["s1", "s1-hot", "s1-again", "s11", "s1"]
    assert [label.get_text() for label in right.get_xticklabels()] == ["s1", "s11"]
    assert {"LoRA-all", "LoRA-QKV", "DoRA"} <= legend(figures["fig-3.3"])
    assert "(c) s1-LoRA-all" in texts(figures["fig-3.4"])
    assert not [name for name, figure in figures.items() if ABSENT in texts(figure)]


def test_tables_have_a_row_or_column_of_each(tmp_path):
    frames = {
        name: scored(4, 8, 9, 18, 27 + at).assign(nll=9.0, tokens=5, bytes=30)
        for at, name in enumerate(MODELS.names)
    }
    counts = {name: {"count": 1000 + at, "share": 0.1} for at, name in enumerate(MINE.variants)}
    curation = {
        "datasets": {
            name: {"rows": {"train": 70, "validation": 15, "test": 15}} for name in MINE.recipes
        }
    }
    completions = {
        name: completed().assign(semscore=0.4, semscore_with_prompt=0.6) for name in MODELS.names
    }
    built = {
        "datasets": setup.datasets(MINE, curation, {}, MODELS),
        "hyperparameters": setup.hyperparameters(MINE, MODELS, counts),
        "perplexity": scores.perplexity(frames, MODELS, SETTINGS, absent=ABSENT),
        "perplexity-differences": scores.perplexity_differences(
            frames, MODELS, SETTINGS, absent=ABSENT
        ),
        "semscore": scores.semscore(completions, MODELS.names, SETTINGS, absent=ABSENT),
        "loss-steps": loss_steps.table({"s1-hot": log()}, MINE.variants, 0.9, absent=ABSENT),
    }
    assert built["datasets"].set_index("dataset").loc["s11", "assignment"] == setup.OWN
    hyper = built["hyperparameters"].set_index("setting")
    assert list(hyper) == ["LoRA-all", "LoRA-QKV", "DoRA"]
    assert hyper.loc["LoRA use dora"].tolist() == ["no", "no", "yes"]
    assert hyper.loc["trainable parameters"].tolist() == ["1,000", "1,002", "1,001"]
    assert hyper.loc["differs: s1-hot", "LoRA-all"] == "learning_rate 0.01"
    perplexity = built["perplexity"].set_index("model")
    assert list(perplexity.index) == ["base", *MINE.variants]
    spread = perplexity.loc["s1-LoRA-all", scores.SEEDS]
    assert spread["seeds"] == 2 and spread["sd_over_seeds"] > 0
    assert perplexity["seeds"].notna().sum() == 1
    pairs = built["perplexity-differences"].query("comparison != 'with base'")
    assert pairs[["comparison", "model", "reference"]].to_numpy().tolist() == [
        ["between flavours", "s1-LoRA-all", "s1-DoRA"],
        ["between settings", "s1-hot", "s1-LoRA-all"],
    ]
    assert list(built["loss-steps"]["model"]) == list(MINE.variants)
    for name, table in built.items():
        writing.write(table, tmp_path / name, label=LABEL, **writing.caption(name, SETTINGS))
        shown = (tmp_path / f"{name}.md").read_text()
        assert name == "datasets" or "s1-hot" in shown, name


def test_rating_files_name_each():
    names = means.names_with(MODELS)
    assert names["s1-LoRA-all"] == ("s1", "LoRA-all")  # as the authors' file has it
    assert names["s1-DoRA"] == ("s1-DoRA", "DoRA")
    assert names["s1-hot"] == ("s1-hot", "LoRA-all")
    named_s2 = {"name": "s2", "dataset": "s2", "flavour": "LoRA-QKV"}
    other = Models.of(load.with_settings("smoke", {"variants": ["s2-LoRA-all", named_s2]}))
    names = means.names_with(other)
    assert names["s2"] == ("s2", "LoRA-QKV") and names["s2-LoRA-all"][0] == "s2-LoRA-all"
    assert len({name for name, _ in names.values()}) == len(names)


def test_an_experiment_without_claims_has_none(monkeypatch, tmp_path):
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path))
    assert claims.judge(MINE.model_copy(update={"name": "mine"})) == []
