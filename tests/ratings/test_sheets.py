"""Blinded sheets: who rates what, in which order, and that no word tells which system it is."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from rating_texts import PAPERS, SYSTEMS, completions, names, settings

from feyntune.errors import UserError
from feyntune.experiment import load
from feyntune.ratings import means, sheets


def made(**changed) -> pd.DataFrame:
    return sheets.make(completions(), settings(**changed))


def orders(items: pd.DataFrame) -> dict[tuple[str, str], tuple[str, ...]]:
    return {unit: tuple(own["system"]) for unit, own in items.groupby(["rater", "paper"])}


def test_every_rater_gets_the_shared_papers_and_own_ones():
    items = made(raters=["CP", "VN", "BC"], shared_papers=2, own_papers=1)
    papers = {rater: list(dict.fromkeys(own["paper"])) for rater, own in items.groupby("rater")}
    assert len({tuple(own[:2]) for own in papers.values()}) == 1
    assert len({own[2] for own in papers.values()}) == 3
    assert {len(own) for own in papers.values()} == {3}
    assert set(items.query("source == 'common'")["paper"]) == set(papers["CP"][:2])
    for _, unit in items.groupby(["rater", "paper"]):
        assert sorted(unit["system"]) == sorted(SYSTEMS)
        assert unit["position"].tolist() == [1, 2, 3, 4]


def test_texts_belong_to_their_system_and_paper():
    texts = completions()
    for row in made().itertuples():
        known = texts[row.system].set_index("id").loc[row.paper]
        assert (row.prompt, row.completion) == (known["prompt"], known["completion"])


def test_orders_differ_by_paper_and_rater_and_follow_the_seed():
    many = [f"2401.{number:05}" for number in range(1, 61)]
    texts = completions(papers=many)
    one = sheets.make(texts, settings(shared_papers=20, own_papers=20))
    assert orders(one) == orders(sheets.make(texts, settings(shared_papers=20, own_papers=20)))
    other = sheets.make(texts, settings(shared_papers=20, own_papers=20, seed=4))
    assert orders(one) != orders(other) and set(one["paper"]) == set(other["paper"]) == set(many)
    shared = one[one["source"] == "common"]
    pairs = [own["system"].tolist() for _, own in shared.groupby("paper")]
    assert sum(own[:4] != own[4:] for own in pairs) > 10, "raters see orders of their own"
    first = one[one["position"] == 1]["system"].value_counts()
    assert first.min() > 8, "every system often comes first among 80 units"


def test_the_order_does_not_hang_on_how_completions_are_listed():
    turned = dict(reversed(completions().items()))
    turned = {system: frame[::-1] for system, frame in turned.items()}
    pd.testing.assert_frame_equal(made(), sheets.make(turned, settings()))


def test_given_papers_and_systems_are_taken():
    chosen = settings(systems=["Claude", "base"], own_papers=0)
    items = sheets.make(completions(), chosen, [PAPERS[3], PAPERS[0]])
    assert list(dict.fromkeys(items["paper"])) == [PAPERS[3], PAPERS[0]]
    assert set(items["system"]) == {"Claude", "base"}


def test_only_papers_that_every_system_completed_are_drawn():
    texts = completions()
    texts["Claude"] = texts["Claude"][:4]
    items = sheets.make(texts, settings(shared_papers=2, own_papers=1))
    assert set(items["paper"]) == set(PAPERS[:4])


@pytest.mark.parametrize(
    ("changed", "papers", "message"),
    [
        ({"own_papers": 3}, None, "8 papers are to be drawn, 2 for all raters and 3 for each of 2"),
        ({"systems": ["s2-LoRA-all"]}, None, "no completions of s2-LoRA-all"),
        ({"systems": ["Clod"]}, None, "Clod"),
        ({}, ["1111.11111"], "1111.11111 is not an abstract that every system"),
    ],
)
def test_what_cannot_be_made_is_said(changed, papers, message):
    with pytest.raises(UserError, match=message) as problem:
        sheets.make(completions(), settings(**changed), papers)
    assert "\n" not in str(problem.value)


def test_commercial_systems_are_rated_where_they_answered():
    ours, theirs = completions(("base",)), completions(("Claude", "Gemini"))
    theirs["Claude"]["status"] = ["refused", *["answered"] * (len(PAPERS) - 1)]
    theirs["Gemini"]["status"] = "failed"
    theirs["stand-in"] = theirs["Claude"]
    texts = sheets.texts_to_rate(ours, theirs)
    assert list(texts) == ["base", "Claude"]
    items = sheets.make(texts, settings(shared_papers=3, own_papers=1))
    assert set(items["system"]) == {"base", "Claude"} and PAPERS[0] not in set(items["paper"])
    with pytest.raises(UserError, match=f"{PAPERS[0]} is not an abstract that every system"):
        sheets.make(texts, settings(), [PAPERS[0]])


def test_real_models_are_not_rated_beside_stand_ins():
    ours = completions(("base",))
    theirs = {"Claude": completions(("Claude",))["Claude"].assign(status="answered")}
    texts = sheets.texts_to_rate(ours, theirs, {"Claude": "of a real model"})
    assert list(texts) == ["base"]
    with pytest.raises(UserError, match="which are not rated beside a stand-in's"):
        sheets.make(texts, settings(systems=["base", "Claude"]))


def test_every_provider_of_the_paper_can_be_rated():
    assert set(load.load("paper").commercial.providers) <= set(means.NAMES)


def test_no_completions_and_other_prompts():
    with pytest.raises(UserError, match="no completions to rate"):
        sheets.make({}, settings())
    texts = completions()
    texts["base"].loc[0, "prompt"] = "Another."
    with pytest.raises(UserError, match=f"different prompts of {PAPERS[0]}"):
        sheets.make(texts, settings())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"raters": []}, "at least 1"),
        ({"raters": ["CP", "cp"]}, "cp is named more than once"),
        ({"raters": ["../CP"]}, "pattern"),
        ({"raters": [" "]}, "pattern"),
        ({"shared_papers": 0, "own_papers": 0}, "nothing to rate"),
        ({"ratings": ["a.csv", "b.csv"]}, "need their key"),
        ({"key": "key.csv"}, "key without ratings"),
    ],
)
def test_settings_are_checked(changed, message):
    with pytest.raises(ValueError, match=message):
        settings(**changed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("sheets")
    sheets.write(made(), place)
    return place


def test_no_sheet_names_a_system_and_the_key_names_all(folder):
    """As a word; `base` is part of many. The key alone has the names."""
    word = re.compile("|".join(rf"(?<![\w-]){re.escape(name)}(?![\w-])" for name in names()), re.I)
    files = sorted((folder / "sheets").iterdir())
    assert [file.name for file in files] == ["CP.csv", "CP.html", "VN.csv", "VN.html"]
    for file in files:
        text = file.read_text("utf-8")
        assert not word.findall(text), file.name
        assert not re.search("lora|qkv|commercial", text, re.I), file.name
    assert set(word.findall((folder / "key.csv").read_text())) >= {"Base", "s1", "Claude"}


def test_codes_say_nothing_of_the_system():
    """Of the same text at the same place by another system, the code is the same."""
    papers = [f"2401.{number:05}" for number in range(1, 31)]
    texts = completions(["base", "Claude"], papers)
    renamed = {"s3-LoRA-all": texts["base"], "s4-LoRA-QKV": texts["Claude"]}
    sets = [
        sheets.make(each, settings(shared_papers=30, own_papers=0)) for each in (texts, renamed)
    ]
    seen = ["rater", "paper", "completion", "position"]
    one, other = (items.set_index(seen)["code"] for items in sets)
    both = one.index.intersection(other.index)
    assert 20 < len(both) < len(one) and (one[both] == other[both]).all()
    assert one.is_unique and one.str.fullmatch("[b-df-hj-np-tv-z]{10}").all()


def test_the_page_needs_nothing_from_elsewhere(folder):
    for page in (folder / "sheets").glob("*.html"):
        text = page.read_text("utf-8")
        found = set(re.findall(r"https?://[^\s\"'<]+", text))
        assert found <= {"http://www.w3.org/1998/Math/MathML"}
        assert not re.search(r"<(link|iframe|object|base)\b|@import|url\(|src=(?!x onerror)", text)
        assert "default-src 'none'" in text


def test_a_stand_in_is_labelled(tmp_path):
    sheets.write(made(), tmp_path, "stand-in corpus and model")
    for page in (tmp_path / "sheets").glob("*.html"):
        assert page.read_text("utf-8").count("stand-in corpus and model") == 1


def test_the_csv_has_the_published_columns_and_no_spreadsheet_formula(folder):
    sheet = pd.read_csv(folder / "sheets" / "CP.csv", dtype=str, keep_default_na=False)
    assert list(sheet.columns) == [*means.COLUMNS, "prompt", "completion"]
    assert set(sheet["score"]) == set(sheet["category"]) == {""}
    assert set(sheet["source"]) == {"common", "individual"}
    assert not sheet["completion"].str.startswith("=").any()
    assert sheet["completion"].str.startswith(" =1+1 is no formula").any()


def test_the_same_bytes_again_and_never_over_a_key(folder, tmp_path):
    sheets.write(made(), tmp_path)
    for file in (folder / "sheets").iterdir():
        assert file.read_bytes() == (tmp_path / "sheets" / file.name).read_bytes()
    key = (tmp_path / "key.csv").read_bytes()
    with pytest.raises(UserError, match="write these to another folder"):
        sheets.write(made(seed=9), tmp_path)
    assert (tmp_path / "key.csv").read_bytes() == key == (folder / "key.csv").read_bytes()


def test_texts_that_give_their_writer_away_are_listed():
    texts = completions()
    texts["Claude"].loc[:, "completion"] = "As an AI language model I cannot."
    texts["base"].loc[:, "completion"] = "We observe galaxies with GEMINI."
    found = sheets.revealing(sheets.make(texts, settings()))
    words = set(zip(found["system"], found["word"], strict=True))
    assert words == {("Claude", "As an AI"), ("base", "GEMINI")}
    assert sheets.revealing(made()).empty
