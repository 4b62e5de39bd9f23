"""Claims: what must come out, beside what did."""

from __future__ import annotations

import json

import pytest
import yaml

from feyntune import claims, experiment
from feyntune.errors import UserError
from feyntune.paths import EXPERIMENTS

COUNTS = {"lines": 2_542_615, "fields": {"hep-th": {"selected": 105_617, "kept": 105_384}}}


@pytest.fixture
def paper(tmp_path, monkeypatch):
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path))
    return experiment.load("paper")


def curated(settings, **content) -> None:
    settings.paths.curation.parent.mkdir(parents=True)
    settings.paths.curation.write_text(json.dumps(content))


def verdicts(settings) -> dict[str, str]:
    return {f"{v.claim.key}": v.verdict for v in claims.judge(settings)}


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.expected.yaml")), ids=lambda p: p.stem)
def test_every_file_of_claims_is_of_an_experiment_and_well_formed(path):
    name = path.name.removesuffix(".expected.yaml")
    assert name in experiment.names()
    found = claims.load(name)
    assert found.claims
    assert len({claim.key for claim in found.claims}) == len(found.claims)


def test_what_is_not_there_is_not_run(paper):
    assert set(verdicts(paper).values()) == {claims.NOT_RUN}
    curated(paper, lines=2_542_615)
    found = verdicts(paper)
    assert found.pop("lines") == claims.MET
    assert set(found.values()) == {claims.NOT_RUN}


def test_the_paper_claims_the_rows_of_its_datasets(paper):
    rows = {"train": 73_768, "validation": 15_808, "test": 15_808}
    curated(paper, datasets={"s1": {"rows": rows}, "s2": {"rows": {**rows, "train": 137_137}}})
    found = verdicts(paper)
    assert [found[f"datasets.s1.rows.{split}"] for split in rows] == [claims.MET] * 3
    assert found["datasets.s2.rows.train"] == claims.MISSED
    text = next(
        v.described() for v in claims.judge(paper) if v.claim.key == "datasets.s2.rows.train"
    )
    assert "137,137" in text and "137,136" in text


def test_a_tolerance_counts_both_ways(paper):
    claim = claims.load("paper").claims[0].model_copy(update={"expected": 10, "tolerance": 0.5})
    found = [claims._judged(claim, {"lines": n}).verdict for n in (9.4, 9.5, 10, 10.5, 10.6)]
    assert found == ["missed", "met", "met", "met", "missed"]


def test_the_claimed_version_of_a_snapshot_must_have_its_counts(paper):
    assert claims.hold_counts(paper, COUNTS) == []
    other = {**COUNTS, "lines": 2_542_616}
    with pytest.raises(UserError, match=r"2,542,616, expected 2,542,615") as caught:
        claims.hold_counts(paper, other)
    assert "version 193" in str(caught.value)
    assert "hep-th" not in str(caught.value), "what agrees is not listed"


def test_another_snapshot_is_told_what_differs_and_goes_on(paper):
    given = experiment.load("paper", {"data.snapshot": "/data/arxiv.json"})
    newer = experiment.load("paper", {"fetch.snapshot.version": 240})
    for settings in (given, newer):
        differ = claims.hold_counts(settings, {**COUNTS, "lines": 3_000_000})
        assert len(differ) == 1 and "3,000,000" in differ[0]


def test_experiments_without_claims_have_nothing_to_hold(monkeypatch, tmp_path):
    monkeypatch.setattr(claims, "EXPERIMENTS", tmp_path)
    assert claims.hold_counts(experiment.load("smoke"), {"lines": 3}) == []
    assert claims.judge(experiment.load("smoke")) == []


def test_an_experiment_that_extends_the_paper_is_held_to_its_counts():
    # `published` extends `paper`, and has no claims about a snapshot of its own.
    differ = claims.hold_counts(
        experiment.load("published", {"data.snapshot": "/data/x.json"}), {"lines": 3}
    )
    assert any("records in the snapshot" in line for line in differ)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"expected": None}, "expected"),
        ({"surplus": 1}, "surplus"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"certainty": "sure"}, "certainty"),
    ],
)
def test_a_malformed_claim_is_named(monkeypatch, tmp_path, change, said):
    content = yaml.safe_load((EXPERIMENTS / "paper.expected.yaml").read_text())
    content["claims"][0] |= change
    (tmp_path / "paper.expected.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(claims, "EXPERIMENTS", tmp_path)
    with pytest.raises(UserError, match=said) as caught:
        claims.load("paper")
    assert "\n" not in str(caught.value)
