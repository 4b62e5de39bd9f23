"""How near completions come to the authors' texts, by hand."""

import numpy as np
import pandas as pd
import pytest
from drawn_figures import of

from feyntune.analysis.tables.nearness import nearness
from feyntune.errors import UserError
from feyntune.experiment.sections import Statistics

SETTINGS = Statistics(resamples=199, confidence=0.95, seed=1)
WANTED = ["base", "s1-LoRA-all", "s2-LoRA-all"]


def completed(semscore, tokens, entropy) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": ["a", "b", "c"],
            "semscore": semscore,
            "tokens": tokens,
            "entropy_exp": entropy,
            "truth_tokens": [10, 20, 30],
            "truth_entropy_exp": [5.0, 6.0, 7.0],
        }
    )


FRAMES = {
    "base": completed([0.2, 0.4, np.nan], [40, 50, 60], [1.0, 2.0, 3.0]),
    "s1-LoRA-all": completed([0.6, 0.6, 0.9], [12, 18, 30], [5.0, 6.0, 9.0]),
}


def table(frames=FRAMES) -> pd.DataFrame:
    return nearness(frames, of(WANTED), SETTINGS, absent="not run").set_index(["measure", "model"])


def test_means_distances_and_differences_by_hand():
    found = table()
    base, ours = found.loc[("length", "base")], found.loc[("length", "s1-LoRA-all")]
    assert (base["mean"], base["authors"], base["distance"]) == (50, 20, 30)
    assert (ours["mean"], ours["distance"]) == (20, pytest.approx(4 / 3))
    assert ours["difference"] == pytest.approx(4 / 3 - 30)
    assert ours["low"] <= ours["difference"] <= ours["high"] < 0
    assert np.isnan(base["difference"])
    entropy = found.loc[("entropy", "s1-LoRA-all")]
    assert (entropy["distance"], entropy["difference"]) == (
        pytest.approx(2 / 3),
        pytest.approx(2 / 3 - 4),
    )


def test_a_completion_that_could_not_be_scored_is_left_out_for_all():
    found = table()
    assert found.loc[("SemScore", "s1-LoRA-all"), "abstracts"] == 2
    assert found.loc[("SemScore", "s1-LoRA-all"), "mean"] == pytest.approx(0.6)
    assert found.loc[("SemScore", "base"), "distance"] == pytest.approx(0.7)
    assert found.loc[("length", "base"), "abstracts"] == 3


def test_what_is_not_there_is_empty_and_never_zero():
    found = table()
    assert found.loc[("entropy", "s2-LoRA-all"), "note"] == "not run"
    assert found.loc[("entropy", "s2-LoRA-all")].drop("note").isna().all()
    without_base = table({"s1-LoRA-all": FRAMES["s1-LoRA-all"]})
    assert np.isnan(without_base.loc[("length", "s1-LoRA-all"), "difference"])
    assert table({})["note"].eq("not run").all()


def test_a_measure_that_was_not_made_is_left_out():
    frames = {name: frame.drop(columns="truth_tokens") for name, frame in FRAMES.items()}
    assert {*table(frames).index.get_level_values("measure")} == {"SemScore", "entropy"}


def test_where_nothing_was_scored_nothing_is_compared():
    """As of released scores, which have no SemScore of continuations."""
    found = table({name: frame.assign(semscore=np.nan) for name, frame in FRAMES.items()})
    assert found.loc["SemScore"][["mean", "difference"]].isna().all(axis=None)
    assert found.loc[("length", "s1-LoRA-all"), "abstracts"] == 3


def test_an_abstract_without_a_continuation_is_left_out():
    frames = {name: f.assign(truth_entropy_exp=[5.0, 6.0, np.nan]) for name, f in FRAMES.items()}
    assert table(frames).loc[("entropy", "base"), "abstracts"] == 2


def test_models_of_other_abstracts_are_refused():
    other = FRAMES["s1-LoRA-all"].assign(id=["a", "b", "x"])
    with pytest.raises(UserError, match="different abstracts"):
        table({**FRAMES, "s1-LoRA-all": other})
