"""Files of claims: their form, and how a value is judged."""

from __future__ import annotations

import pandas as pd
import pytest
import yaml

from feyntune import paths
from feyntune.analysis.report import claims, expectations
from feyntune.analysis.report.expectations import FileClaim, Found
from feyntune.analysis.tables import writing
from feyntune.errors import UserError
from feyntune.experiment import load
from feyntune.paths import EXPERIMENTS, REPOSITORY

SAID = {"claim": "a claim", "source": "somewhere", "certainty": "stated"}


def expect(monkeypatch, folder, name: str, *entries: dict) -> None:
    """Give an experiment these claims."""
    place = folder / f"{name}.expected.yaml"
    place.write_text(yaml.safe_dump({"snapshot": None, "claims": list(entries)}))
    monkeypatch.setattr(paths, "expectations", lambda name: folder / f"{name}.expected.yaml")


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.expected.yaml")), ids=lambda p: p.stem)
def test_every_file_of_claims_is_of_an_experiment_and_well_formed(path):
    name = path.name.removesuffix(".expected.yaml")
    assert name in load.names()
    found = expectations.load(name).claims
    assert found
    assert len({claim.claim for claim in found}) == len(found), "each is said once"
    assert {claim.figure for claim in found} - {None} <= set(writing.captions()["figures"])


LOWER = ("perplexity-differences", "difference")
STEPS = [("loss-steps", "step"), *2 * [("loss-steps", "step_per_scatter")]]


@pytest.mark.parametrize(
    ("name", "others"), [("demo", [*STEPS, *6 * [("nearness", "difference")]]), ("smoke", [])]
)
def test_no_claim_of_the_real_model_alone_is_judged_on_a_stand_in(name, others):
    judged = [c for c in expectations.load(name).claims if c.not_judged is None]
    theirs = [c for c in judged if c.certainty != "reference"]
    assert [(c.table, c.column) for c in theirs] == [LOWER, *others]


def test_every_lora_all_of_demo_is_apart_from_base():
    """What its stand-in is built to show, with at least 100 abstracts: docs/results.md says so."""
    table = pd.read_csv(REPOSITORY / "tables" / "demo" / "perplexity.csv", index_col="model")
    base, others = table.loc["base"], table.filter(like="-LoRA-all", axis="index")
    assert base["abstracts"] >= 100 and len(others) == 10
    assert (others["high"] < base["low"]).all()


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


def test_a_decimal_tolerance_is_not_missed_by_its_binary_form():
    claim = FileClaim(**SAID, file="x", key="a", expected=0.3, tolerance=0.1)
    assert claim.meets(Found(0.4)) and claim.meets(Found(0.2))
    assert not claim.meets(Found(0.400001))


def test_experiments_without_claims_have_nothing_to_hold(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "expectations", lambda name: tmp_path / name)
    assert claims.judge(load.load("smoke")) == []


@pytest.mark.parametrize("name", ["demo", "smoke", "paper", "published", "released"])
def test_what_is_our_reading_of_the_paper_is_inferred(name):
    """Its abstract names no metric, its caption no place of the steps, and no text any number."""
    ours = ("perplexity than base", "ends of epochs", "steps are seen", "none are seen")
    of_paper = [c for c in expectations.load(name).claims if "of the paper" in c.source]
    read = [c for c in expectations.load(name).claims if any(text in c.claim for text in ours)]
    assert of_paper and {c.certainty for c in of_paper + read} == {"inferred"}
    stated = [c for c in expectations.load(name).claims if c.certainty == "stated"]
    assert not [c for c in stated if isinstance(getattr(c, "expected", None), int | float)]
