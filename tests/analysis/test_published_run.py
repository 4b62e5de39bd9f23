"""`published` from end to end: a mirror in, the paper's figures and tables out."""

from __future__ import annotations

import os
import subprocess
import sys

import mirror
import numpy as np
import own_experiments
import pandas as pd
import pytest

from feyntune.experiment import load
from feyntune.experiment.recipes import MODELS, VARIANTS, released_name
from feyntune.paths import REPOSITORY
from feyntune.runs import records

FIGURES = {
    "fig-3.1-learning-curves",
    "fig-3.2-validation-perplexity",
    "fig-3.3-bootstrap-perplexity",
    "fig-3.4-completion-entropy",
    "fig-human-evaluation",
    "fig-perplexity-by-year",
}
TABLES = {
    "completions",
    "datasets",
    "human-evaluation",
    "human-evaluation-agreement",
    "human-evaluation-differences",
    "human-evaluation-predictors",
    "loss-steps",
    "nearness",
    "perplexity",
    "perplexity-by-year",
    "perplexity-cutoff",
    "perplexity-differences",
    "semscore",
}
UNRELEASED = "s10-LoRA-QKV"


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """The command, to which no network is open."""
    return subprocess.run(
        [sys.executable, "-m", "feyntune", *arguments, "--experiment", "published"],
        cwd=REPOSITORY,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
    )


LOCK = "experiments/published.lock.yaml"
EVERY = ("perplexities", "semscores", "completions", "ratings", *VARIANTS)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A mirror in which one model's completions are missing, and two cards are odd."""
    name = released_name(UNRELEASED)
    return mirror.build(
        tmp_path_factory.mktemp("mirror"),
        abstracts=60,
        frames={"completions": lambda f: f.drop(columns=[f"comp_{name}", f"preds_{name}"])},
        cards={"s7-LoRA-all": ["LLMsForHepth/hep-th_hep-ph_primary"], "s9-LoRA-QKV": None},
    )


@pytest.fixture(scope="module")
def drawn(built, tmp_path_factory):
    """Environment and answer of a whole run."""
    output = tmp_path_factory.mktemp("output")
    # No assertion depends on the intervals.
    few = {"statistics.resamples": 99}
    own_experiments.changed(output, "published", built.overrides | few)
    environment = {"FEYNTUNE_OUTPUT": str(output)}
    answer = command("reproduce", "--mirror", str(built.folder), **environment)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return output, environment, answer.stdout


def table(output, name: str) -> pd.DataFrame:
    return pd.read_csv(output / "tables" / "published" / f"{name}.csv", dtype={"year": str})


def test_every_figure_and_table_is_drawn(drawn):
    output, _, said = drawn
    figures = {path.name for path in (output / "figures" / "published").glob("*.p*")}
    assert figures == {f"{name}.{ending}" for name in FIGURES for ending in ("pdf", "png")}
    assert {path.stem for path in (output / "tables" / "published").glob("*.csv")} == TABLES
    assert "which CONTRADICTS our recipe" in said and "stand-in" not in said


def test_tables_hold_the_released_numbers(drawn, built):
    output, _, _ = drawn
    repository = built.folder / "datasets" / "LLMsForHepth"
    scores = pd.read_parquet(repository / "hep-th_perplexities" / mirror.PARQUET)
    found = table(output, "perplexity").set_index("model")
    assert list(found.index) == list(MODELS)
    means = [scores[f"perplexity_{released_name(model)}"].mean() for model in MODELS]
    np.testing.assert_allclose(found["mean"], means, rtol=1e-5)
    assert found["label"].isna().all(), "nothing here is a stand-in"
    assert found["bits_per_byte"].isna().all(), "it cannot be known"
    ratings = pd.read_csv(built.folder / "web" / mirror.RATINGS)
    rated = table(output, "human-evaluation").query("papers == 'all' and system == 'all'")
    for category, mean in ratings.groupby("category")["score"].mean().items():
        assert rated.set_index("category").loc[category, "mean"] == pytest.approx(mean, rel=1e-5)


def test_ratings_are_analysed_and_their_defects_listed(drawn, built):
    output, _, _ = drawn
    differences = table(output, "human-evaluation-differences")
    assert differences["units"].tolist() == [36] * 40
    assert set(differences["papers"]) == {25}
    agreed = table(output, "human-evaluation-agreement").set_index("measure")
    assert agreed.loc["ICC(2,1), one rater, absolute", ["papers", "completions"]].tolist() == [
        5,
        125,
    ]
    assert agreed.loc["Krippendorff's alpha, ordinal", "papers"] == 6, "and the one of two raters"
    predicted = table(output, "human-evaluation-predictors").set_index(["metric", "over"])
    assert predicted.loc[("perplexity", "variants"), "models"] == 20
    assert predicted.loc[("SemScore, with prompt", "variants and base"), "models"] == 20
    assert predicted.loc[("SemScore, continuation", "variants"), "models"] == 0
    folder = output / "results" / "published" / "human-evaluation"
    facts = records.read(folder / "facts.json")
    assert facts["ratings"] == 900 and facts["missing"] == [] and len(facts["source_slips"]) == 9
    assert {row["source"] for row in facts["source_slips"]} == {"individual", "bc"}
    assert len(list((folder / "sheets").glob("*.html"))) == 3


def test_what_is_not_released_is_said(drawn):
    output, _, _ = drawn
    scored = table(output, "semscore").query("compared == 'with prompt'").set_index("model")
    assert scored.loc[UNRELEASED, "note"] == "not available"
    assert scored["mean"].notna().sum() == 20
    released = records.read(output / "results" / "published" / "released.json")
    assert set(released["missing"]["completions"]) == {UNRELEASED}
    notebook = output / "results" / "published" / "notebooks" / "07_figures_and_tables.ipynb"
    assert f"completions, {UNRELEASED}: no column preds_" in notebook.read_text()


def test_the_run_itself_says_what_is_not_released(drawn):
    _, _, said = drawn
    assert f"Not available: completions, {UNRELEASED}: no column preds_" in said
    assert "Claims    " in said


def test_cards_are_in_the_table_of_datasets_and_in_the_lock(drawn):
    output, _, _ = drawn
    found = table(output, "datasets").set_index("dataset")
    assert found.loc["s7", "card_LoRA-all"].startswith("contradicted: LLMsForHepth/hep-th_hep-ph")
    assert found.loc["s9", "card_LoRA-QKV"] == "not said"
    assert (found.drop(index=["s7", "s9"])[["card_LoRA-all", "card_LoRA-QKV"]] == "confirmed").all(
        axis=None
    )
    lock = (output / "experiments" / "published.lock.yaml").read_text()
    assert lock.count("verdict: confirmed") == 18 and str(output) not in lock


def test_a_second_run_needs_no_mirror_and_does_nothing(drawn):
    _, environment, _ = drawn
    answer = command("reproduce", **environment)
    assert answer.returncode == 0, answer.stderr
    assert "nothing to do" in answer.stdout and "fetching" not in answer.stdout


def test_verify_finds_nothing_wrong(drawn):
    _, environment, _ = drawn
    answer = command("verify", **environment)
    lines = [line for line in answer.stdout.splitlines() if "  claim  " not in line]
    assert not [line for line in lines[:-1] if not line.startswith("ok ")], answer.stdout
    assert sum("every byte as locked" in line for line in lines) == 24
    # The numbers here are invented, and the claims about the authors' say so.
    assert "missed  hep-th test abstracts: 60, expected 15,808" in answer.stdout
    assert answer.returncode == 1


def test_without_network_and_mirror_one_line_says_so(built, tmp_path):
    own_experiments.changed(tmp_path, "published", built.overrides)
    answer = command("reproduce", FEYNTUNE_OUTPUT=str(tmp_path))
    assert answer.returncode == 2
    [line] = answer.stderr.strip().splitlines()
    assert line.startswith("feyntune: perplexities: dataset LLMsForHepth/hep-th_perplexities")
    assert "HF_HUB_OFFLINE" in line
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_mirror_that_is_none(tmp_path):
    answer = command("fetch", "--mirror", str(tmp_path / "none"))
    assert answer.returncode == 2 and "is no folder" in answer.stderr


def test_dry_run_says_what_it_would_fetch(built, tmp_path):
    own_experiments.changed(tmp_path, "published", built.overrides)
    answer = command("reproduce", "--dry-run", FEYNTUNE_OUTPUT=str(tmp_path))
    assert answer.returncode == 0, answer.stderr
    assert "Would fetch perplexities, semscores, completions, ratings" in answer.stdout
    assert "would run released-scores" in answer.stdout
    assert load.load("published").scores == "released"


def test_ratings_alone_are_drawn_and_the_rest_is_named(tmp_path):
    """What a reviewer gets whose network reaches one source; then another comes."""
    ratings = mirror.build(tmp_path / "ratings", without=set(EVERY) - {"ratings"})
    output = tmp_path / "output"
    few = {"statistics.resamples": 99}
    own_experiments.changed(output, "published", ratings.overrides | few)
    environment = {"FEYNTUNE_OUTPUT": str(output)}
    answer = command("reproduce", "--mirror", str(ratings.folder), **environment)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    [line] = [each for each in answer.stdout.splitlines() if each.startswith("Not to be had: ")]
    assert f"perplexities, semscores, completions, {VARIANTS[0]}, " in line
    assert {path.stem for path in (output / "figures" / "published").glob("*.pdf")} == FIGURES
    assert {path.stem for path in (output / "tables" / "published").glob("*.csv")} == TABLES
    assert set(table(output, "perplexity")["note"]) == {"not available"}
    assert table(output, "human-evaluation")["mean"].notna().all()
    assert "Not available: sources, perplexities: could not be had" in answer.stdout
    assert not (output / LOCK).exists(), "it would lack sources"
    answer = command("fetch", "--mirror", str(ratings.folder), **environment)
    assert answer.returncode == 2 and "perplexities: not in the mirror" in answer.stderr
    scores = mirror.build(tmp_path / "scores", without=["ratings"])
    answer = command("fetch", "--mirror", str(scores.folder), **environment)
    assert answer.returncode == 0, answer.stderr
    assert (output / LOCK).read_text().count("source:") == len(EVERY)
