"""Ratings as people save them, sheets opened with their key, and everything wrong with either."""

from __future__ import annotations

import pandas as pd
import pytest
from invented_ratings import ROWS_SCORES, rows
from rating_texts import completions, settings

from feyntune.errors import UserError
from feyntune.ratings import means, returned, sheets

OURS = {theirs: ours for ours, (theirs, _) in means.NAMES.items()}


@pytest.fixture
def given(tmp_path):
    """Sheets as written, their items, and the same sheets filled in."""
    items = sheets.make(completions(), settings())
    sheets.write(items, tmp_path)
    items["score"] = [1 + number % 10 for number in range(len(items))]
    for rater, own in items.groupby("rater"):
        filled = frame(tmp_path / "sheets" / f"{rater}.csv")
        filled["score"] = own["score"].astype(str).to_numpy()
        save(filled, tmp_path / f"{rater}.csv")
    return tmp_path, items


def frame(path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def save(some: pd.DataFrame, path, **how) -> None:
    some.to_csv(path, index=False, **how)


def filled(folder) -> list:
    return [folder / "CP.csv", folder / "VN.csv"]


def scored(found: pd.DataFrame) -> dict:
    ours = found["model"].map(OURS)
    rows = zip(found["rater"], found["paper"], ours, found["score"].astype(int), strict=True)
    return {(rater, paper, system): score for rater, paper, system, score in rows}


def expected(items: pd.DataFrame) -> dict:
    rows = items[["rater", "paper", "system", "score"]].itertuples(index=False)
    return {tuple(row[:3]): row[3] for row in rows}


def test_every_score_comes_to_its_system(given):
    folder, items = given
    found, missing = returned.unblind(filled(folder), folder / "key.csv")
    assert scored(found) == expected(items) and missing.empty
    assert list(found.columns) == list(means.COLUMNS)


def test_what_is_opened_is_in_the_published_schema(given):
    folder, items = given
    target = folder / "out" / "ratings.csv"
    rated, missing = returned.collect(filled(folder), folder / "key.csv", None, target)
    assert len(rated) == len(items) and missing.empty
    assert means.wrong_sources(rated).empty, "common and individual are as the papers make them"
    assert set(rated["model"]) == set(items["system"])


def test_missing_scores_and_lines_are_listed_not_invented(given):
    folder, items = given
    sheet = frame(folder / "CP.csv")
    sheet.loc[1, "score"] = ""
    save(sheet.drop(index=[2]), folder / "CP.csv")
    found, missing = returned.unblind(filled(folder), folder / "key.csv")
    own = items[items["rater"] == "CP"].reset_index(drop=True)
    lost = own.loc[[1, 2]]
    assert len(found) == len(items) - 2
    (row,) = missing.to_dict("records")
    assert (row["rater"], row["paper"]) == ("CP", own.loc[1, "paper"])
    assert sorted(row["systems"].split(", ")) == sorted(
        means.NAMES[system][0] for system in lost["system"]
    )


def test_a_rater_who_sent_nothing_is_missing(given):
    folder, items = given
    found, missing = returned.unblind(filled(folder)[:1], folder / "key.csv")
    assert set(found["rater"]) == {"CP"} and set(missing["rater"]) == {"VN"}
    assert len(missing) == items.query("rater == 'VN'")["paper"].nunique()


def test_an_id_that_a_spreadsheet_took_for_a_number_is_known_by_its_code(given):
    folder, items = given
    for rater in ("CP", "VN"):
        sheet = frame(folder / f"{rater}.csv")
        numbers = {"0806.1218": "806.1218", "2401.00010": "2401.0001"}
        sheet["paper"] = sheet["paper"].replace(numbers)
        save(sheet, folder / f"{rater}.csv")
    found, _ = returned.unblind(filled(folder), folder / "key.csv")
    assert scored(found) == expected(items)
    mangled = {"0806.1218", "2401.00010"} & set(items["paper"])
    assert mangled, "the seed draws at least one of them"


CELLS = [
    ("score", "11", "score is '11', not a whole number from 1 to 10"),
    ("score", "0", "score is '0'"),
    ("score", "7.5", "score is '7.5'"),
    ("score", "good", "score is 'good'"),
    ("rater", "VN", "the rater is 'VN', in the key 'CP'"),
    ("paper", "hep-th/0000001", "the paper is 'hep-th/0000001', in the key"),
    ("model", "bcdfghjklm", "the code 'bcdfghjklm' is not in"),
    ("model", "Base", "the code 'Base' is not in"),
]


@pytest.mark.parametrize(("column", "value", "message"), CELLS)
def test_wrong_cells_are_named_with_their_line(given, column, value, message):
    folder, _ = given
    sheet = frame(folder / "CP.csv")
    # The line is found by csv's count, in which a text over two lines is two.
    sheet = sheet.assign(completion="short")
    sheet.loc[3, column] = value
    save(sheet, folder / "CP.csv")
    with pytest.raises(UserError) as problem:
        returned.unblind(filled(folder), folder / "key.csv")
    assert f"CP.csv, line 5: {message}" in str(problem.value) and "\n" not in str(problem.value)


def refused(folder, message: str) -> None:
    with pytest.raises(UserError, match=message) as problem:
        returned.unblind(filled(folder), folder / "key.csv")
    assert "\n" not in str(problem.value)


def test_a_line_or_a_sheet_given_twice(given):
    folder, _ = given
    key = folder / "key.csv"
    with pytest.raises(UserError, match=r"CP.csv, line 2: \w+ stands in .*CP.csv, line 2 too"):
        returned.unblind([folder / "CP.csv"] * 2, key)
    sheet = frame(folder / "CP.csv")
    save(pd.concat([sheet, sheet[:1]]), folder / "CP.csv")
    refused(folder, "stands in .*CP.csv, line 2 too")


def test_delimiters_encodings_and_columns(given):
    folder, _ = given
    sheet = frame(folder / "CP.csv")
    save(sheet, folder / "CP.csv", sep=";")
    refused(folder, "separated by commas")
    for encoding in ("latin-1", "utf-16"):
        save(sheet.assign(prompt="É", completion="É"), folder / "CP.csv", encoding=encoding)
        refused(folder, "Save it as comma-separated UTF-8")
    save(sheet.drop(columns="score"), folder / "CP.csv")
    refused(folder, "must have the columns")
    save(sheet.assign(remark=""), folder / "CP.csv")
    refused(folder, "must have the columns")
    (folder / "CP.csv").unlink()
    refused(folder, "cannot be read as a rating sheet")


def test_no_score_at_all(given):
    folder, _ = given
    with pytest.raises(UserError, match="No completion has a score"):
        returned.unblind([folder / "sheets" / "CP.csv"], folder / "key.csv")


def test_the_key_of_other_sheets(given, tmp_path):
    folder, _ = given
    other = tmp_path / "other"
    sheets.write(sheets.make(completions(), settings(seed=8)), other)
    (other / "key.csv").replace(folder / "key.csv")
    refused(folder, "CP.csv, line 2: the code '.*' is not in .*key.csv: that is not this sheet's")


def test_the_key_of_the_same_sheets_after_a_completion_changed(given, tmp_path):
    """The same seed, papers and order: but what was read is not what the key is of."""
    folder, _ = given
    texts = completions()
    for each in texts.values():
        each["completion"] += " Done."
    sheets.write(sheets.make(texts, settings()), tmp_path / "other")
    (tmp_path / "other" / "key.csv").replace(folder / "key.csv")
    refused(folder, "that is not this sheet's key")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda key: key[1:], "that is not this sheet's key"),
        (lambda key: pd.concat([key, key[:1]]), r"key.csv, line 26: \w+ stands in the key twice"),
        (lambda key: key.drop(columns="code"), "is not the key of rating sheets"),
        (lambda key: key.assign(model="s99"), "key.csv, line 2: model is 's99', not one of"),
        (
            lambda key: key.assign(category="Base", model="s1"),
            "category of s1 is 'Base', not 'LoRA-all'",
        ),
    ],
)
def test_a_broken_key(given, change, message):
    folder, _ = given
    save(change(frame(folder / "key.csv")), folder / "key.csv")
    refused(folder, message)


def test_a_sheet_given_as_the_key(given):
    folder, _ = given
    with pytest.raises(UserError, match="is not the key of rating sheets"):
        returned.unblind(filled(folder), folder / "sheets" / "CP.csv")


def test_where_ratings_come_from(given):
    folder, _ = given
    target = folder / "never.csv"
    assert returned.collect([], None, None, target) is None
    opened, _ = returned.unblind(filled(folder), folder / "key.csv")
    save(opened, folder / "published.csv")
    save(opened[1:], folder / "released.csv")
    found, missing = returned.collect([folder / "published.csv"], None, folder / "x.csv", target)
    assert len(found) == len(opened) and missing.empty, "a file that is named wins"
    found, missing = returned.collect([], None, folder / "released.csv", target)
    assert len(found) == len(opened) - 1 and len(missing) == 1
    assert not target.exists()
    save(frame(folder / "CP.csv")[list(means.COLUMNS)], folder / "CP.csv")
    with pytest.raises(UserError, match=r"line 2: model is '.*', not one of Base, s1"):
        returned.collect([folder / "CP.csv"], None, None, target)


# --- a file of ratings --------------------------------------------------------------------------


def test_reads_names_as_ours_and_ids_as_text(saved):
    found = returned.read_ratings(saved(rows()))
    assert found.loc[0, "paper"] == "0806.1218"
    assert found["model"].tolist()[:4] == ["base", "s1-LoRA-all", "s1-LoRA-QKV", "Claude"]
    assert found["score"].tolist() == [score for scores in ROWS_SCORES.values() for score in scores]
    assert found["line"].tolist() == list(range(2, 14))


def test_order_of_columns_and_a_byte_order_mark_do_not_matter(saved):
    turned = [dict(reversed(row.items())) for row in rows()]
    plain = returned.read_ratings(saved(rows()))
    pd.testing.assert_frame_equal(plain, returned.read_ratings(saved(turned, "utf-8-sig")))


def test_blank_lines_are_skipped_and_counted(saved):
    path = saved(rows())
    header, first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([header, first, "", *rest, ""]))
    assert returned.read_ratings(path)["line"].tolist() == [2, *range(4, 15)]


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("score", lambda cell: f"{cell}.0"),
        ("score", lambda cell: f"{cell},00"),
        ("score", lambda cell: f"\u00a0{cell} "),
        ("model", lambda cell: f" {cell.upper()}"),
        ("category", str.lower),
        ("source", str.title),
        ("rater", lambda cell: f"{cell} "),
        ("paper", lambda cell: f"arXiv:{cell}"),
        ("paper", lambda cell: f"https://arxiv.org/abs/{cell}v2"),
        ("paper", lambda cell: f"https://arxiv.org/pdf/{cell}.pdf"),
        ("paper", lambda cell: f"https://doi.org/10.48550/arXiv.{cell}"),
        ("score", lambda cell: "".join(chr(ord(digit) + 0xFEE0) for digit in cell)),
        ("rater", lambda cell: f"{cell}\u200b"),
        ("model", lambda cell: f"\ufeff{cell}"),
    ],
)
def test_what_a_spreadsheet_makes_of_a_cell_is_read_as_meant(saved, column, change):
    plain = returned.read_ratings(saved(rows()))
    some = [{**row, column: change(row[column])} for row in rows()]
    pd.testing.assert_frame_equal(returned.read_ratings(saved(some)), plain)


def test_a_rater_whose_accents_are_written_apart_is_one_rater(saved):
    some = [{**row, "rater": "É"} for row in rows()[:4]]
    some[1]["rater"], some[2]["rater"] = "E\u0301", "É\u200b"
    assert set(returned.read_ratings(saved(some))["rater"]) == {"É"}


def test_heads_with_blanks_and_in_other_case(saved):
    plain = returned.read_ratings(saved(rows()))
    some = [{f" {name.title()} ": cell for name, cell in row.items()} for row in rows()]
    pd.testing.assert_frame_equal(returned.read_ratings(saved(some)), plain)


def test_empty_rows_and_columns_of_a_spreadsheet_are_left_out(saved):
    plain = returned.read_ratings(saved(rows()))
    lines = saved(rows()).read_text().splitlines()
    path = saved([*rows(), dict.fromkeys(rows()[0], ""), dict.fromkeys(rows()[0], " ")])
    pd.testing.assert_frame_equal(returned.read_ratings(path), plain)
    path.write_text("\n".join(f"{line},," for line in lines))
    pd.testing.assert_frame_equal(returned.read_ratings(path), plain)
    path.write_text("\n".join([lines[0], *(f"{line},," for line in lines[1:])]))
    pd.testing.assert_frame_equal(returned.read_ratings(path), plain)


def test_one_rater_in_two_spellings_is_not_two_raters(saved):
    some = rows()
    some[1]["rater"] = "a"
    with pytest.raises(UserError, match=r"line 3: the rater is 'a', in line 2 'A'\."):
        returned.read_ratings(saved(some))


def test_sheets_as_a_spreadsheet_saves_them(given):
    folder, items = given
    for rater in ("CP", "VN"):
        sheet = frame(folder / f"{rater}.csv")
        sheet["score"] += ".0"
        sheet["rater"] = f" {rater.lower()}"
        sheet["model"] = sheet["model"].str.title()
        save(
            pd.concat([sheet, sheet[:2].assign(**dict.fromkeys(sheet, ""))]),
            folder / f"{rater}.csv",
        )
    found, missing = returned.unblind(filled(folder), folder / "key.csv")
    assert scored(found) == expected(items) and missing.empty


WRONG = [
    ("paper", "806.1218", "paper is '806.1218', not an arXiv id"),
    ("paper", "2108.0", "paper is '2108.0', not an arXiv id"),
    ("paper", "", "paper is '', not an arXiv id"),
    ("model", "s11", "model is 's11', not one of Base, s1, "),
    ("rater", " ", "rater is '', not a name"),
    ("score", "7.5", "score is '7.5', not a whole number from 1 to 10"),
    ("score", "7.05", "score is '7.05', not a whole number"),
    ("paper", "1501.1234", "paper is '1501.1234', not an arXiv id"),
    ("score", "0", "score is '0', not"),
    ("score", "11", "score is '11', not"),
    ("score", "", "score is '', not"),
    ("category", "Human", "category is 'Human', not one of"),
    ("category", "Commercial", "category of s1 is 'Commercial', not 'LoRA-all'"),
]


@pytest.mark.parametrize(("column", "value", "message"), WRONG)
def test_wrong_cells_of_a_file_are_named_with_their_line(saved, column, value, message):
    some = rows()
    some[5][column] = value
    with pytest.raises(UserError) as problem:
        returned.read_ratings(saved(some))
    assert f"ratings.csv, line 7: {message}" in str(problem.value)
    assert "\n" not in str(problem.value)


def test_ids_of_every_style_pass(saved):
    some = rows()[:4]
    for row, paper in zip(
        some, ["math.AG/0601001", "cond-mat/9901001v2", "1302.5428", "2108.08859v1"], strict=True
    ):
        row["paper"] = paper
    assert len(returned.read_ratings(saved(some))) == 4


def test_duplicates_in_a_file_name_both_lines(saved):
    some = [*rows(), {**rows()[2], "score": "9"}]
    with pytest.raises(UserError, match=r"line 14: A has rated s1_qkv on 0806.1218 before.* 4\."):
        returned.read_ratings(saved(some))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: {k: v for k, v in row.items() if k != "rater"}, "must have the columns"),
        (lambda row: row | {"remark": ""}, "must have the columns"),
        (lambda row: {"": "1", **row}, "must have the columns"),
    ],
)
def test_missing_and_unexpected_columns(saved, change, message):
    with pytest.raises(UserError, match=message):
        returned.read_ratings(saved([change(row) for row in rows()]))


def test_other_delimiters_encodings_and_kinds_of_file(saved, tmp_path):
    with pytest.raises(UserError, match="separated by commas"):
        returned.read_ratings(saved(rows(), delimiter=";"))
    some = rows()
    some[0]["rater"] = "É"
    for encoding in ("latin-1", "utf-16"):
        with pytest.raises(UserError, match="comma-separated UTF-8"):
            returned.read_ratings(saved(some, encoding))
    with pytest.raises(UserError, match="cannot be read"):
        returned.read_ratings(tmp_path / "nothing.csv")
    path = saved(rows())
    header, *rest = path.read_text().splitlines()
    path.write_text("\n".join([header, "0806.1218,Base,A", *rest]))
    with pytest.raises(UserError, match="line 2 has 3 cells; 6 are expected"):
        returned.read_ratings(path)
    path.write_text(header)
    with pytest.raises(UserError, match="no ratings"):
        returned.read_ratings(path)
    path.write_text("")
    with pytest.raises(UserError, match="must have the columns"):
        returned.read_ratings(path)
