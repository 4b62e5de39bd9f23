"""Years, pools and gains by hand, and what the figure says and shows."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from feyntune.analysis.figures import perplexity_by_year, style
from feyntune.analysis.tables import by_year, setup, writing
from feyntune.errors import UserError
from feyntune.experiment import recipes
from feyntune.experiment.sections import Statistics

SETTINGS = Statistics(resamples=199, confidence=0.9, seed=1)
LABEL = "stand-in corpus and model"
WANTED = ["base", "s1-LoRA-all", "s2-LoRA-all", "s1-LoRA-QKV"]
YEARS = pd.Series({"a": 1999, "b": 1999, "c": 2023, "d": 2024, "e": 2025, "unused": 1995})


def scored(*perplexities: float) -> pd.DataFrame:
    return pd.DataFrame({"id": list("abcde"), "perplexity": perplexities})


FRAMES = {
    "base": scored(8, 12, 10, 20, 30),
    "s1-LoRA-all": scored(4, 8, 9, 18, 27),
    "s1-LoRA-QKV": scored(8, 12, 10, 10, 35),
}


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
    return by_year.cutoff(frames, YEARS, until, WANTED, settings).set_index("model")


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
    row = by_year.cutoff(frames, when, 2023, WANTED, SETTINGS).iloc[1]
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
    table = by_year.cutoff({"base": frame}, when, 2023, ["base"], SETTINGS)
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
        by_year.cutoff(FRAMES, by_years, 2023, WANTED, SETTINGS)


def test_nothing_can_be_written(tmp_path):
    for number, table in enumerate(
        (by_year.by_year({}, YEARS, WANTED), by_year.cutoff({}, YEARS, 2023, WANTED, SETTINGS))
    ):
        writing.write(table, tmp_path / str(number), title="x", label=None)
        assert table["base" if number == 0 else "until_mean"].isna().all()


def pooled(counts: dict[int, int], enough: int, until: int = 2023) -> pd.DataFrame:
    frame = pd.DataFrame({"year": list(counts), "abstracts": list(counts.values())})
    return perplexity_by_year.pooled(frame.assign(base=frame["year"] - 1990.0), until, enough)


def test_years_are_pooled_until_they_have_enough():
    found = pooled({2000: 3, 2001: 1, 2004: 5, 2005: 1, 2006: 4}, 5)
    assert found[["first", "last", "abstracts"]].to_numpy().tolist() == [
        [2000, 2004, 9],
        [2005, 2006, 5],
    ]
    assert found.loc[0, "base"] == pytest.approx((3 * 10 + 1 * 11 + 5 * 14) / 9)
    assert found.loc[1, "year"] == pytest.approx((2005 + 4 * 2006) / 5)


def test_what_is_left_over_joins_the_pool_before_but_never_across_the_cutoff():
    found = pooled({2000: 5, 2001: 2, 2023: 2, 2024: 1, 2025: 1}, 5)
    expected = [[2000, 2023, 9], [2024, 2025, 2]]
    assert found[["first", "last", "abstracts"]].to_numpy().tolist() == expected


def texts(figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def drawn(frames=FRAMES, label=LABEL, wanted=WANTED):
    return perplexity_by_year.perplexity_by_year(
        by_year.by_year(frames, YEARS, wanted),
        by_year.cutoff(frames, YEARS, 2023, wanted, SETTINGS),
        2023,
        wanted,
        label,
        confidence=0.9,
    )


def test_figure_says_what_a_reader_must_know():
    figure = drawn()
    said = texts(figure)
    for text in (
        "Not run: s2-LoRA-all",
        "base's knowledge ends in 2023",
        "filled: until 2023, n = 3\nhollow: after, n = 2",
        "90% bootstrap interval",
        "a point pools years until they have 1 abstracts",
    ):
        assert text in said
    assert figure.get_suptitle() == LABEL
    assert "stand-in" not in texts(drawn(label=None))


def test_figure_draws_the_tables():
    left, counts, right = drawn().axes
    lines = {line.get_label(): line for line in left.lines}
    assert list(lines["base"].get_data()[0]) == [1999, 2023, 2024, 2025]
    assert list(lines["base"].get_data()[1]) == [10, 10, 20, 30]
    assert [bar.get_height() for bar in counts.patches] == [2, 1, 1, 1]
    marks = [line for line in right.lines if line.get_marker() == "o"]
    assert [mark.get_ydata()[0] for mark in marks] == pytest.approx([30, 10])
    assert [mark.get_markerfacecolor() for mark in marks] == [style.BLUE, "white"]
    cut = [line.get_xdata()[0] for axes in (left, counts) for line in axes.lines
           if line.get_linestyle() == "--"]  # fmt: skip
    assert cut == [2023.5, 2023.5]


def test_all_other_models_are_drawn_under_one_name():
    frames = dict.fromkeys(recipes.MODELS, FRAMES["s1-LoRA-all"])
    figure = drawn(frames, wanted=recipes.MODELS)
    curves = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 4]
    assert len(curves) == 21
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "base", "s1-LoRA-all", "s1-LoRA-QKV", "other LoRA-all", "other LoRA-QKV"
    ]  # fmt: skip


def test_sparse_pools_are_hollow_and_explained(monkeypatch):
    monkeypatch.setattr(perplexity_by_year, "ENOUGH_SHARE", 0.6)
    figure = drawn()
    assert "years until they have 3 abstracts; hollow: fewer" in texts(figure)
    hollow = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "white"]
    assert all(list(line.get_xdata()) == [2024.5] for line in hollow)
    assert len(hollow) == 3


def test_nothing_is_cut_off_or_lies_over_the_label():
    figure = drawn(dict.fromkeys(recipes.MODELS, FRAMES["s1-LoRA-all"]), wanted=recipes.MODELS)
    label, legend = figure._suptitle.get_window_extent(), figure.legends[0].get_window_extent()
    assert legend.x1 < label.x0
    for axes in figure.axes:
        tight = axes.get_tightbbox()
        assert tight.x0 >= 0 and tight.y0 >= 0 and tight.x1 <= figure.bbox.x1 + 1
        assert tight.y1 <= label.y0


@pytest.mark.parametrize("names", [[], ["base"], ["s1-LoRA-all"]])
def test_missing_models_leave_no_invented_scale(names):
    figure = drawn({name: FRAMES[name] for name in names})
    assert "Not run: " in texts(figure)
    left, _, right = figure.axes
    assert (len(left.get_yticks()) == 0) == (not names)
    assert len(right.get_yticks()) == 0


def test_saved_bytes_do_not_change(tmp_path):
    for name in ("first", "second"):
        style.save(drawn(), tmp_path / name)
    for ending in ("pdf", "png"):
        first, second = ((tmp_path / f"{n}.{ending}").read_bytes() for n in ("first", "second"))
        assert first == second
