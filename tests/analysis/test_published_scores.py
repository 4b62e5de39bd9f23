"""The authors' released scores become result files: by name, checked, what is missing named."""

from __future__ import annotations

import mirror
import numpy as np
import pandas as pd
import pytest

from feyntune.analysis import published_scores
from feyntune.data.fetch import download
from feyntune.errors import UserError
from feyntune.experiment import load
from feyntune.experiment.recipes import MODELS, VARIANTS, released_name
from feyntune.runs import records

ABSTRACTS = 30


def make(folder, settings=None, **changes):
    """Build a mirror with changes, fetch from it, and make result files of it."""
    built = mirror.build(folder / "mirror", abstracts=ABSTRACTS, **changes)
    settings = load.with_settings("published", built.overrides | (settings or {}))
    download.fetch(settings, settings.outside, mirror=built.folder, report=lambda line: None)
    published_scores.make(settings)
    return settings


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """Import a release with changes."""
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path / "output"))
    return lambda **changes: make(tmp_path, **changes)


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """A release that lacks nothing, imported once."""
    folder = tmp_path_factory.mktemp("complete")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEYNTUNE_OUTPUT", str(folder / "output"))
        return folder, make(folder, steps=36)


@pytest.fixture
def whole(complete, monkeypatch):
    """That release, for tests that only read: its folder and experiment."""
    folder, settings = complete
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(folder / "output"))
    return folder, settings


def fact(settings, key):
    return records.read(settings.paths.released)[key]


def original(folder, source: str) -> pd.DataFrame:
    repository = folder / "mirror" / "datasets" / "LLMsForHepth" / mirror.SCORES[source]
    return pd.read_parquet(repository / mirror.PARQUET)


def without(*columns):
    return lambda frame: frame.drop(columns=list(columns))


def test_every_model_gets_its_own_column(whole):
    folder, settings = whole
    paths = settings.paths
    scores, texts = original(folder, "perplexities"), original(folder, "completions")
    for model in MODELS:
        name = released_name(model)
        frame = pd.read_parquet(paths.perplexity(model))
        assert list(frame.columns) == ["id", "nll", "tokens", "bytes", "perplexity"]
        assert frame["perplexity"].tolist() == scores[f"perplexity_{name}"].tolist()
        assert frame["nll"].isna().all() and frame["tokens"].isna().all(), "these are not released"
        written = pd.read_parquet(paths.completions(model))
        assert written["completion"].tolist() == texts[f"preds_{name}"].str.strip().tolist()
        assert written["semscore"].isna().all()
    test = pd.read_parquet(paths.split("s1", "test"))
    assert test["id"].tolist() == scores["id"].tolist()
    created = scores["versions"].map(lambda versions: int(versions[0]["created"].split()[3]))
    assert test["year"].tolist() == created.tolist()
    assert fact(settings, "left_out") == {}
    assert fact(settings, "missing") == {
        "sources": {},
        "perplexity": {},
        "completions": {},
        "logs": {},
        "ratings": {},
    }


def test_columns_are_found_by_name_whatever_their_order(imported, tmp_path):
    def shuffled(frame):
        return frame[list(np.random.default_rng(0).permutation(frame.columns))]

    settings = imported(frames=dict.fromkeys(mirror.SCORES, shuffled))
    scores = original(tmp_path, "perplexities")
    for model in MODELS:
        found = pd.read_parquet(settings.paths.perplexity(model))["perplexity"]
        assert found.tolist() == scores[f"perplexity_{released_name(model)}"].tolist()


def test_rows_of_another_order_are_joined_by_id(imported, tmp_path):
    settings = imported(frames={"semscores": lambda frame: frame[::-1]})
    scores = original(tmp_path, "semscores").set_index("id")
    found = pd.read_parquet(settings.paths.completions("base"))
    expected = scores.loc[found["id"], f"score_{released_name('base')}"]
    assert found["semscore_with_prompt"].tolist() == expected.tolist()
    prompts = pd.read_parquet(settings.paths.split("s1", "test"))["abstract"]
    assert all(map(str.startswith, prompts, found["prompt"]))


def test_diversity_is_of_words(whole):
    _, settings = whole
    frame = pd.read_parquet(settings.paths.completions("s2-LoRA-all"))
    words = [text.split() for text in frame["completion"]]
    assert frame["tokens"].tolist() == [len(each) for each in words]
    shares = pd.Series(words[0]).value_counts(normalize=True)
    assert frame["entropy_exp"][0] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))


def test_what_is_not_released_is_named_and_not_written(imported):
    settings = imported(
        frames={
            "perplexities": without("perplexity_s10-L-3.1-8B-qkv"),
            "completions": without("comp_s10-L-3.1-8B-qkv", "preds_s10-L-3.1-8B-qkv"),
            "semscores": without("score_s9-L-3.1-8B-base"),
        },
        without=["s1-LoRA-QKV/log"],
    )
    missing, paths = fact(settings, "missing"), settings.paths
    assert missing["perplexity"] == {"s10-LoRA-QKV": "no column perplexity_s10-L-3.1-8B-qkv"}
    assert set(missing["completions"]) == {"s10-LoRA-QKV", "s9-LoRA-all (SemScore)"}
    assert missing["logs"] == {"s1-LoRA-QKV": "no trainer_state.json"}
    assert not paths.perplexity("s10-LoRA-QKV").exists()
    assert not paths.completions("s10-LoRA-QKV").exists()
    assert not paths.log("s1-LoRA-QKV").exists() and paths.log("s1-LoRA-all").exists()
    unscored = pd.read_parquet(paths.completions("s9-LoRA-all"))
    assert unscored["semscore_with_prompt"].isna().all() and (unscored["tokens"] > 0).all()


def test_a_score_that_can_be_none_is_not_used(imported):
    spoiled = {"s4": (np.nan, "no number for 1"), "s5": (np.inf, "no number for 1")}
    spoiled |= {"s6": (0.5, "below 1")}

    def spoil(frame):
        for dataset, (value, _) in spoiled.items():
            frame.loc[3, f"perplexity_{dataset}-L-3.1-8B-base"] = value
        return frame

    settings = imported(frames={"perplexities": spoil})
    for dataset, (_, said) in spoiled.items():
        assert said in fact(settings, "missing")["perplexity"][f"{dataset}-LoRA-all"]
        assert not settings.paths.perplexity(f"{dataset}-LoRA-all").exists()
        assert settings.paths.perplexity(f"{dataset}-LoRA-QKV").exists()


def test_a_model_that_is_none_of_the_21_is_named(imported):
    def add(frame):
        return frame.assign(**{"perplexity_s1-L-3.1-8B-qkv": 5.0, "note": "x"})

    settings = imported(frames={"perplexities": add})
    expected = {"perplexities": ["note", "perplexity_s1-L-3.1-8B-qkv"]}
    assert fact(settings, "unexpected_columns") == expected


def test_completions_without_prompts_are_none(imported):
    settings = imported(frames={"completions": without("y_true")})
    assert set(fact(settings, "missing")["completions"]) == set(MODELS)
    assert not settings.paths.completions("base").exists()
    assert settings.paths.perplexity("base").exists()


def test_a_missing_completion_is_no_empty_one(imported):
    def spoil(frame):
        frame.loc[2, "preds_s6-L-3.1-8B-qkv"] = None
        return frame

    settings = imported(frames={"completions": spoil})
    assert "is empty for 1" in fact(settings, "missing")["completions"]["s6-LoRA-QKV"]
    assert not settings.paths.completions("s6-LoRA-QKV").exists()


def test_what_claims_need_is_counted(whole):
    _, settings = whole
    rated = fact(settings, "ratings")
    assert (rated["count"], rated["source_slips"]) == (900, 9)
    assert set(rated["category_means"]) == {"Base", "LoRA-all", "LoRA-QKV", "Commercial"}


def test_the_log_is_that_of_the_furthest_checkpoint_and_says_its_split(whole):
    _, settings = whole
    log = pd.read_parquet(settings.paths.log("s1-LoRA-all"))
    assert log["step"].tolist() == list(range(37))
    assert log["loss"].notna().sum() == 36 and log["eval_perplexity"].notna().sum() == 10
    assert set(log["evaluated_on"]) == {"test"}, "the released code evaluates train and test"


def entry(step, **values):
    return {"step": step, "epoch": step / 2, **values}


def test_a_validation_split_is_preferred_and_the_last_checkpoint_wins():
    both = {f"eval_{s}_mean_batch_perplexity": v for s, v in (("test", 9.0), ("validation", 8.0))}
    early = {"global_step": 1, "log_history": [entry(1, loss=3.0)]}
    late = {
        "global_step": 2,
        "log_history": [entry(1, loss=3.0), entry(2, loss=2.0), entry(2, **both)],
    }
    log = published_scores.training_log([late, early])
    assert log["loss"].tolist() == [3.0, 2.0]
    assert log["eval_perplexity"].tolist()[1:] == [8.0]
    assert set(log["evaluated_on"]) == {"validation"}


def test_a_log_that_cannot_be_used_is_named(imported):
    changes = {
        "s1-LoRA-all": lambda state: {**state, "log_history": []},
        "s1-LoRA-QKV": lambda state: {"global_step": 3},
    }
    settings = imported(logs=changes)
    missing = fact(settings, "missing")["logs"]
    assert "no losses" in missing["s1-LoRA-all"] and "no trainer state" in missing["s1-LoRA-QKV"]
    assert not any(settings.paths.log(variant).exists() for variant in changes)
    endless = [{"global_step": 1, "log_history": [entry(1, loss=float("nan"))]}]
    with pytest.raises(UserError, match="step 1 is not a number"):
        published_scores.training_log(endless)


def test_an_earlier_import_leaves_nothing_behind(imported, tmp_path):
    settings = imported()
    stray = settings.paths.perplexity("s10-LoRA-QKV")
    stray.write_text("of an earlier import")
    (tmp_path / "mirror").rename(tmp_path / "old")
    built = mirror.build(
        tmp_path / "mirror",
        abstracts=ABSTRACTS,
        frames={"perplexities": without("perplexity_s10-L-3.1-8B-qkv")},
    )
    again = load.with_settings("published", built.overrides)
    download.fetch(again, again.outside, mirror=built.folder, update=True, report=lambda line: None)
    published_scores.make(again)
    assert not stray.exists()


def test_the_ratings_are_kept_as_they_were(whole):
    folder, settings = whole
    given = folder / "mirror" / "web" / mirror.RATINGS
    assert settings.paths.ratings.read_bytes() == given.read_bytes()


def test_ratings_that_cannot_be_read_are_none(imported):
    settings = imported(ratings=lambda frame: frame.replace({"score": {frame["score"][0]: 11}}))
    assert "score is '11'" in fact(settings, "missing")["ratings"]["all"]
    assert not settings.paths.ratings.exists()


def test_only_the_experiments_models_are_imported(imported):
    settings = imported(settings={"variants": ["s1-LoRA-all"]})
    found = {path.stem for path in settings.paths.perplexity("base").parent.glob("*.parquet")}
    assert found == {"base", "s1-LoRA-all"} and len(VARIANTS) == 20
