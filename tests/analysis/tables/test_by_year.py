"""Mean perplexities by year, and gains on both sides of the cut-off, by hand."""

import numpy as np
import pandas as pd
import pytest
from drawn_figures import ABSENT, SETTINGS, YEARS, scored

from feyntune.analysis.tables import by_year, writing
from feyntune.errors import UserError
from feyntune.experiment.sections import Statistics

WANTED = ["base", "s1-LoRA-all", "s2-LoRA-all", "s1-LoRA-QKV"]
FRAMES = {
    "base": scored(8, 12, 10, 20, 30),
    "s1-LoRA-all": scored(4, 8, 9, 18, 27),
    "s1-LoRA-QKV": scored(8, 12, 10, 10, 35),
}


def test_means_of_every_year():
    table = by_year.by_year(FRAMES, YEARS, WANTED)
    assert list(table.columns) == ["year", "abstracts", *WANTED]
    assert table["year"].tolist() == ["1999", "2023", "2024", "2025"]
    assert table["abstracts"].tolist() == [2, 1, 1, 1]
    assert table["base"].tolist() == [10, 10, 20, 30]
    assert table["s1-LoRA-all"].tolist() == [6, 9, 18, 27]
    assert table["s2-LoRA-all"].isna().all()


def test_order_of_the_abstracts_does_not_matter():
    turned = {name: frame.iloc[::-1] for name, frame in FRAMES.items()}
    pd.testing.assert_frame_equal(
        by_year.by_year(turned, YEARS.iloc[::-1], WANTED), by_year.by_year(FRAMES, YEARS, WANTED)
    )


def by_model(frames=FRAMES, until: int = 2023, settings: Statistics = SETTINGS) -> pd.DataFrame:
    table = by_year.cutoff(frames, YEARS, until, WANTED, settings, absent=ABSENT)
    return table.set_index("model")


def test_means_and_gains_on_both_sides_of_the_cutoff():
    table = by_model()
    assert list(table.index) == WANTED
    row = table.loc["s1-LoRA-all"]
    assert row[["until_abstracts", "after_abstracts"]].tolist() == [3, 2]
    assert row[["until_mean", "after_mean"]].tolist() == [7, 22.5]
    gains = row[["until_gain_percent", "after_gain_percent", "difference"]]
    assert gains.tolist() == pytest.approx([30, 10, -20])
    assert table.loc["s1-LoRA-QKV", ["until_gain_percent", "after_gain_percent"]].tolist() == [
        0,
        10,
    ]


def test_base_gains_nothing_and_the_rest_is_not_run():
    table = by_model()
    gains = [name for name in table if "gain" in name or "difference" in name]
    assert len(gains) == 9
    assert table.loc["base", gains].isna().all()
    assert table.loc["base", ["until_low", "until_high", "after_low", "after_high"]].notna().all()
    missing = table.loc["s2-LoRA-all"].drop(["until_abstracts", "after_abstracts"])
    assert missing.pop("note") == "not run"
    assert missing.isna().all()


def test_intervals_are_paired_within_and_independent_between_periods():
    rng = np.random.default_rng(4)
    ids = [f"x{at}" for at in range(50)]
    base = rng.uniform(5, 10, 50)
    model = base * rng.uniform(0.7, 1.0, 50)
    frames = {
        name: pd.DataFrame({"id": ids, "perplexity": values})
        for name, values in (("base", base), ("s1-LoRA-all", model))
    }
    when = pd.Series([2020] * 30 + [2024] * 20, index=ids)
    row = by_year.cutoff(frames, when, 2023, WANTED, SETTINGS, absent=ABSENT).iloc[1]
    gains = []
    for number, part in enumerate((slice(0, 30), slice(30, 50))):
        size = len(base[part])
        draws = np.random.RandomState([1, number]).randint(0, size, (199, size))
        ratio = model[part][draws].mean(axis=1) / base[part][draws].mean(axis=1)
        gains.append(100 * (1 - ratio))
    for name, expected in zip(
        ("until_gain", "after_gain", "difference"), (*gains, gains[1] - gains[0]), strict=True
    ):
        ends = np.quantile(expected, [0.05, 0.95])
        assert row[[f"{name}_low", f"{name}_high"]].tolist() == pytest.approx(ends.tolist())


def test_a_constant_gain_has_no_spread():
    frames = FRAMES | {"s1-LoRA-all": scored(6, 9, 7.5, 15, 22.5)}
    row = by_model(frames).loc["s1-LoRA-all"]
    ends = ["gain_low", "gain_high"]
    assert [row[f"{period}_{end}"] for period in by_year.PERIODS for end in ends] == pytest.approx(
        [25] * 4
    )
    assert row["until_low"] < row["until_mean"] < row["until_high"]


@pytest.mark.parametrize(
    ("until", "note"),
    [(2024, "only 4 until the cut-off; only 1 after the cut-off"),
     (2025, "only 5 until the cut-off; only 0 after the cut-off")],
)  # fmt: skip
def test_few_abstracts_are_named_and_fewer_than_two_have_no_interval(until, note):
    row = by_model(until=until).loc["s1-LoRA-all"]
    assert row["note"] == note
    ends = ["after_low", "after_high", "after_gain_low", "after_gain_high"]
    assert row[[*ends, "difference_low", "difference_high"]].isna().all()
    assert row[["until_low", "until_gain_low"]].notna().all()
    assert row[["after_mean", "after_gain_percent", "difference"]].notna().all() == (until == 2024)


def test_many_abstracts_need_no_note():
    ids = [f"x{at}" for at in range(20)]
    frame = pd.DataFrame({"id": ids, "perplexity": np.arange(20) + 1.0})
    when = pd.Series([2020] * 10 + [2024] * 10, index=ids)
    table = by_year.cutoff({"base": frame}, when, 2023, ["base"], SETTINGS, absent=ABSENT)
    assert table["note"].tolist() == [""]


def test_without_base_there_are_means_and_no_gains():
    row = by_model({"s1-LoRA-all": FRAMES["s1-LoRA-all"]}).loc["s1-LoRA-all"]
    assert row["until_mean"] == 7
    assert np.isnan(row["until_gain_percent"])


def test_uneven_models_and_unknown_years_are_refused():
    with pytest.raises(UserError, match="different abstracts: s1-LoRA-all lack"):
        by_year.by_year(FRAMES | {"s1-LoRA-all": FRAMES["s1-LoRA-all"].head(3)}, YEARS, WANTED)
    with pytest.raises(UserError, match="year of 2 evaluated abstracts, such as b, is not known"):
        by_years = YEARS.drop(["b", "e"])
        by_year.cutoff(FRAMES, by_years, 2023, WANTED, SETTINGS, absent=ABSENT)


def test_nothing_can_be_written(tmp_path):
    yearly = by_year.by_year({}, YEARS, WANTED)
    gains = by_year.cutoff({}, YEARS, 2023, WANTED, SETTINGS, absent=ABSENT)
    for number, table in enumerate((yearly, gains)):
        writing.write(table, tmp_path / str(number), title="x", label=None)
        assert table["base" if number == 0 else "until_mean"].isna().all()
