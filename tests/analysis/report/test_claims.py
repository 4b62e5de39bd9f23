"""Claims: what must come out, beside what did."""

from __future__ import annotations

import json

import pytest

from feyntune.analysis.report import claims, expectations
from feyntune.analysis.report.expectations import FileClaim, Statement, TableClaim
from feyntune.errors import UserError
from feyntune.experiment import load
from feyntune.runs.stages import CURATION, FIGURES

SAID = {"claim": "a claim", "source": "somewhere", "certainty": "stated"}
TABLE = {**SAID, "table": "perplexity", "column": "mean", "expected": 1.0}
PERPLEXITY = """model,mean,low,high,note,label
base,30.5,29,32,,stand-in
s1-LoRA-all,20.25,19,31,,stand-in
s1-LoRA-QKV,25,24,26,,stand-in
s2-LoRA-all,,,,not run,stand-in
"""


@pytest.fixture(autouse=True)
def output(tmp_path, monkeypatch):
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path))
    return tmp_path


@pytest.fixture
def paper():
    return load.load("paper")


@pytest.fixture
def smoke(output):
    """Smoke with a table of perplexities, and what a run of notebook 07 vouches for."""
    settings = load.load("smoke")
    place = settings.paths.table("perplexity").with_suffix(".csv")
    place.parent.mkdir(parents=True)
    place.write_text(PERPLEXITY)
    return settings, {place: (FIGURES, None)}


def judged(smoke, **claim) -> claims.Verdict:
    settings, made = smoke
    given = TABLE | {"interval": ["low", "high"]} | claim
    return claims.judge_one(TableClaim(**given), settings.paths, made)


def one(model="base", **claim):
    return {"where": {"model": model}, **claim}


def test_a_value_is_met_within_its_tolerance_both_ways(smoke):
    expected = {"missed": (29.9, 31.1), "met": (30, 30.5, 31)}
    for verdict, values in expected.items():
        for value in values:
            found = judged(smoke, **one(expected=value, tolerance=0.5))
            assert (found.verdict, found.summary) == (verdict, "30.5 [29, 32]"), value


@pytest.mark.parametrize("judged_by", ["value", "interval"])
def test_an_interval_that_crosses_what_is_expected_decides_nothing(smoke, judged_by):
    """Base has 30.5 [29, 32]; touching is not beyond."""
    verdicts = {
        "above": {28.9: "met", 29: "undecided", 31: "undecided", 32: "undecided", 32.1: "missed"},
        "below": {28.9: "missed", 29: "undecided", 30: "undecided", 32: "undecided", 32.1: "met"},
    }
    for relation, limits in verdicts.items():
        for limit, verdict in limits.items():
            claim = one(relation=relation, judged=judged_by, expected=limit)
            assert judged(smoke, **claim).verdict == verdict, (relation, limit)


def test_without_an_interval_the_value_decides(smoke):
    found = {
        (relation, limit): judged(
            smoke, **one(relation=relation, expected=limit, interval=None)
        ).verdict
        for relation in ("above", "below")
        for limit in (30, 30.5, 31)
    }
    met = {key for key, verdict in found.items() if verdict == claims.MET}
    assert met == {("above", 30), ("below", 31)}
    assert set(found.values()) == {"met", "missed"}


def test_an_interval_that_does_not_exist_decides_nothing_where_one_is_asked_for(smoke):
    [place] = smoke[1]
    place.write_text(PERPLEXITY.replace("s1-LoRA-QKV,25,24,26", "s1-LoRA-QKV,25,,"))
    claim = one("s1-LoRA-QKV", relation="below", expected=30)
    assert judged(smoke, **claim).verdict == "met"
    assert judged(smoke, **claim, judged="interval").verdict == "undecided"


def test_every_row_must_do_and_the_worst_is_named(smoke):
    below = {"relation": "below", "rows": 3}
    [place] = smoke[1]
    place.write_text(PERPLEXITY.replace("s2-LoRA-all,,,,not run,stand-in\n", ""))
    found = judged(smoke, **below, expected=33)
    assert found.verdict == claims.MET
    assert found.summary == "3 of 3; nearest to the limit: base 30.5 [29, 32]"
    found = judged(smoke, **below, expected=31)
    assert (found.verdict, found.why) == (
        claims.UNDECIDED,
        "the interval holds what is expected",
    )
    assert found.summary == "2 of 3 undecided; base 30.5 [29, 32]"
    assert claims.total([found.verdict, "met"]) == "1 met, 0 missed, 1 undecided, 0 not run"
    found = judged(smoke, **below, expected=22)
    assert found.verdict == claims.MISSED
    assert found.summary == "1 of 3; farthest off: base 30.5 [29, 32]"
    assert found.expected == "below 22, each of 3"


def test_rows_that_are_not_there_are_no_success(smoke):
    found = judged(smoke, relation="below", expected=33, rows=4)
    assert (found.verdict, found.why) == (
        claims.NOT_RUN,
        "3 of 4 values in table perplexity (not run)",
    )
    assert judged(smoke, relation="below", expected=22, rows=4).verdict == claims.MISSED, (
        "one that contradicts is enough"
    )


def test_named_values_are_compared_each_with_its_own(smoke):
    expected = {"base": 30.4, "s1-LoRA-QKV": 25.0}
    found = judged(smoke, each="model", expected=expected, tolerance=0.2)
    assert found.verdict == claims.MET
    assert found.summary == "2 of 2; farthest off by 0.1: base"
    exact = judged(smoke, each="model", expected={"base": 30.5, "s1-LoRA-QKV": 25})
    assert exact.summary == "2 of 2, all exactly"
    found = judged(smoke, each="model", expected=expected | {"base": 25.0}, tolerance=0.2)
    assert found.verdict == claims.MISSED
    assert found.summary == "1 of 2; farthest off: base 30.5 [29, 32] for 25"
    found = judged(smoke, each="model", expected=expected | {"s3-LoRA-all": 1.0}, tolerance=0.2)
    assert found.verdict == claims.NOT_RUN and "2 of 3 values" in found.why


def test_no_row_or_too_many_are_not_run(smoke):
    assert judged(smoke, **one("s9-LoRA-all")).why == "0 of 1 values in table perplexity"
    found = judged(smoke, expected=30.5)
    assert (found.verdict, found.why) == (
        claims.NOT_RUN,
        "4 rows of table perplexity fit it, not 1",
    )


@pytest.mark.parametrize(
    "change",
    [{"column": "means"}, {"where": {"modell": "base"}}, {"interval": ["low", "hgih"]}],
    ids=str,
)
def test_a_column_that_does_not_exist_is_an_error(smoke, change):
    with pytest.raises(UserError, match=r"Unknown column '.*' of table perplexity") as caught:
        judged(smoke, **one(**change))
    assert 'The claim "a claim"' in str(caught.value) and "\n" not in str(caught.value)


def test_texts_are_compared_as_texts(smoke):
    claim = one("s2-LoRA-all", column="note", interval=None)
    assert judged(smoke, **claim, expected="not run").verdict == claims.MET
    assert judged(smoke, **claim, expected="run").verdict == claims.MISSED


def test_a_table_that_nothing_vouches_for_is_not_looked_into(smoke):
    settings, _ = smoke
    found = judged((settings, {}), **one(expected=30.5))
    assert (found.verdict, found.found) == (claims.NOT_RUN, ())
    assert found.why == "table perplexity is not of today's settings, code and data"
    found = judged((settings, {}), table="semscore")
    assert found.why == "table semscore is not there"


def test_a_claim_that_is_not_judged_shows_what_was_found(smoke):
    found = judged(smoke, **one(expected=30.5, not_judged="for a reason"))
    assert (found.verdict, found.why) == (claims.NOT_RUN, "for a reason")
    assert found.summary == "30.5 [29, 32]"


def test_a_statement_is_never_met(smoke):
    settings, made = smoke
    found = claims.judge_one(Statement(**SAID, not_judged="no data"), settings.paths, made)
    assert (found.verdict, found.why, found.expected) == (claims.NOT_RUN, "no data", "")


# --- counts -----------------------------------------------------------------------------------


def counted(settings, **content) -> dict[str, str]:
    """Verdicts by key on a ``curation.json`` of this content."""
    file = settings.paths.curation
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    about = [c for c in expectations.load("paper").claims if isinstance(c, FileClaim)]
    made = {file: (CURATION, None)}
    return {c.key: claims.judge_one(c, settings.paths, made) for c in about}


def test_what_is_not_there_is_not_run(paper):
    found = claims.judge(paper)
    assert {verdict.verdict for verdict in found} == {claims.NOT_RUN}
    assert "data/curation.json is not there" in {verdict.why for verdict in found}
    found = counted(paper, lines=2_542_615)
    assert found.pop("lines").verdict == claims.MET
    assert {verdict.verdict for verdict in found.values()} == {claims.NOT_RUN}
    assert found["fields.cs.kept"].why == "data/curation.json has no fields.cs.kept"


def test_the_paper_claims_the_rows_of_its_datasets(paper):
    rows = {"train": 73_768, "validation": 15_808, "test": 15_808}
    datasets = {"s1": {"rows": rows}, "s2": {"rows": {**rows, "train": 137_137}}}
    found = counted(paper, datasets=datasets)
    assert [found[f"datasets.s1.rows.{split}"].verdict for split in rows] == [claims.MET] * 3
    wrong = found["datasets.s2.rows.train"]
    assert wrong.verdict == claims.MISSED
    assert "137,137, expected 137,136" in wrong.described()


@pytest.mark.parametrize("content", ["", "[1]", "null", '{"lines": [1]}'])
def test_a_count_that_is_none_is_not_run(paper, content):
    file = paper.paths.curation
    file.parent.mkdir(parents=True)
    file.write_text(content)
    claim = FileClaim(**SAID, file="data/curation.json", key="lines", expected=1)
    found = claims.judge_one(claim, paper.paths, {file: (CURATION, None)})
    assert found.verdict == claims.NOT_RUN and found.why


# --- keeping reference values -----------------------------------------------------------------


def test_values_to_keep_are_those_of_the_run(smoke):
    settings, made = smoke
    entry = TABLE | {"certainty": "reference", "each": "model", "expected": {"gone": 1}}
    kept = claims.values(entry, settings.paths, made)
    assert kept == {"base": 30.5, "s1-LoRA-all": 20.25, "s1-LoRA-QKV": 25}
    single = TABLE | {"certainty": "reference", "where": {"model": "base"}}
    assert claims.values(single, settings.paths, made) == 30.5
    with pytest.raises(UserError, match="no row of table perplexity"):
        claims.values(single | {"where": {"model": "other"}}, settings.paths, made)
    with pytest.raises(UserError, match="not there or not up to date"):
        claims.values(single, settings.paths, {})
