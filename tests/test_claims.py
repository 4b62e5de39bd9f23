"""Claims: what must come out, beside what did."""

from __future__ import annotations

import json

import pytest
import yaml

from feyntune import paths
from feyntune.analysis.report import claims, expectations
from feyntune.analysis.report.expectations import FileClaim, Found, Statement, TableClaim
from feyntune.analysis.tables import captions
from feyntune.errors import UserError
from feyntune.experiment import load
from feyntune.paths import EXPERIMENTS
from feyntune.runs.stages import CURATION, FIGURES

COUNTS = {"lines": 2_542_615, "fields": {"hep-th": {"selected": 105_617, "kept": 105_384}}}
SAID = {"claim": "a claim", "source": "somewhere", "certainty": "stated"}
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


def expect(monkeypatch, folder, name: str, *entries: dict) -> None:
    """Give an experiment these claims."""
    place = folder / f"{name}.expected.yaml"
    place.write_text(yaml.safe_dump({"snapshot": None, "claims": list(entries)}))
    monkeypatch.setattr(paths, "expectations", lambda name: folder / f"{name}.expected.yaml")


# --- files of claims --------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.expected.yaml")), ids=lambda p: p.stem)
def test_every_file_of_claims_is_of_an_experiment_and_well_formed(path):
    name = path.name.removesuffix(".expected.yaml")
    assert name in load.names()
    found = expectations.load(name).claims
    assert found
    assert len({claim.claim for claim in found}) == len(found), "each is said once"
    assert {claim.figure for claim in found} - {None} <= set(captions.FIGURES)


@pytest.mark.parametrize("name", ["demo", "smoke"])
def test_no_claim_of_the_real_model_alone_is_judged_on_a_stand_in(name):
    judged = [c for c in expectations.load(name).claims if c.not_judged is None]
    theirs = [c for c in judged if c.certainty != "reference"]
    assert [(c.table, c.column) for c in theirs] == [("perplexity-differences", "difference")]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"expected": None}, "expected"),
        ({"surplus": 1}, "surplus"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"certainty": "sure"}, "certainty"),
        ({"relation": "above", "expected": "text"}, "needs one number"),
        ({"relation": "equal", "judged": "interval"}, "above or below"),
    ],
)
def test_a_malformed_claim_is_named(monkeypatch, tmp_path, change, said):
    entry = {**SAID, "file": "x.json", "key": "a", "expected": 1, **change}
    expect(monkeypatch, tmp_path, "paper", entry)
    with pytest.raises(UserError, match=said) as caught:
        expectations.load("paper")
    assert "\n" not in str(caught.value) and "paper.expected.yaml: claims 1" in str(caught.value)


TABLE = {**SAID, "table": "perplexity", "column": "mean", "expected": 1.0}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"expected": {"base": 1.0}}, "each"),
        ({"each": "model"}, "each"),
        ({"relation": "above", "judged": "interval"}, "interval"),
        ({"rows": 0}, "rows"),
        ({"interval": ["low"]}, "interval"),
    ],
)
def test_a_malformed_claim_on_a_table_is_named(monkeypatch, tmp_path, change, said):
    expect(monkeypatch, tmp_path, "smoke", TABLE | change)
    with pytest.raises(UserError, match=said):
        expectations.load("smoke")


def test_a_table_that_does_not_exist_is_an_error_that_knows_better(monkeypatch, tmp_path):
    expect(monkeypatch, tmp_path, "smoke", TABLE | {"table": "perplexitty"})
    with pytest.raises(UserError, match=r"smoke\.expected\.yaml: Unknown table 'perpl") as said:
        expectations.load("smoke")
    assert "Did you mean 'perplexity'?" in str(said.value) and "\n" not in str(said.value)


# --- judging values ---------------------------------------------------------------------------


@pytest.fixture
def smoke(output):
    """Smoke with a table of perplexities, and what a run of notebook 07 vouches for."""
    settings = load.load("smoke")
    place = settings.paths.table("perplexity").with_suffix(".csv")
    place.parent.mkdir(parents=True)
    place.write_text(PERPLEXITY)
    return settings, {place: (FIGURES, None)}


def judged(smoke, changed=(), **claim) -> claims.Verdict:
    settings, made = smoke
    given = TABLE | {"interval": ["low", "high"]} | claim
    return claims.judged(TableClaim(**given), settings.paths, made, changed)


def one(model="base", **claim):
    return {"where": {"model": model}, **claim}


def test_a_value_is_met_within_its_tolerance_both_ways(smoke):
    expected = {"missed": (29.9, 31.1), "met": (30, 30.5, 31)}
    for verdict, values in expected.items():
        for value in values:
            found = judged(smoke, **one(expected=value, tolerance=0.5))
            assert (found.verdict, found.summary) == (verdict, "30.5 [29, 32]"), value


def test_a_decimal_tolerance_is_not_missed_by_its_binary_form():
    claim = FileClaim(**SAID, file="x", key="a", expected=0.3, tolerance=0.1)
    assert expectations.meets(claim, Found(0.4)) and expectations.meets(claim, Found(0.2))
    assert not expectations.meets(claim, Found(0.400001))


def test_beyond_is_beyond_and_not_touching(smoke):
    found = {
        (relation, limit): judged(smoke, **one(relation=relation, expected=limit)).verdict
        for relation in ("above", "below")
        for limit in (30, 30.5, 31)
    }
    met = {key for key, verdict in found.items() if verdict == claims.MET}
    assert met == {("above", 30), ("below", 31)}


def test_a_whole_interval_must_be_beyond_where_that_is_claimed(smoke):
    for limit, verdict in ((29.5, "missed"), (28.9, "met")):
        claim = one(relation="above", judged="interval", expected=limit)
        assert judged(smoke, **claim).verdict == verdict
    claim = one(relation="below", judged="interval", expected=31)
    assert judged(smoke, **claim).verdict == "missed", "32 is not below 31"


def test_every_row_must_do_and_the_worst_is_named(smoke):
    below = {"relation": "below", "rows": 3}
    [place] = smoke[1]
    place.write_text(PERPLEXITY.replace("s2-LoRA-all,,,,not run,stand-in\n", ""))
    found = judged(smoke, **below, expected=31)
    assert found.verdict == claims.MET
    assert found.summary == "3 of 3; nearest to the limit: base 30.5 [29, 32]"
    found = judged(smoke, **below, expected=22)
    assert found.verdict == claims.MISSED
    assert found.summary == "1 of 3; farthest off: base 30.5 [29, 32]"
    assert found.expected == "below 22, each of 3"


def test_rows_that_are_not_there_are_no_success(smoke):
    found = judged(smoke, relation="below", expected=31, rows=4)
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
    with pytest.raises(UserError, match="Unknown column of table perplexity") as caught:
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
    found = claims.judged(Statement(**SAID, not_judged="no data"), settings.paths, made)
    assert (found.verdict, found.why, found.expected) == (claims.NOT_RUN, "no data", "")


def test_reference_values_hold_for_the_settings_they_were_recorded_with(smoke):
    claim = one(expected=30.5, certainty="reference")
    assert judged(smoke, **claim).verdict == claims.MET
    found = judged(smoke, ["data.snapshot"], **claim)
    assert found.verdict == claims.NOT_RUN and "data.snapshot" in found.why
    assert judged(smoke, ["data.snapshot"], **one(expected=30.5)).verdict == claims.MET


def test_settings_from_outside_are_known(monkeypatch):
    assert load.changed(load.load("smoke")) == []
    monkeypatch.setenv("FEYNTUNE__PERPLEXITY__TOKENS_PER_BATCH", "77")
    settings = load.load("smoke", {"data.snapshot": "x.json"})
    assert load.changed(settings) == ["data.snapshot", "perplexity.tokens_per_batch"]


# --- counts -----------------------------------------------------------------------------------


def counted(settings, **content) -> dict[str, str]:
    """Verdicts by key on a ``curation.json`` of this content."""
    file = settings.paths.curation
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    about = [c for c in expectations.load("paper").claims if isinstance(c, FileClaim)]
    made = {file: (CURATION, None)}
    return {c.key: claims.judged(c, settings.paths, made) for c in about}


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
    found = claims.judged(claim, paper.paths, {file: (CURATION, None)})
    assert found.verdict == claims.NOT_RUN and found.why


def test_the_claimed_version_of_a_snapshot_must_have_its_counts(paper):
    assert expectations.hold_counts(paper, COUNTS) == []
    other = {**COUNTS, "lines": 2_542_616}
    with pytest.raises(UserError, match=r"2,542,616, expected 2,542,615") as caught:
        expectations.hold_counts(paper, other)
    assert "version 193" in str(caught.value)
    assert "hep-th" not in str(caught.value), "what agrees is not listed"


def test_another_snapshot_is_told_what_differs_and_goes_on():
    given = load.load("paper", {"data.snapshot": "/data/arxiv.json"})
    newer = load.load("paper", {"fetch.snapshot.version": 240})
    for settings in (given, newer):
        differ = expectations.hold_counts(settings, {**COUNTS, "lines": 3_000_000})
        assert len(differ) == 1 and "3,000,000" in differ[0]


def test_experiments_without_claims_have_nothing_to_hold(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "expectations", lambda name: tmp_path / name)
    assert expectations.hold_counts(load.load("smoke"), {"lines": 3}) == []
    assert claims.judge(load.load("smoke")) == []


def test_an_experiment_that_extends_the_paper_is_held_to_its_counts():
    # `published` extends `paper`, and has no claims about a snapshot of its own.
    differ = expectations.hold_counts(
        load.load("published", {"data.snapshot": "/data/x.json"}), {"lines": 3}
    )
    assert any("records in the snapshot" in line for line in differ)


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
