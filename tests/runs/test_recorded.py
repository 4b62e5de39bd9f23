"""Results that are committed with their experiment, of fakes."""

import shutil
import sys
from pathlib import Path

import fakes
import pandas as pd
import pytest
from smoke_results import ALL, GATHERED, QKV, SMOKE, at, in_order, jobs, not_fresh, run_all, smoke

from feyntune.errors import UserError
from feyntune.paths import WORKFLOW
from feyntune.pipeline import engine, notebooks, runner
from feyntune.runs import code, freshness, records
from feyntune.runs.freshness import FRESH, MISSING, STALE, Freshness
from feyntune.runs.stages import (
    BASE_MODEL,
    COMPLETIONS,
    CURATION,
    FINETUNE,
    PERPLEXITY,
    SNAPSHOT,
    Run,
    plan,
)

# What is committed without some of its columns.
REDUCED = {"data/s1/test": ["abstract"], "completions": ["prompt", "truth"]}
COMPUTED = [each for each in plan(SMOKE) if not each.stage.gathers]


def with_frames(of: Run, *_) -> None:
    """Fakes, and a frame for what is committed without some of its columns."""
    fakes.fake(of)
    for role, columns in REDUCED.items():
        if role in of.writes:
            frame = {"id": [str(of)], **{name: ["their words"] for name in columns}}
            pd.DataFrame(frame).to_parquet(of.writes[role])


@pytest.fixture(scope="module")
def complete(faked, tmp_path_factory) -> Path:
    """The output folder of a complete run of smoke, with such frames."""
    folder = tmp_path_factory.mktemp("complete")
    faked.setattr(notebooks, "execute", with_frames)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEYNTUNE_OUTPUT", str(folder))
        run_all(SMOKE)
    return folder


@pytest.fixture
def commit(monkeypatch):
    monkeypatch.syspath_prepend(str(WORKFLOW))
    import keep_results

    yield keep_results.commit
    sys.modules.pop("keep_results")


@pytest.fixture
def clone(output, commit):
    """A fresh clone, where there are no results but those that are committed."""
    (output / "experiments" / "smoke").mkdir(parents=True)
    commit(COMPUTED)
    shutil.rmtree(output / "results")
    return output


def test_neither_authors_words_nor_weights_are_committed(clone):
    folder = clone / "experiments" / "smoke"
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    results = {name for name in files if not name.startswith("runs/")}
    of_models = {
        *(f"perplexity/{m}.parquet" for m in SMOKE.models),
        *(f"completions/{m}.parquet" for m in SMOKE.models),
        *(f"similarity/{m}.json" for m in SMOKE.models),
        *(f"finetune/{v}/{name}" for v in SMOKE.variants for name in ("log.parquet", "run.json")),
    }
    assert results == {*of_models, "data/curation.json", "data/s1/test.parquet"}
    for name in ("data/s1/test.parquet", "completions/base.parquet"):
        assert [*pd.read_parquet(folder / name)] == ["id"]


def test_a_clone_draws_from_them_and_computes_nothing(clone):
    taken = freshness.take_committed(plan(SMOKE))
    assert taken == COMPUTED
    assert jobs(each for each in plan(SMOKE) if each not in taken) == not_fresh(SMOKE)
    assert run_all(SMOKE) == in_order(*GATHERED)
    assert not_fresh(SMOKE) == []
    assert Freshness(SMOKE).taken(COMPUTED) == (len(COMPUTED), [])
    assert freshness.take_committed(plan(SMOKE)) == []


def test_results_that_are_here_are_never_replaced(output, commit):
    (output / "experiments" / "smoke").mkdir(parents=True)
    commit(COMPUTED)
    assert freshness.take_committed(plan(SMOKE)) == []


def test_they_stay_when_code_changes_and_it_is_named(clone, monkeypatch):
    freshness.take_committed(plan(SMOKE))
    monkeypatch.setattr(code, "of_notebook", lambda name: {"code cells": "other"})
    look = Freshness(SMOKE)
    assert look.status(at((FINETUNE, ALL))) == (FRESH, "recorded, not computed here")
    [line] = look.taken(COMPUTED).lines("smoke")
    assert line.startswith(f"{len(COMPUTED)} results are those committed in experiments/smoke/. ")
    assert "Changed since they were made: " in line and "code of code cells" in line


def test_with_other_settings_they_do_not_count(clone):
    other = smoke(training__weight_decay=0.5)
    taken = freshness.take_committed(plan(other))
    assert (FINETUNE, ALL) not in jobs(taken) and (PERPLEXITY, "base") in jobs(taken)
    freshness.take_committed(plan(SMOKE))
    state, why = Freshness(other).status(at((FINETUNE, ALL), other))
    assert state == STALE and "training.weight_decay" in why


def test_a_damaged_one_does_not_count(clone):
    freshness.take_committed(plan(SMOKE))
    log = at((FINETUNE, ALL)).experiment.paths.log(ALL)
    log.write_text("damaged")
    assert Freshness(SMOKE).status(at((FINETUNE, ALL))) == (STALE, "result changed: log")


def test_what_a_new_variant_needs_is_computed_and_nothing_else(clone):
    """The abstracts and the base are made again; the recorded variants are not trained again."""
    record = at((FINETUNE, QKV)).record_file
    for file in (clone / "experiments/smoke").rglob(f"*{QKV}*"):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    assert freshness.take_committed(plan(SMOKE)) and not record.exists()
    with pytest.raises(
        UserError, match=r"needs 01_data_curation, of which not all files .* --anew"
    ):
        runner.run(at((FINETUNE, QKV)))
    needed = freshness.needed_again([at((FINETUNE, QKV))])
    assert {*jobs(needed)} == {(CURATION, None), (BASE_MODEL, None), (SNAPSHOT, None)}
    assert engine._take_recorded(SMOKE, [*SMOKE.models], dry_run=False)
    ran = run_all(SMOKE)
    assert ran == in_order(
        *jobs(needed), *((stage, QKV) for stage in (FINETUNE, PERPLEXITY, COMPLETIONS)), *GATHERED
    )
    assert not_fresh(SMOKE) == []
    assert freshness.is_recorded(at((FINETUNE, ALL)).record)


def test_one_is_computed_anew_on_demand(clone):
    freshness.take_committed(plan(SMOKE))
    of = at((SNAPSHOT, None))
    assert runner.run(of) == runner.UP_TO_DATE
    assert runner.run(of, anew=True) == runner.DONE
    assert not freshness.is_recorded(of.record)
    assert not records.differences(of.record["outputs"], records.states(of.writes))


def test_other_experiments_and_acceptance_leave_them_alone(clone, monkeypatch):
    freshness.take_committed(plan(SMOKE))
    of = at((PERPLEXITY, "base"))
    own = of.record_file
    own.rename(own.with_name("another.json"))
    assert Freshness(SMOKE).donor(of) is None
    own.with_name("another.json").rename(own)
    monkeypatch.setattr(code, "of_notebook", lambda name: {"code cells": "other"})
    with pytest.raises(UserError, match="no result is stale because of its code alone"):
        runner.accept([of], "no number moved")


def test_a_list_says_what_is_committed(clone):
    assert Freshness(SMOKE).status(at((FINETUNE, ALL))) == (MISSING, "committed, not taken yet")
    shutil.rmtree(clone / "experiments")
    assert Freshness(SMOKE).status(at((FINETUNE, ALL))) == (MISSING, "not run")
