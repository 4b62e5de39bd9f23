"""Hand-computed tables, and files that scripts, Markdown and LaTeX can read."""

from math import log

import numpy as np
import pandas as pd
import pytest

from feyntune.analysis.tables import captions, scores, setup, writing
from feyntune.errors import UserError
from feyntune.experiment import load, recipes
from feyntune.experiment.sections import Statistics

SETTINGS = Statistics(resamples=199, confidence=0.95, seed=1)
LABEL = "stand-in corpus and model"
WANTED = ["base", "s1-LoRA-all", "s2-LoRA-all", "s1-LoRA-QKV"]


def scored(factor: float) -> pd.DataFrame:
    tokens = np.array([10, 20, 30])
    perplexity = np.array([2.0, 4.0, 6.0]) * factor
    return pd.DataFrame(
        {
            "id": ["a", "b", "c"],
            "nll": tokens * np.log(perplexity),
            "tokens": tokens,
            "bytes": [40, 80, 120],
            "perplexity": perplexity,
        }
    )


def completed() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": ["a", "b", "c"],
            "prompt": ["We study $N=4$ & more."] * 3,
            "truth": ["It is 50% of a_b."] * 3,
            "completion": ["word " * 200, "", "short"],
            "tokens": [200, 0, 1],
            "semscore": [0.5, np.nan, 0.7],
            "semscore_with_prompt": [0.8, 0.9, 1.0],
        }
    )


FRAMES = {"base": scored(2), "s1-LoRA-all": scored(1), "s1-LoRA-QKV": scored(1.5)}


def by_model(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_index("model")


def test_perplexity_headline_and_pooled():
    table = by_model(scores.perplexity(FRAMES, WANTED, SETTINGS))
    row = table.loc["s1-LoRA-all"]
    assert list(table.index) == WANTED
    assert (row["mean"], row["std"], row["q50"], row["max"], row["abstracts"]) == (4, 2, 4, 6, 3)
    nats = 10 * log(2) + 20 * log(4) + 30 * log(6)
    assert row["corpus_perplexity"] == pytest.approx(np.exp(nats / 60))
    assert row["bits_per_byte"] == pytest.approx(nats / log(2) / 240)
    assert row["low"] < 4 < row["high"]


def test_missing_model_keeps_an_empty_row():
    table = by_model(scores.perplexity(FRAMES, WANTED, SETTINGS))
    row = table.loc["s2-LoRA-all"]
    assert row["note"] == "not run"
    assert row.drop("note").isna().all()


def test_source_floor_covers_exactly_the_test_abstracts():
    source = pd.DataFrame({"id": ["c", "b", "a", "other"], "nll": [30.0, 20.0, 10.0, 999.0]})
    table = by_model(scores.perplexity(FRAMES, WANTED, SETTINGS, source))
    row = table.loc["source (exact)"]
    assert row["nats_per_abstract"] == 20
    assert row["bits_per_byte"] == pytest.approx(60 / log(2) / 240)
    assert "floor" in row["note"]


def test_models_on_different_abstracts_are_refused():
    frames = FRAMES | {"base": scored(2).head(2)}
    with pytest.raises(UserError, match="different abstracts: base lack"):
        scores.perplexity(frames, WANTED, SETTINGS)


def test_differences_against_base_and_between_flavours():
    table = scores.perplexity_differences(FRAMES, WANTED, SETTINGS)
    pairs = table.set_index(["model", "reference"])
    assert list(pairs.index) == [
        ("s1-LoRA-all", "base"),
        ("s2-LoRA-all", "base"),
        ("s1-LoRA-QKV", "base"),
        ("s1-LoRA-all", "s1-LoRA-QKV"),
    ]
    assert pairs.loc[("s1-LoRA-all", "base"), "difference"] == -4
    assert pairs.loc[("s1-LoRA-all", "base"), "relative_percent"] == -50
    assert pairs.loc[("s1-LoRA-all", "s1-LoRA-QKV"), "comparison"] == "between flavours"
    assert pairs["p"].dropna().tolist() == [0.25] * 3  # all of 2**3 sign flips, two as large
    assert pairs["p_holm"].dropna().tolist() == [0.75] * 3
    assert pairs.loc[("s2-LoRA-all", "base"), "note"] == "not run"


def test_semscore_counts_what_could_not_be_scored():
    table = scores.semscore({"base": completed()}, ["base", "s1-LoRA-all"], SETTINGS)
    table = table.set_index(["compared", "model"])
    row = table.loc[("continuation", "base")]
    assert (row["mean"], row["scored"], row["empty"]) == (pytest.approx(0.6), 2, 1)
    assert table.loc[("with prompt", "base"), "mean"] == pytest.approx(0.9)
    assert table.loc[("with prompt", "s1-LoRA-all"), "note"] == "not run"


def test_pairwise_cosine():
    one = {"abstracts": 3, "min": 0.1, "mean": 0.5, "sd": 0.2}
    one |= {"q25": 0.3, "q50": 0.5, "q75": 0.7, "max": 1.0}
    table = by_model(scores.pairwise_cosine({"base": one}, ["base", "s1-LoRA-all"]))
    assert table.loc["base", ["std", "abstracts"]].tolist() == [0.2, 3]
    assert table.loc["s1-LoRA-all", "note"] == "not run"


def test_completions_side_by_side():
    table = scores.completions({"base": completed()}, ["base", "s1-LoRA-all"], examples=2)
    assert table["text_of"].tolist() == ["prompt", "truth", "base", "s1-LoRA-all"] * 2
    long = table.loc[2, "text"]
    assert len(long) <= 400 and long.endswith("word …")
    assert table["note"].tolist() == ["", "", "", "not run"] * 2


def test_compute_totals_per_stage():
    def record(subject, seconds, peak):
        facts = {"tokens": 1000, "seconds": 4.0}
        return {"stage": "02_finetune", "subject": subject, "seconds": seconds, "facts": facts,
                "peak_memory_bytes": peak, "threads": 1}  # fmt: skip

    alone = {"stage": "01_data_curation", "subject": None, "seconds": 2.0, "facts": {}}
    runs = [record("s1-LoRA-all", 5.0, 2**30), record("s1-LoRA-QKV", 7.0, 2**31), alone]
    table = setup.compute(runs, [("03_perplexity", "base"), ("02_finetune", "s1-LoRA-all")])
    table = table.set_index(["stage", "subject"])
    assert len(table) == 5
    whole = table.loc[("02_finetune", "all")]
    assert (whole["seconds"], whole["tokens"], whole["tokens_per_second"]) == (12, 2000, 250)
    assert whole["peak_memory_GiB"] == 2
    assert table.loc[("03_perplexity", "base"), "note"] == "not run"


def test_datasets_never_state_an_inference_as_fact():
    curation = {
        "datasets": {
            name: {
                "title": recipe.title, "hub": recipe.hub, "certainty": recipe.certainty,
                "rows_certainty": recipe.rows_certainty, "paper_rows": recipe.paper_rows,
                "rows": {"train": 70, "validation": 15, "test": 15},
            }
            for name, recipe in recipes.RECIPES.items()
        }
    }  # fmt: skip
    table = setup.datasets(curation, {}).set_index("dataset")
    assert table.loc["s1", ["assignment", "paper_train"]].tolist() == ["released", 73_768]
    assert (table.loc["s4":"s10", "assignment"] == "inferred").all()
    assert table.loc["s7", "paper_rows"] == "not known"
    assert table.loc["s7", ["paper_train", "paper_validation", "paper_test"]].isna().all()
    assert "inferred" in captions.describe("datasets", SETTINGS)["notes"][0]


def test_datasets_without_curation_keep_the_papers_rows():
    table = setup.datasets(None, {}).set_index("dataset")
    assert not {"train", "validation", "test"} & set(table)
    assert table.loc["s3", "paper_train"] == 210_904
    assert not [name for name in table if name.startswith("card")]


def test_datasets_say_what_the_model_cards_say():
    cards = {
        "s5-LoRA-all": {"datasets": ["LLMsForHepth/hep-th_85_gr-qc_15"], "verdict": "confirmed"},
        "s5-LoRA-QKV": {"datasets": ["a/b", "c/d"], "verdict": "contradicted"},
        "s6-LoRA-all": {"datasets": [], "verdict": "not said"},
    }
    table = setup.datasets(None, cards).set_index("dataset")
    assert table.loc["s5", "card_LoRA-all"] == "confirmed"
    assert table.loc["s5", "card_LoRA-QKV"] == "contradicted: a/b, c/d"
    assert table.loc["s6", "card_LoRA-all"] == "not said"
    assert table.loc["s6", "card_LoRA-QKV"] == "not fetched"


def released_frames() -> dict[str, pd.DataFrame]:
    """Results as they are made of released scores: no NLL, no token counts."""
    ids = [f"p{number}" for number in range(20)]
    return {
        model: pd.DataFrame(
            {
                "id": ids,
                "nll": np.nan,
                "tokens": pd.array([pd.NA] * 20, "Int64"),
                "bytes": 500,
                "perplexity": np.linspace(level, level + 1, 20),
            }
        )
        for model, level in (("base", 9.0), ("s1-LoRA-all", 7.0))
    }


def test_what_needs_unreleased_counts_is_empty_and_never_zero():
    wanted = ["base", "s1-LoRA-all", "s2-LoRA-all"]
    table = scores.perplexity(released_frames(), wanted, SETTINGS, absent="not released")
    table = table.set_index("model")
    unknown = ["corpus_perplexity", "bits_per_byte", "nats_per_abstract"]
    assert table[unknown].isna().all(axis=None)
    assert table.loc["base", "mean"] == 9.5
    assert table["note"].tolist() == ["", "", "not released"]


def test_a_score_of_no_abstract_is_absent():
    frame = pd.DataFrame(
        {"id": ["a", "b"], "semscore": np.nan, "semscore_with_prompt": [0.5, 0.7], "tokens": 3}
    )
    table = scores.semscore({"base": frame}, ["base"], SETTINGS, absent="not released")
    found = table.set_index("compared")
    assert found.loc["continuation", "note"] == "not released"
    assert np.isnan(found.loc["continuation", "mean"])
    assert found.loc["with prompt", "mean"] == pytest.approx(0.6)


def test_hyperparameters_list_every_training_setting():
    demo = load.load("demo", {"overrides": {"s2-LoRA-QKV": {"learning_rate": 1.0e-3}}})
    trainable = {"LoRA-all": {"count": 20_971_520, "share": 0.0026}}
    table = setup.hyperparameters(demo, trainable).set_index("setting")
    assert table.loc["LoRA targets", "LoRA-QKV"] == "q_proj, k_proj, v_proj"
    assert table.loc["trainable parameters"].tolist() == ["20,971,520", "none"]
    assert table.loc["override s2-LoRA-QKV"].tolist() == ["", "learning_rate 0.001"]
    settings = {key.replace("_", " ") for key in type(demo.training).model_fields} - {"lora"}
    assert settings <= set(table.index)


@pytest.mark.parametrize("name", captions.LOOKS)
def test_every_table_is_described(name):
    look = captions.describe(name, SETTINGS)
    assert look["title"]
    assert not any("{" in note for note in look["notes"])


@pytest.fixture
def written(tmp_path):
    frame = pd.DataFrame(
        {
            "model": ["base", r"50% of a_b & $x$ \y{z} #1 ~^", "a | b <c>"],
            "bits_per_byte": [1 / 3, 1e-7, np.nan],
            "rows": pd.array([73_768, None, 3], dtype="Int64"),
        }
    )

    def write(label):
        writing.write(
            frame, tmp_path / "t", title="A & B", label=label, notes=["100% of x_y"], decimals=2
        )
        return {end: (tmp_path / f"t.{end}").read_bytes().decode() for end in ("csv", "md", "tex")}

    return write


def test_csv_is_plain(written, tmp_path):
    lines = written(LABEL)["csv"].split("\n")
    assert lines[0] == "model,bits_per_byte,rows,label"
    assert lines[1] == f"base,0.333333,73768,{LABEL}"
    assert lines[3] == f"a | b <c>,,3,{LABEL}"
    written(None)
    assert pd.read_csv(tmp_path / "t.csv")["label"].isna().all()


def test_markdown(written):
    text = written(LABEL)["md"]
    assert text.startswith(f"# A & B\n\n***{LABEL}***\n\n| model")
    assert "bits per byte" in text and "73,768" in text and "0.33" in text
    assert "1e-07" in text  # not rounded to a zero that it is not
    assert r"a \| b \<c\>" in text
    assert text.endswith("100% of x_y\n")
    assert LABEL not in written(None)["md"]


def test_latex_is_escaped_and_labelled(written):
    text = written(LABEL)["tex"]
    escaped = (
        r"50\% of a\_b \& \$x\$ \textbackslash{}y\{z\} \#1 \textasciitilde{}\textasciicircum{}"
    )
    assert escaped in text
    assert rf"\caption{{A \& B. \textbf{{\emph{{{LABEL}}}}}.}}" in text
    assert r"\toprule" in text and r"\bottomrule" in text
    assert r"100\% of x\_y" in text
    assert LABEL not in written(None)["tex"]


def test_rewriting_changes_no_byte(written, tmp_path):
    assert written(LABEL) == written(LABEL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.csv", "t.md", "t.tex"]


def test_tables_of_nothing_can_be_written(tmp_path):
    empty = [
        scores.perplexity({}, WANTED, SETTINGS),
        scores.perplexity_differences({}, WANTED, SETTINGS),
        scores.semscore({}, WANTED, SETTINGS),
        scores.pairwise_cosine({}, WANTED),
        scores.completions({}),
        setup.compute([]),
    ]
    for number, table in enumerate(empty):
        writing.write(table, tmp_path / str(number), title="x", label=None)
        assert set(table["note"]) <= {"not run"}
