"""Models side by side: what is compared, what is refused."""

import pytest
from smoke_results import ALL, QKV, SMOKE

from feyntune.errors import UserError
from feyntune.experiment import load
from feyntune.explore import comparison


def frame(metric, shift):
    import pandas as pd

    values = [40.0, 50.0, 61.0, 70.0]
    return pd.DataFrame(
        {
            "id": list("abcd"),
            "bytes": [9, 8, 7, 6],
            metric.column: [value * shift for value in values],
        }
    )


@pytest.fixture
def found(monkeypatch):
    """Base and both variants of smoke, with invented scores."""
    shifts = {"base": 2.0, ALL: 1.0, QKV: 1.5}
    monkeypatch.setattr(
        comparison.Model, "scores", lambda self, metric: frame(metric, shifts[self.name])
    )
    return [comparison.Model(SMOKE, name) for name in shifts]


def test_differences_are_from_the_first_that_is_named(found):
    table = comparison.scores(found)
    assert table["perplexity"].tolist() == pytest.approx([110.5, 55.25, 82.875])
    difference = table["perplexity_difference"]
    assert difference[f"smoke/{QKV}"] == pytest.approx(82.875 - 55.25)
    assert difference.isna()[f"smoke/{ALL}"]
    row = table.loc[f"smoke/{QKV}"]
    assert row["perplexity_difference_low"] < row["perplexity_difference"]


def test_only_what_differs_is_listed(found):
    differing = comparison.settings(found)
    assert list(differing.index) == ["training.lora.target_modules"]
    said = comparison.text(found)
    assert "says nothing" not in said and "say nothing about physics" in said
    assert "perplexity ↓" in said and "SemScore ↑" in said


def test_spread_over_seeds(found, monkeypatch):
    assert comparison.over_seeds(found).empty
    again = {"name": "again", "dataset": "s1", "flavour": "LoRA-all", "seed": 43}
    mine = load.with_settings("smoke", {"variants": [ALL, again]})
    shifts = {"base": 2.0, ALL: 1.0, QKV: 1.5, "again": 1.25}
    monkeypatch.setattr(
        comparison.Model, "scores", lambda self, metric: frame(metric, shifts[self.name])
    )
    # Also from another experiment, as all their settings are the same.
    found = [*found, comparison.Model(mine, "again")]
    table = comparison.over_seeds(found)
    assert table.index.tolist() == [f"smoke/{ALL}"]
    spread = table.loc[f"smoke/{ALL}", "perplexity"]
    assert spread.tolist() == pytest.approx([62.15625, 13.8125 / 2**0.5, 2])
    said = comparison.text(found)
    assert f"Over 2 seeds of smoke/{ALL}: perplexity 62.16 with standard deviation 9.77" in said


def test_other_abstracts_are_refused(found, monkeypatch):
    one, other, _ = found
    scores = comparison.Model.scores
    monkeypatch.setattr(
        comparison.Model,
        "scores",
        lambda self, metric: (
            scores(self, metric).assign(id=list("abce"))
            if self.name == ALL
            else scores(self, metric)
        ),
    )
    with pytest.raises(UserError, match="measured on different abstracts"):
        comparison._check_same_test_set([one, other])
