"""Reading ratings as people save them, what is odd about them, and means by hand."""

import csv

import numpy as np
import pandas as pd
import pytest
from invented_ratings import SETTINGS

from feyntune.errors import UserError
from feyntune.ratings import means

SCORES = {  # (paper, rater): scores of Base, s1, s1_qkv, Claude
    ("0806.1218", "A"): (2, 4, 3, 9),
    ("0806.1218", "B"): (4, 6, 5, 7),
    ("hep-th/9912072", "A"): (3, 8, 4, 10),
}
SYSTEMS = {"Base": "Base", "s1": "LoRA-all", "s1_qkv": "LoRA-QKV", "Claude": "Commercial"}


def rows() -> list[dict]:
    return [
        {"paper": paper, "model": model, "rater": rater, "score": str(score),
         "source": "common" if paper == "0806.1218" else "individual", "category": category}
        for (paper, rater), scores in SCORES.items()
        for (model, category), score in zip(SYSTEMS.items(), scores, strict=True)
    ]  # fmt: skip


@pytest.fixture
def saved(tmp_path):
    def save(some: list[dict], encoding: str = "utf-8", delimiter: str = ","):
        path = tmp_path / "ratings.csv"
        with path.open("w", encoding=encoding, newline="") as file:
            writer = csv.DictWriter(file, some[0], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(some)
        return path

    return save


def test_reads_names_as_ours_and_ids_as_text(saved):
    found = means.read(saved(rows()))
    assert found.loc[0, "paper"] == "0806.1218"
    assert found["model"].tolist()[:4] == ["base", "s1-LoRA-all", "s1-LoRA-QKV", "Claude"]
    assert found["score"].tolist() == [score for scores in SCORES.values() for score in scores]
    assert found["line"].tolist() == list(range(2, 14))


def test_every_published_system_is_known():
    # The 25 of the file, and ChatGPT as notebook 05 asks it today.
    assert len(means.SYSTEMS) == 26 and "ChatGPT" in means.SYSTEMS
    assert means.SYSTEMS["s10"] == "s10-LoRA-all"
    assert means.SYSTEMS["s10_qkv"] == "s10-LoRA-QKV"
    assert means.NAMES["DeepSeek"] == ("DeepSeek", "Commercial")
    assert means.CATEGORIES == ["Base", "LoRA-all", "LoRA-QKV", "Commercial"]


def test_order_of_columns_and_a_byte_order_mark_do_not_matter(saved):
    turned = [dict(reversed(row.items())) for row in rows()]
    plain = means.read(saved(rows()))
    pd.testing.assert_frame_equal(plain, means.read(saved(turned, "utf-8-sig")))


def test_blank_lines_are_skipped_and_counted(saved):
    path = saved(rows())
    header, first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([header, first, "", *rest, ""]))
    assert means.read(path)["line"].tolist() == [2, *range(4, 15)]


WRONG = [
    ("paper", "806.1218", "paper is '806.1218', not an arXiv id"),
    ("paper", "2108.0", "paper is '2108.0', not an arXiv id"),
    ("paper", "", "paper is '', not an arXiv id"),
    ("model", "s11", "model is 's11', not one of Base, s1, "),
    ("rater", " ", "rater is ' ', not a name"),
    ("score", "7.5", "score is '7.5', not a whole number from 1 to 10"),
    ("score", "7.0", "score is '7.0', not a whole number"),
    ("score", "0", "score is '0', not"),
    ("score", "11", "score is '11', not"),
    ("score", "", "score is '', not"),
    ("category", "Human", "category is 'Human', not one of"),
    ("category", "Commercial", "category of s1 is 'Commercial', not 'LoRA-all'"),
]


@pytest.mark.parametrize(("column", "value", "message"), WRONG)
def test_wrong_cells_are_named_with_their_line(saved, column, value, message):
    some = rows()
    some[5][column] = value
    with pytest.raises(UserError) as problem:
        means.read(saved(some))
    assert f"ratings.csv, line 7: {message}" in str(problem.value)
    assert "\n" not in str(problem.value)


def test_ids_of_every_style_pass(saved):
    some = rows()[:4]
    for row, paper in zip(
        some, ["math.AG/0601001", "cond-mat/9901001v2", "1302.5428", "2108.08859v1"], strict=True
    ):
        row["paper"] = paper
    assert len(means.read(saved(some))) == 4


def test_duplicates_name_both_lines(saved):
    some = [*rows(), {**rows()[2], "score": "9"}]
    with pytest.raises(UserError, match=r"line 14: A has rated s1_qkv on 0806.1218 before.* 4\."):
        means.read(saved(some))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: {k: v for k, v in row.items() if k != "rater"}, "must have the columns"),
        (lambda row: row | {"remark": ""}, "must have the columns"),
        (lambda row: {k.title(): v for k, v in row.items()}, "must have the columns"),
    ],
)
def test_missing_and_unexpected_columns(saved, change, message):
    with pytest.raises(UserError, match=message):
        means.read(saved([change(row) for row in rows()]))


def test_other_delimiters_encodings_and_kinds_of_file(saved, tmp_path):
    with pytest.raises(UserError, match="separated by commas"):
        means.read(saved(rows(), delimiter=";"))
    some = rows()
    some[0]["rater"] = "É"
    for encoding in ("latin-1", "utf-16"):
        with pytest.raises(UserError, match="comma-separated UTF-8"):
            means.read(saved(some, encoding))
    with pytest.raises(UserError, match="cannot be read"):
        means.read(tmp_path / "nothing.csv")
    path = saved(rows())
    header, *rest = path.read_text().splitlines()
    path.write_text("\n".join([header, "0806.1218,Base,A", *rest]))
    with pytest.raises(UserError, match="line 2 has 3 cells; 6 are expected"):
        means.read(path)
    path.write_text(header)
    with pytest.raises(UserError, match="no ratings"):
        means.read(path)
    path.write_text("")
    with pytest.raises(UserError, match="must have the columns"):
        means.read(path)


def test_shared_papers_come_from_the_papers_not_from_source(saved):
    some = rows()
    for row in some:
        row["source"] = "individual"
    found = means.read(saved(some))
    assert means.shared_papers(found) == ["0806.1218"]


def test_defects_list_what_source_gets_wrong_and_correct_nothing(saved):
    assert means.defects(means.read(saved(rows()))).empty
    some = rows()
    some[1]["source"], some[9]["source"], some[10]["source"] = "individual", "common", "bc"
    found = means.read(saved(some))
    before = found.copy()
    listed = means.defects(found)
    assert listed.to_numpy().tolist() == [
        [3, "0806.1218", "A", "s1-LoRA-all", "individual", "common"],
        [11, "hep-th/9912072", "A", "s1-LoRA-all", "common", "individual"],
        [12, "hep-th/9912072", "A", "s1-LoRA-QKV", "bc", "individual"],
    ]
    pd.testing.assert_frame_equal(found, before)


def test_incomplete_units_are_listed(saved):
    assert means.incomplete(means.read(saved(rows()))).empty
    some = [row for number, row in enumerate(rows()) if number not in (4, 6)]
    listed = means.incomplete(means.read(saved(some)))
    assert listed.to_numpy().tolist() == [["0806.1218", "B", "base, s1-LoRA-QKV"]]


def evaluated(saved, some=None) -> pd.DataFrame:
    table = means.human_evaluation(means.read(saved(some or rows())), SETTINGS)
    return table.set_index(["papers", "category", "system"])


def test_means_by_hand(saved):
    table = evaluated(saved)
    row = table.loc[("all", "LoRA-all", "s1-LoRA-all")]
    assert row[["ratings", "mean", "std", "mean_A", "mean_B"]].tolist() == [3, 6, 2, 6, 6]
    row = table.loc[("shared", "Commercial", "all")]
    assert row[["ratings", "mean", "mean_A", "mean_B"]].tolist() == [2, 8, 9, 7]
    assert row["std"] == pytest.approx(np.sqrt(2))


def test_categories_pool_their_systems_and_come_first(saved):
    s1 = [row for row in rows() if row["model"] == "s1"]
    more = [{**row, "model": name, "score": "1"} for name in ("s10", "s2") for row in s1]
    table = evaluated(saved, [*more, *rows()])
    row = table.loc[("all", "LoRA-all", "all")]
    assert row[["ratings", "mean"]].tolist() == [9, pytest.approx((3 * 6 + 6 * 1) / 9)]
    listed = [system for papers, _, system in table.index if papers == "all"]
    own = ["base", "s1-LoRA-all", "s2-LoRA-all", "s10-LoRA-all", "s1-LoRA-QKV", "Claude"]
    assert listed == ["all"] * 4 + own
    assert list(table.index.get_level_values("category")[:4]) == means.CATEGORIES


def test_interval_resamples_whole_papers(saved):
    table = evaluated(saved)
    # Two papers: 2/3 ratings of the one (mean 5), 1/3 of the other (8). A resample has only the
    # one, only the other, or both: the ends are those of the papers, not of the ratings (4, 8).
    row = table.loc[("all", "LoRA-all", "s1-LoRA-all")]
    assert row[["low", "high"]].tolist() == [5, 8]
    assert table.loc["shared", ["low", "high"]].isna().all(axis=None)  # one paper


def test_interval_weighs_papers_by_their_ratings():
    rng = np.random.default_rng(2)
    numbers = {"base": [1, 3, 2, 1, 3, 2, 2], "Claude": [0, 3, 1, 1, 3, 2, 2]}
    some = pd.DataFrame(
        [
            (f"hep-th/990100{paper}", system, f"r{rater}", int(rng.integers(1, 11)), category)
            for system, category in (("base", "Base"), ("Claude", "Commercial"))
            for paper, number in enumerate(numbers[system])
            for rater in range(number)
        ],
        columns=["paper", "model", "rater", "score", "category"],
    )
    table = means.human_evaluation(some, SETTINGS).set_index(["papers", "system"])
    draws = np.random.RandomState(SETTINGS.seed).randint(0, 7, (SETTINGS.resamples, 7))
    for system in numbers:
        own = some[some["model"] == system]
        groups = [own.loc[own["paper"] == paper, "score"].tolist() for paper in
                  sorted(set(some["paper"]))]  # fmt: skip
        drawn = [np.mean([score for at in draw for score in groups[at]]) for draw in draws]
        expected = np.quantile(drawn, [0.025, 0.975]).tolist()
        assert table.loc[("all", system), ["low", "high"]].tolist() == pytest.approx(expected)
        assert table.loc[("all", system), "mean"] == pytest.approx(own["score"].mean())
