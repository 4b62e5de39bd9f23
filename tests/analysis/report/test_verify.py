"""``feyntune verify``: recorded hashes, fetched bytes, claims, and released rows."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import fakes
import mirror
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from smoke_results import SMOKE, run_all

from feyntune import paths
from feyntune.analysis.report import verify
from feyntune.cli import main
from feyntune.data.fetch import download
from feyntune.errors import UserError
from feyntune.experiment import load
from feyntune.experiment.recipes import DATASETS, HUB_OWNER, PAPER
from feyntune.paths import SPLITS
from feyntune.pipeline import notebooks, runner
from feyntune.runs import code, stages

RELEASED = {"released_datasets": {"revision": "main", "files": ["data/*.parquet"]}}


@pytest.fixture(scope="module")
def complete(tmp_path_factory) -> Path:
    """The output folder of a run of smoke whose stages wrote fakes, with real records."""
    folder, environment = tmp_path_factory.mktemp("complete"), dict(os.environ)
    with pytest.MonkeyPatch.context() as patch:
        fakes.install(patch)
        patch.setenv("FEYNTUNE_OUTPUT", str(folder))
        run_all(SMOKE)
    os.environ.clear()
    os.environ.update(environment)
    return folder


@pytest.fixture
def smoke(complete, tmp_path, monkeypatch):
    """A complete run, without claims: fakes could meet none."""
    folder = tmp_path / "output"
    shutil.copytree(complete, folder)
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(folder))
    monkeypatch.setattr(paths, "expectations", lambda name: tmp_path / "none.yaml")
    return SMOKE


def wrong(settings, folder=None) -> list[str]:
    found = verify.verify(settings, mirror=folder, report=lambda line: None)
    return [finding.text for finding in found if finding.state == verify.WRONG]


def test_an_untouched_run_has_nothing_wrong(smoke):
    found = verify.verify(smoke, mirror=None, report=print)
    assert [f.text.split(":")[0] for f in found] == [f"result  {e}" for e in stages.plan(smoke)]
    assert {finding.state for finding in found} == {verify.OK}


@pytest.mark.parametrize(
    "file",
    [
        "results/smoke/snapshot/likelihood.parquet",
        "results/smoke/data/s4/test.parquet",
        "results/smoke/base/deep/two.bin",
        "results/smoke/finetune/s1-LoRA-all/adapter/one.bin",
        "results/smoke/perplexity/base.parquet",
        "results/smoke/completions/s1-LoRA-QKV.parquet",
        "results/smoke/similarity/base.json",
        "figures/smoke/one.bin",
        "tables/smoke/one.bin",
        "results/smoke/report/deep/two.bin",
    ],
)
def test_a_changed_byte_is_named_whatever_its_time(smoke, file):
    place = smoke.paths.results.parents[1] / file
    stat, content = place.stat(), bytearray(place.read_bytes())
    content[0] ^= 1
    place.write_bytes(content)
    # The same size and time: only hashing again can see it.
    os.utime(place, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert [line for line in wrong(smoke) if f"{file} is not as recorded" in line]


def test_a_changed_input_is_named_whatever_its_time(smoke, monkeypatch):
    ratings = smoke.paths.results.parents[1] / "given.csv"
    ratings.write_text("as it was")
    human = stages.STAGES[stages.HUMAN]
    more = replace(human, reads=lambda *of: {**human.reads(*of), "given.csv": ratings})
    monkeypatch.setitem(stages.STAGES, stages.HUMAN, more)
    fakes.install(monkeypatch)
    runner.run(stages.run(smoke, stages.HUMAN))
    assert not [line for line in wrong(smoke) if line.startswith("result  06_human")]
    stat = ratings.stat()
    ratings.write_text("as it is.")
    os.utime(ratings, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert "result  06_human_evaluation: its input given.csv was another" in wrong(smoke)


def test_a_missing_file_is_named(smoke):
    smoke.paths.perplexity("base").unlink()
    assert any("perplexity/base.parquet is not as recorded" in line for line in wrong(smoke))


def test_a_result_without_a_record_could_not_be_checked(smoke):
    stages.run(smoke, stages.FIGURES).record_file.unlink()
    found = verify.verify(smoke, mirror=None, report=print)
    unchecked = [f.text for f in found if f.state == verify.UNCHECKED]
    assert unchecked == ["result  07_figures_and_tables: no record of the run that made it"]
    assert [line.split(": ")[1] for line in wrong(smoke)] == ["stale (input changed"]


def test_a_result_of_other_code_is_named(smoke, monkeypatch):
    genuine = code.of_notebook
    monkeypatch.setattr(code, "of_notebook", lambda name: {**genuine(name), "cells": "other"})
    lines = wrong(smoke)
    assert "result  01_data_curation: stale (code changed: cells)" in lines
    assert "result  03_perplexity-base: stale (01_data_curation is stale)" in lines
    assert not any("stand-in-snapshot" in line for line in lines), "its maker is the same"


def test_a_result_of_other_settings_is_named(smoke):
    other = load.with_settings("smoke", {"perplexity.tokens_per_batch": 77})
    lines = wrong(other)
    assert any("03_perplexity-base: stale (settings changed: perplexity." in line for line in lines)
    assert not any("02_finetune" in line for line in lines)


def test_nothing_to_verify_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path))
    with pytest.raises(UserError, match="no results to verify"):
        verify.verify(load.load("smoke"), mirror=None, report=print)


def test_claims_are_judged_and_only_missed_ones_are_wrong(smoke, monkeypatch, tmp_path):
    table = smoke.paths.table("perplexity").with_suffix(".csv")

    def draw(of, kernel=None):
        fakes.fake(of)
        table.write_text("model,mean\nbase,1\ns1-LoRA-all,2\n")

    monkeypatch.setattr(notebooks, "execute", draw)
    stages.run(smoke, stages.FIGURES).record_file.unlink()
    for stage in (stages.FIGURES, stages.REPORT):
        runner.run(stages.run(smoke, stage))
    claim = {"table": "perplexity", "column": "mean", "source": "s", "certainty": "reference"}
    lines = [
        {"claim": name, "where": {"model": model}, "expected": 1, **claim}
        for name, model in (("good", "base"), ("bad", "s1-LoRA-all"), ("absent", "s2-LoRA-all"))
    ]
    place = tmp_path / "some.expected.yaml"
    place.write_text(yaml.safe_dump({"snapshot": None, "claims": lines}))
    monkeypatch.setattr(paths, "expectations", lambda name: place)
    assert wrong(smoke) == ["claim   missed  bad: 2, expected 1"]
    found = verify.verify(smoke, mirror=None, report=print)
    unchecked = [f.text for f in found if f.state == verify.UNCHECKED]
    assert unchecked == ["claim   not run absent, expected 1 (0 of 1 values in table perplexity)"]
    # A table that no fresh run vouches for is not judged, whatever it says.
    table.write_text("model,mean\nbase,1\ns1-LoRA-all,1\n")
    found = verify.verify(smoke, mirror=None, report=print)
    judged = [f.text for f in found if f.text.startswith("claim")]
    assert judged[0].startswith(
        "claim   not run good, expected 1 (table perplexity is not of today"
    )
    assert all(text.startswith("claim   not run") for text in judged)


def test_the_command_says_so_and_its_status_too(smoke):
    fine = CliRunner().invoke(main, ["verify", "--experiment", "smoke"])
    assert fine.exit_code == 0 and fine.output.endswith(
        "15 checked, 0 differ, 0 could not be checked.\n"
    )
    smoke.paths.curation.write_text("{}")
    changed = CliRunner().invoke(main, ["verify", "--experiment", "smoke"])
    assert changed.exit_code == 1
    assert "WRONG       result  01_data_curation: results/smoke/data/curation" in changed.output


# --- what was fetched -------------------------------------------------------------------------


def unjudged(lines: list[str]) -> list[str]:
    """Without the claims, which invented numbers cannot meet."""
    return [line for line in lines if not line.startswith("claim")]


@pytest.fixture
def published(tmp_path, monkeypatch):
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path / "output"))
    built = mirror.build(tmp_path / "mirror", abstracts=20)
    settings = load.with_settings("published", built.overrides)
    download.fetch(settings, settings.outside, mirror=built.folder, report=lambda line: None)
    return settings


def test_fetched_bytes_are_hashed_again(published, tmp_path):
    assert unjudged(wrong(published)) == []
    file = published.paths.fetched("semscores") / mirror.PARQUET
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.resolve().write_bytes(content)
    lines = unjudged(wrong(published))
    assert len(lines) == 1 and "semscores" in lines[0] and mirror.PARQUET in lines[0]


def test_no_stage_reads_what_is_not_as_it_was_fetched(published):
    assert runner.run(stages.run(published, stages.RELEASED))
    file = published.paths.fetched("perplexities") / mirror.PARQUET
    file.resolve().write_bytes(b"another" + file.read_bytes())
    with pytest.raises(UserError, match=r"test-00000-of-00001.parquet.* contents changed"):
        runner.run(stages.run(published, stages.RELEASED))
    record = stages.run(published, stages.RELEASED).record_file
    assert record.is_file(), "what was made of the true file is still vouched for"


def test_the_same_holds_for_a_card(published):
    file = published.paths.fetched("s7-LoRA-all") / "README.md"
    file.resolve().write_text("another card")
    assert any("s7-LoRA-all" in line and "README.md" in line for line in wrong(published))


# --- released rows ----------------------------------------------------------------------------


@pytest.fixture
def curated(tmp_path, monkeypatch):
    """Invented datasets, and a mirror that has them as the Hub would."""
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path / "output"))
    settings = load.with_settings("smoke", RELEASED)
    for dataset in DATASETS:
        place = (
            tmp_path / "mirror" / "datasets" / HUB_OWNER / PAPER["recipes"][dataset]["hub"] / "data"
        )
        place.mkdir(parents=True)
        for split in SPLITS:
            rows = pd.DataFrame({"id": [f"{dataset}-{split}-{n}" for n in range(9)]})
            ours = settings.paths.split(dataset, split)
            ours.parent.mkdir(parents=True, exist_ok=True)
            rows.to_parquet(ours)
            for number, shard in enumerate((rows[:4], rows[4:])):
                shard.to_parquet(place / f"{split}-0000{number}-of-00002.parquet")
    return settings, tmp_path / "mirror"


def rows_of(settings, folder) -> dict[str, verify.Finding]:
    found = verify._released_rows(settings, folder, lambda line: None)
    return {finding.text.split("(")[0].strip(): finding for finding in found}


def test_every_split_is_compared_in_order(curated):
    found = rows_of(*curated)
    assert len(found) == 30
    assert all("the same in the same order" in each.text for each in found.values())
    assert {finding.state for finding in found.values()} == {verify.OK}


def change(curated, dataset, split, edit) -> verify.Finding:
    settings, _ = curated
    file = settings.paths.split(dataset, split)
    edit(pd.read_parquet(file)).to_parquet(file)
    return rows_of(*curated)[f"rows    {dataset} {split}"]


def test_another_order_is_wrong(curated):
    found = change(curated, "s9", "validation", lambda rows: rows[::-1])
    assert found.state == verify.WRONG and "in another order" in found.text


def test_other_rows_are_counted(curated):
    found = change(curated, "s2", "train", lambda rows: rows[1:])
    assert found.state == verify.WRONG and "in common" in found.text


def test_without_the_hub_rows_could_not_be_checked(curated, tmp_path):
    settings, _ = curated
    (tmp_path / "empty").mkdir()
    [finding] = verify._released_rows(settings, tmp_path / "empty", lambda line: None)
    assert finding.state == verify.UNCHECKED and finding.text.startswith("rows    ")


def test_uncurated_datasets_are_not_compared(tmp_path, monkeypatch):
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path))
    settings = load.with_settings("smoke", RELEASED)
    [finding] = verify._released_rows(settings, None, lambda line: None)
    assert "not curated yet" in finding.text and finding.state == verify.UNCHECKED


def test_an_experiment_without_released_datasets_compares_none(smoke):
    assert list(verify._released_rows(smoke, None, print)) == []
