"""What the models score and write, and their differences: tables by hand."""

from math import log

import numpy as np
import pandas as pd
import pytest
from drawn_figures import MIXED, of

from feyntune.analysis.tables import scores
from feyntune.errors import UserError
from feyntune.experiment import load
from feyntune.experiment.sections import Statistics

SETTINGS = Statistics(resamples=199, confidence=0.95, seed=1)
WANTED = ["base", "s1-LoRA-all", "s2-LoRA-all", "s1-LoRA-QKV"]
ABSENT = "not run"


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
    table = by_model(scores.perplexity(FRAMES, of(WANTED), SETTINGS, absent=ABSENT))
    row = table.loc["s1-LoRA-all"]
    assert list(table.index) == WANTED
    assert (row["mean"], row["std"], row["q50"], row["max"], row["abstracts"]) == (4, 2, 4, 6, 3)
    nats = 10 * log(2) + 20 * log(4) + 30 * log(6)
    assert row["corpus_perplexity"] == pytest.approx(np.exp(nats / 60))
    assert row["bits_per_byte"] == pytest.approx(nats / log(2) / 240)
    assert row["low"] < 4 < row["high"]


def test_missing_model_keeps_an_empty_row():
    table = by_model(scores.perplexity(FRAMES, of(WANTED), SETTINGS, absent=ABSENT))
    row = table.loc["s2-LoRA-all"]
    assert row["note"] == "not run"
    assert row.drop("note").isna().all()


def test_source_floor_covers_exactly_the_test_abstracts():
    source = pd.DataFrame({"id": ["c", "b", "a", "other"], "nll": [30.0, 20.0, 10.0, 999.0]})
    table = by_model(scores.perplexity(FRAMES, of(WANTED), SETTINGS, source, absent=ABSENT))
    row = table.loc["source (exact)"]
    assert row["nats_per_abstract"] == 20
    assert row["bits_per_byte"] == pytest.approx(60 / log(2) / 240)
    assert "floor" in row["note"]


def test_models_on_different_abstracts_are_refused():
    frames = FRAMES | {"base": scored(2).head(2)}
    with pytest.raises(UserError, match="different abstracts: base lack"):
        scores.perplexity(frames, of(WANTED), SETTINGS, absent=ABSENT)


def test_differences_against_base_and_between_flavours():
    table = scores.perplexity_differences(FRAMES, of(WANTED), SETTINGS, absent=ABSENT)
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
    table = scores.semscore({"base": completed()}, ["base", "s1-LoRA-all"], SETTINGS, absent=ABSENT)
    table = table.set_index(["compared", "model"])
    row = table.loc[("continuation", "base")]
    assert (row["mean"], row["scored"], row["empty"]) == (pytest.approx(0.6), 2, 1)
    assert table.loc[("with prompt", "base"), "mean"] == pytest.approx(0.9)
    assert table.loc[("with prompt", "s1-LoRA-all"), "note"] == "not run"


def test_pairwise_cosine():
    one = {"abstracts": 3, "min": 0.1, "mean": 0.5, "sd": 0.2}
    one |= {"q25": 0.3, "q50": 0.5, "q75": 0.7, "max": 1.0}
    table = by_model(scores.pairwise_cosine({"base": one}, ["base", "s1-LoRA-all"], absent=ABSENT))
    assert table.loc["base", ["std", "abstracts"]].tolist() == [0.2, 3]
    assert table.loc["s1-LoRA-all", "note"] == "not run"


def test_completions_side_by_side():
    table = scores.completions(
        {"base": completed()}, ["base", "s1-LoRA-all"], absent=ABSENT, quoted=True, examples=2
    )
    assert table["text_of"].tolist() == ["prompt", "truth", "base", "s1-LoRA-all"] * 2
    long = table.loc[2, "text"]
    assert len(long) <= 400 and long.endswith("word …")
    assert table["note"].tolist() == ["", "", "", "not run"] * 2


def test_of_real_abstracts_a_link_stands_in_place_of_their_words():
    frame = completed()
    table = scores.completions({"base": frame}, ["base"], absent=ABSENT, quoted=False, examples=1)
    texts = table.set_index("text_of")["text"]
    assert texts["prompt"] == texts["truth"] == f"https://arxiv.org/abs/{frame['id'][0]}"
    assert texts["base"]


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
    table = scores.perplexity(released_frames(), of(wanted), SETTINGS, absent="not released")
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


def answers_of(semscores, statuses=None):
    found = pd.DataFrame(
        {
            "id": ["a", "b", "c", "d"][: len(semscores)],
            "semscore": semscores,
            "semscore_with_prompt": [None if s is None else 0.9 for s in semscores],
            "tokens": [10] * len(semscores),
            "entropy_exp": [5.0] * len(semscores),
        }
    ).astype({"semscore": float, "semscore_with_prompt": float})
    return found.assign(status=statuses) if statuses else found


ANSWERED = {"them": answers_of([0.8, None, 0.6], ["answered", "refused", "answered"])}


def test_a_real_model_is_not_compared_with_stand_ins_and_it_is_said_why():
    demo = load.load("demo").commercial.providers["stand-in"].model_dump()
    address = {"base_url": "https://them.example/v1", "model": "them-1"}
    given = {"commercial.providers": {"stand-in": demo, "them": demo | address}}
    apart = load.with_settings("demo", given).real_providers
    why = "answers of a real model, completions of a stand-in corpus and model"
    assert apart == {"them": why}
    answered = ANSWERED | {"stand-in": answers_of([0.5, 0.5, 0.5], ["answered"] * 3)}
    asked = {name: {"reason": None, "models": [name]} for name in answered}
    ours = {"base": answers_of([0.1, 0.2, 0.3])}
    table = scores.commercial(answered, ours, asked, ["base"], SETTINGS, absent=ABSENT, apart=apart)
    them, stand_in, base = by_model(table).loc[["them", "stand-in", "base"]].to_dict("records")
    assert them["note"] == f"not computed: {why}"
    assert [them[name] for name in ("prompts", "answers", "refused", "no_answer")] == [3, 2, 1, 0]
    found = ("semscore", "semscore_low", "semscore_high", "with_prompt", "entropy_exp", "tokens")
    assert all(np.isnan(them[name]) for name in found)
    assert stand_in["semscore"] == 0.5 and base["semscore"] == pytest.approx(0.2)


def test_a_real_base_is_compared_with_real_models():
    assert load.load("demo").real_providers == load.load("smoke").real_providers == {}
    assert load.load("paper").real_providers == load.load("published").real_providers == {}
    served = load.load("demo").commercial.providers["stand-in"].model_dump()
    asked = {"commercial.providers": {"x": served | {"base_url": "https://them.example/v1"}}}
    assert load.with_settings("demo", asked | {"base.model": "someone/model"}).real_providers == {}
    real_corpus = asked | {"data.snapshot": "arxiv.json"}
    assert "of a stand-in model" in load.with_settings("demo", real_corpus).real_providers["x"]


def test_commercial_models_beside_ours():
    answered = ANSWERED
    completed = {
        "base": answers_of([0.1, 0.2, 0.3, 0.9]),
        "s1-LoRA-QKV": answers_of([0.4, 0.6, 0.9]),
    }
    completed["s1-LoRA-QKV"].loc[2, "tokens"] = 0
    asked = {
        "them": {"reason": None, "models": ["them-1", "them-2"]},
        "others": {"reason": "OTHERS_KEY is not set", "models": []},
    }
    wanted = ["base", "s1-LoRA-all", "s1-LoRA-QKV"]
    table = by_model(scores.commercial(answered, completed, asked, wanted, SETTINGS, absent=ABSENT))
    assert list(table.index) == ["them", "others", "base", "s1-LoRA-all", "s1-LoRA-QKV"]
    counts = ["prompts", "answers", "refused", "no_answer"]
    assert table.loc["them", counts].tolist() == [3, 2, 1, 0]
    assert table.loc["them", "semscore"] == pytest.approx(0.7)
    assert table.loc["them", "answered_as"] == "them-1, them-2"
    # Base is judged on the abstracts that the others were given, not on its fourth.
    assert table.loc["base", "prompts"] == 3
    assert table.loc["base", "semscore"] == pytest.approx(0.2)
    assert table.loc["others", "note"] == "not asked: OTHERS_KEY is not set"
    assert table.loc["others", counts].isna().all()
    assert table["note"].tolist() == ["", "not asked: OTHERS_KEY is not set", "", "not run", ""]
    # A completion without a token is no answer.
    assert table.loc["s1-LoRA-QKV", counts].tolist() == [3, 2, 0, 1]
    assert table.loc["s1-LoRA-QKV", "semscore"] == pytest.approx(0.5)


def test_what_is_compared_differs_in_one_respect():
    frames = dict.fromkeys(MIXED.names, scored(1))
    table = scores.perplexity_differences(frames, MIXED, SETTINGS, absent=ABSENT)
    assert table[["comparison", "model", "reference"]].to_numpy().tolist() == [
        *(["with base", name, "base"] for name in MIXED.variants),
        ["between flavours", "s1-LoRA-all", "s1-DoRA"],
        ["between settings", "s1-hot", "s1-LoRA-all"],
    ]


def test_spread_over_seeds_stands_with_the_first_variant():
    frames = {"s1-LoRA-all": scored(1), "s1-again": scored(1.5), "s1-hot": scored(3)}
    table = by_model(scores.perplexity(frames, MIXED, SETTINGS, absent=ABSENT))
    row = table.loc["s1-LoRA-all", ["mean_over_seeds", "sd_over_seeds", "seeds"]]
    assert row.tolist() == [5, pytest.approx(np.sqrt(2)), 2]
    assert table.drop("s1-LoRA-all")["seeds"].isna().all()
    assert "seeds" not in scores.perplexity(FRAMES, of(WANTED), SETTINGS, absent=ABSENT)
