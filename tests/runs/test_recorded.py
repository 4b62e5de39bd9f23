"""Results that are committed with their experiment, of fakes."""

import json
import shutil
import sys
from pathlib import Path

import fakes
import pandas as pd
import pytest
from click.testing import CliRunner
from smoke_results import ALL, GATHERED, QKV, SMOKE, at, in_order, jobs, not_fresh, run_all, smoke

from feyntune import cli
from feyntune.analysis.report import claims
from feyntune.errors import UserError
from feyntune.experiment import load
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
    REPORT,
    SNAPSHOT,
    Run,
    plan,
    run,
)

# What is committed without some of its columns.
REDUCED = {"data/s1/test": ["title", "abstract"], "completions": ["prompt", "truth"]}
COMPUTED = [each for each in plan(SMOKE) if not each.stage.gathers]


def with_frames(of: Run, *_) -> None:
    """Fakes, and a frame for what is committed without some of its columns."""
    fakes.fake(of)
    for role, columns in REDUCED.items():
        if role in of.writes:
            frame = {"id": [str(of)], **{name: ["their words"] for name in columns}}
            pd.DataFrame(frame).to_parquet(of.writes[role])
    if "curation" in of.writes:
        of.writes["curation"].write_text(json.dumps({"lines": 2, "datasets": {"s1": "of 2"}}))


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
    assert Freshness(SMOKE).taken(COMPUTED) == (len(COMPUTED), [], [])
    assert freshness.take_committed(plan(SMOKE)) == []


def test_results_that_are_here_are_never_replaced(output, commit):
    (output / "experiments" / "smoke").mkdir(parents=True)
    commit(COMPUTED)
    assert freshness.take_committed(plan(SMOKE)) == []
    # Without its record a result is still somebody's.
    at((PERPLEXITY, "base")).record_file.unlink()
    assert freshness.take_committed(plan(SMOKE)) == []


def test_a_training_that_began_here_goes_on(clone):
    checkpoints = SMOKE.paths.checkpoints(ALL)
    (checkpoints / "checkpoint-3").mkdir(parents=True)
    taken = jobs(freshness.take_committed(plan(SMOKE)))
    assert (FINETUNE, ALL) not in taken and (FINETUNE, QKV) in taken


def test_they_stay_when_code_changes_and_it_is_named(clone, monkeypatch):
    freshness.take_committed(plan(SMOKE))
    monkeypatch.setattr(code, "of_notebook", lambda name: {"code cells": "other"})
    look = Freshness(SMOKE)
    assert look.status(at((FINETUNE, ALL))) == (FRESH, "committed, not computed here")
    [line] = look.taken(COMPUTED).lines(SMOKE)
    assert line.startswith(f"{len(COMPUTED)} results are those committed in experiments/smoke/. ")
    assert "Changed since they were made: 01_data_curation's cells" in line
    assert line.endswith(" more modules.")


def test_with_other_settings_they_do_not_count(clone):
    other = smoke(training__weight_decay=0.5)
    taken = freshness.take_committed(plan(other))
    assert (FINETUNE, ALL) not in jobs(taken) and (PERPLEXITY, "base") in jobs(taken)
    state, why = Freshness(other).status(at((FINETUNE, ALL), other))
    assert state == MISSING and why.startswith("committed otherwise: settings changed: training.")
    freshness.take_committed(plan(SMOKE))
    state, why = Freshness(other).status(at((FINETUNE, ALL), other))
    assert state == STALE and "training.weight_decay" in why


def test_with_other_data_nothing_that_was_trained_on_them_counts(clone):
    freshness.take_committed(plan(SMOKE))
    look = Freshness(smoke(data__train_share=0.6))
    assert look.status(at((CURATION, None), look.experiment))[0] == STALE
    assert look.status(at((FINETUNE, ALL), look.experiment)) == (STALE, "01_data_curation is stale")


def test_with_another_source_they_do_not_count(clone, monkeypatch):
    freshness.take_committed(plan(SMOKE))
    monkeypatch.setattr(freshness, "outside", lambda *_: {"base": {"sha256": "other"}})
    assert Freshness(SMOKE).status(at((FINETUNE, ALL)))[0] == STALE


def test_an_abstract_that_was_revised_is_named_and_one_that_is_gone_counts(clone):
    """Both are data of another hash; only the second changes what curation counts."""
    freshness.take_committed(plan(SMOKE))
    for of in (SNAPSHOT, CURATION, BASE_MODEL):
        runner.run(at((of, None)), anew=True)
    assert Freshness(SMOKE).taken(COMPUTED)[1:] == ([], [])
    curation = at((CURATION, None))
    SMOKE.paths.split("s1", "train").write_text("revised")
    recorded_anew(curation)
    look = Freshness(SMOKE)
    assert look.fresh(at((FINETUNE, ALL)))
    assert look.taken(COMPUTED).inputs == ["data/s1/train"]
    more = {"lines": 2, "datasets": {"s1": "of 2", "s11": "a recipe that was added"}}
    SMOKE.paths.curation.write_text(json.dumps(more))
    recorded_anew(curation)
    assert Freshness(SMOKE).fresh(at((FINETUNE, ALL)))
    SMOKE.paths.curation.write_text(json.dumps({**more, "lines": 1}))
    recorded_anew(curation)
    assert Freshness(SMOKE).status(at((FINETUNE, ALL))) == (STALE, "input changed: data/s1/train")


def recorded_anew(of: Run) -> None:
    """As if the run had written what lies there."""
    records.write(of.record_file, {**of.record, "outputs": records.states(of.writes)})


def test_scores_do_not_stand_beside_another_adapter(clone):
    freshness.take_committed(plan(SMOKE))
    for of in (SNAPSHOT, CURATION, BASE_MODEL):
        runner.run(at((of, None)), anew=True)
    assert runner.run(at((FINETUNE, ALL)), anew=True) == runner.DONE
    assert Freshness(SMOKE).fresh(at((PERPLEXITY, ALL))), "the same bytes"
    (SMOKE.paths.adapter(ALL) / "one.bin").write_text("another adapter")
    recorded_anew(at((FINETUNE, ALL)))
    why = Freshness(SMOKE).status(at((PERPLEXITY, ALL)))
    assert why == (STALE, "input changed: adapter/one.bin")


def test_what_was_damaged_or_renewed_is_taken_again(clone):
    freshness.take_committed(plan(SMOKE))
    SMOKE.paths.log(ALL).write_text("written by hand")
    assert Freshness(SMOKE).status(at((FINETUNE, ALL))) == (STALE, "result changed: log")
    assert jobs(freshness.take_committed(plan(SMOKE))) == [(FINETUNE, ALL)]
    [aside] = SMOKE.paths.set_aside.rglob("log*")
    assert aside.read_text() == "written by hand"
    file = freshness.committed(at((FINETUNE, QKV)), at((FINETUNE, QKV)).record_file)
    records.write(file, {**records.read(file), "seconds": 1.0})
    why = "what was committed is not any more"
    assert Freshness(SMOKE).status(at((FINETUNE, QKV))) == (MISSING, why)
    assert jobs(freshness.take_committed(plan(SMOKE))) == [(FINETUNE, QKV)]
    shutil.rmtree(clone / "experiments")
    assert Freshness(SMOKE).status(at((SNAPSHOT, None))) == (MISSING, why)


def test_a_committed_file_that_is_damaged_is_named_before_anything_is_copied(clone):
    of = at((COMPLETIONS, "base"))
    file = freshness.committed(of, SMOKE.paths.similarity("base"))
    file.write_text(file.read_text() + "\r\n")
    with pytest.raises(UserError, match=r"similarity/base\.json is not as it was committed"):
        freshness.take_committed([of])
    assert not SMOKE.paths.completions("base").exists()


def test_what_a_new_variant_needs_is_computed_and_nothing_else(clone, monkeypatch):
    """The abstracts and the base are made again; the committed variants are not trained again."""
    record = at((FINETUNE, QKV)).record_file
    for file in (clone / "experiments/smoke").rglob(f"*{QKV}*"):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    assert freshness.take_committed(plan(SMOKE)) and not record.exists()
    with pytest.raises(
        UserError, match=r"needs 01_data_curation, of which not all files .* --anew"
    ):
        runner.run(at((FINETUNE, QKV)))
    wanted = in_order(
        *((stage, None) for stage in (SNAPSHOT, CURATION, BASE_MODEL)),
        *((stage, QKV) for stage in (FINETUNE, PERPLEXITY, COMPLETIONS)),
        *GATHERED,
    )
    todo = engine._todo(SMOKE, [*SMOKE.models])
    assert jobs(todo) == wanted
    assert todo[at((CURATION, None))] == "its files are needed, not committed"
    ran = []

    def run_jobs(experiment, todo, *_):
        """As the engine's jobs do, through the command."""
        records.write(experiment.paths.jobs, {"again": engine.again(experiment, todo)})
        monkeypatch.setenv("FEYNTUNE_JOBS", str(experiment.paths.jobs))
        for each in todo:
            answer = CliRunner().invoke(cli.main, ["run", str(each), "--experiment", "smoke"])
            assert answer.exit_code == 0, answer.output
            ran.append((each, answer.stderr))
        return 0

    monkeypatch.setattr(engine, "_snakemake", run_jobs)
    monkeypatch.setattr(engine, "_fetch", lambda *_: None)
    answer = CliRunner().invoke(cli.main, ["reproduce", "--experiment", "smoke"])
    assert answer.exit_code == 0, answer.output
    assert jobs(each for each, _ in ran) == wanted
    assert all(": done (" in said for _, said in ran)
    assert not_fresh(SMOKE) == []
    assert freshness.is_recorded(at((FINETUNE, ALL)).record)


def test_nothing_is_fetched_where_nothing_is_computed(clone, monkeypatch):
    def refused(*_):
        raise AssertionError("fetched")

    monkeypatch.setattr(engine, "_fetch", refused)
    arguments = ["reproduce", "--experiment", "smoke", "--dry-run"]
    answer = CliRunner().invoke(cli.main, arguments)
    assert answer.exit_code == 0, answer.output
    assert f"{len(COMPUTED)} results are those committed" in answer.output
    assert "3 stages to run." in answer.output


def test_what_only_turns_out_to_be_stale_runs_in_another_round(clone, monkeypatch):
    """The adapter that is trained again for other completions is not the committed one."""
    rounds = []

    def run_jobs(experiment, todo, *_):
        rounds.append(jobs(todo))
        again = engine.again(experiment, todo)
        for each in todo:
            runner.run(each, anew=str(each) in again)
            if each.stage.name == FINETUNE:
                (SMOKE.paths.adapter(each.subject) / "one.bin").write_text("on this processor")
                recorded_anew(each)
        return 0

    other = smoke(completions__max_new_tokens=5)
    monkeypatch.setattr(engine, "_snakemake", run_jobs)
    monkeypatch.setattr(engine, "_fetch", lambda *_: None)
    freshness.take_committed(plan(SMOKE))
    assert engine._run_all(other, [*other.models], None, "local", []) == 0
    assert {*rounds[0]} == {(SNAPSHOT, None), (CURATION, None)}
    assert (COMPLETIONS, ALL) in rounds[1] and (PERPLEXITY, ALL) not in rounds[1]
    assert rounds[2] == in_order((PERPLEXITY, ALL), (PERPLEXITY, QKV), *GATHERED)
    assert len(rounds) == 3 and not_fresh(other) == []


def test_values_of_a_run_of_ours_are_not_said_to_be_reproduced(clone):
    freshness.take_committed(plan(SMOKE))
    why = claims._why_not_reproduced(SMOKE)
    assert why == "these are the committed results; nothing was computed here"
    runner.run(at((SNAPSHOT, None)), anew=True)
    assert claims._why_not_reproduced(SMOKE) is None


def test_the_report_is_drawn_again_when_code_changed_since(clone, monkeypatch):
    freshness.take_committed(plan(SMOKE))
    run_all(SMOKE)
    assert not_fresh(SMOKE) == []
    monkeypatch.setattr(code, "of_module", lambda name: {name: "other"})
    assert not_fresh(SMOKE) == [(REPORT, None)]


def test_one_is_computed_anew_on_demand(clone):
    freshness.take_committed(plan(SMOKE))
    of = at((SNAPSHOT, None))
    assert runner.run(of) == runner.UP_TO_DATE
    assert runner.run(of, anew=True) == runner.DONE
    assert not freshness.is_recorded(of.record)
    assert not records.differences(of.record["outputs"], records.states(of.writes))


def test_only_an_interrupted_training_goes_on_when_it_is_computed_anew(output, monkeypatch):
    of, kept = at((FINETUNE, ALL)), SMOKE.paths.checkpoints(ALL)
    went_on = []

    def execute(of: Run, *_) -> None:
        went_on.append(kept.exists())
        fakes.fake(of)

    monkeypatch.setattr(notebooks, "execute", execute)
    (kept / "checkpoint-3").mkdir(parents=True)
    runner.run(of, anew=True)
    aside = SMOKE.paths.set_aside / str(of) / kept.name
    assert [each.name for each in aside.iterdir()] == ["checkpoint-3"]
    (kept / "checkpoint-1").mkdir(parents=True)
    of.record_file.unlink()
    runner.run(of, anew=True)
    assert went_on == [False, True]


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


def test_settings_do_not_depend_on_what_is_fetched_yet(output):
    """Otherwise a clone, into which nothing was fetched, would have other settings."""
    small = load.load("small")
    of = [run(small, stage, m) for stage in (PERPLEXITY, COMPLETIONS) for m in small.models]
    before = [each.settings for each in of]
    small.paths.fetched("embedder").mkdir(parents=True)
    assert [each.settings for each in of] == before
    assert "embedder" not in before[-1]["completions"], "its files count, not its name"
