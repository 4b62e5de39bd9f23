"""What was done, as tables: datasets, overlap, settings, time and memory."""

from drawn_figures import of

from feyntune.analysis.tables import setup, writing
from feyntune.evaluation.grouping import Models
from feyntune.experiment import load
from feyntune.experiment.sections import Statistics

DEMO = load.load("demo")
PAPER = Models.of(DEMO)


def test_compute_totals_per_stage():
    def record(subject, seconds, peak):
        facts = {"tokens": 1000, "seconds": 4.0}
        return {"stage": "02_finetune", "subject": subject, "seconds": seconds, "facts": facts,
                "peak_memory_bytes": peak, "threads": 1}  # fmt: skip

    alone = {"stage": "01_data_curation", "subject": None, "seconds": 2.0, "facts": {}}
    runs = [record("s1-LoRA-all", 5.0, 2**30), record("s1-LoRA-QKV", 7.0, 2**31), alone]
    table = setup.compute(
        runs, [("03_perplexity", "base"), ("02_finetune", "s1-LoRA-all")], absent="not run"
    )
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
            for name, recipe in DEMO.recipes.items()
        }
    }  # fmt: skip
    table = setup.datasets(DEMO, curation, {}, PAPER).set_index("dataset")
    assert table.loc["s1", ["assignment", "paper_train"]].tolist() == ["released", 73_768]
    assert (table.loc["s4":"s10", "assignment"] == "inferred").all()
    assert table.loc["s7", "paper_rows"] == "not known"
    assert table.loc["s7", ["paper_train", "paper_validation", "paper_test"]].isna().all()
    settings = Statistics(resamples=199, confidence=0.95, seed=1)
    assert "inferred" in writing.caption("datasets", settings)["notes"][0]


def test_datasets_without_curation_keep_the_papers_rows():
    table = setup.datasets(DEMO, None, {}, PAPER).set_index("dataset")
    assert not {"train", "validation", "test"} & set(table)
    assert table.loc["s3", "paper_train"] == 210_904
    assert not [name for name in table if name.startswith("card")]


def test_datasets_say_what_the_model_cards_say():
    cards = {
        "s5-LoRA-all": {"datasets": ["LLMsForHepth/hep-th_85_gr-qc_15"], "verdict": "confirmed"},
        "s5-LoRA-QKV": {"datasets": ["a/b", "c/d"], "verdict": "contradicted"},
        "s6-LoRA-all": {"datasets": [], "verdict": "not said"},
    }
    table = setup.datasets(DEMO, None, cards, PAPER).set_index("dataset")
    assert table.loc["s5", "card_LoRA-all"] == "confirmed"
    assert table.loc["s5", "card_LoRA-QKV"] == "contradicted: a/b, c/d"
    assert table.loc["s6", "card_LoRA-all"] == "not said"
    assert table.loc["s6", "card_LoRA-QKV"] == "not fetched"


def test_hyperparameters_list_every_training_setting():
    hot = {"name": "s2-hot", "dataset": "s2", "flavour": "LoRA-QKV"}
    hot["training"] = {"learning_rate": 1.0e-3}
    demo = load.with_settings("demo", {"variants": ["all", hot]})
    trainable = {"s3-LoRA-all": {"count": 20_971_520, "share": 0.0026}}
    table = setup.hyperparameters(demo, Models.of(demo), trainable).set_index("setting")
    assert table.loc["LoRA target modules", "LoRA-QKV"] == "q_proj, k_proj, v_proj"
    assert table.loc["trainable parameters"].tolist() == ["20,971,520", "unknown"]
    assert table.loc["differs: s2-hot"].tolist() == ["", "learning_rate 0.001"]
    settings = {key.replace("_", " ") for key in type(demo.training).model_fields} - {
        "lora",
        "lr scheduler kwargs",
        "report to",
    }
    assert settings <= set(table.index)


def test_overlap_counts_and_shares():
    def dataset(train, ids, texts, near):
        overlap = {"ids": ids, "texts": texts, "near_duplicates": near}
        return {"title": "mix", "rows": {"train": train}, "overlap_with_s1_test": overlap}

    curation = {
        "datasets": {"s1": dataset(70, 0, 0, 1), "s2": dataset(150, 5, 10, 20)},
        "test": {"abstracts": 40, "after_knowledge": 3, "knowledge_until": 2023},
    }
    table = setup.overlap(curation).set_index("dataset")
    assert list(table.index) == ["s1", "s2"]
    assert table["train"].tolist() == [70, 150]
    kinds = ["ids", "ids_percent", "texts", "texts_percent"]
    kinds += ["near_duplicates", "near_duplicates_percent"]
    assert table.loc["s2", kinds].tolist() == [5, 12.5, 10, 25, 20, 50]
    assert table.loc["s1", kinds].tolist() == [0, 0, 0, 0, 1, 2.5]
    age = table[["test_abstracts", "knowledge_until", "test_after_knowledge"]]
    assert age.to_numpy().tolist() == [[40, "2023", 3]] * 2


def test_hyperparameters_have_a_column_per_flavour_there_is():
    demo = load.load("demo")
    table = setup.hyperparameters(demo, of(["s1-LoRA-QKV", "s2-LoRA-QKV"]), {})
    assert list(table) == ["setting", "LoRA-QKV"]


def test_where_a_training_is_reported_to_is_in_no_table():
    """The figures' key does not have it: the table would otherwise say what is no longer set."""
    tables = [
        setup.hyperparameters(
            load.load("smoke", {"training.report_to": name}), of(["s1-LoRA-all"]), {}
        )
        for name in ("none", "wandb")
    ]
    assert tables[0].equals(tables[1]) and "report to" not in set(tables[0]["setting"])
