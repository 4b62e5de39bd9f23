"""What makes a result stale, and what does not.

Results are small fakes, written and recorded by the real runner: only the notebooks and the makers
of stand-ins are replaced.
"""

import os
import shutil

import pytest
from smoke_results import (
    ADAPTED,
    ALL,
    ASKED,
    DRAWN,
    GATHERED,
    MEASURED,
    PLAN,
    QKV,
    SMOKE,
    at,
    fresh,
    in_order,
    jobs,
    not_fresh,
    rewrite,
    run_all,
    smoke,
    status,
)

from feyntune.pipeline import runner
from feyntune.runs import records
from feyntune.runs.freshness import FRESH, MISSING, STALE
from feyntune.runs.stages import (
    BASE_MODEL,
    COMMERCIAL,
    COMPLETIONS,
    CURATION,
    FINETUNE,
    PERPLEXITY,
    plan,
)

# --- the usual ways ---------------------------------------------------------------------------


def test_nothing_there_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path))
    assert {status(SMOKE, *job) for job in PLAN} == {(MISSING, "not run")}


def test_a_complete_run_is_fresh_and_is_not_run_again(output):
    assert {status(SMOKE, *job) for job in PLAN} == {(FRESH, "")}
    assert run_all(SMOKE) == []


def test_records_name_no_path_of_this_machine(output, complete):
    records = [*output.rglob("runs/*.json"), *output.rglob("run.json")]
    assert len(records) == len(PLAN) == 15
    for record in records:
        text = record.read_text()
        assert str(complete) not in text
        assert str(output) not in text
        assert '"places": {' in text


def test_a_record_says_what_made_the_result(output):
    record = at((FINETUNE, ALL)).record
    assert (record["stage"], record["subject"], record["seed"]) == (FINETUNE, ALL, 42)
    assert record["stand_in"] == "stand-in corpus and model"
    assert set(record["outputs"]) == {"adapter/one.bin", "adapter/deep/two.bin", "log"}
    assert record["places"]["adapter"] == f"results/smoke/finetune/{ALL}/adapter"
    assert set(record["inputs"]) == {
        "data/s1/train",
        "data/s1/validation",
        "base/one.bin",
        "base/deep/two.bin",
    }
    expected = records.sha256(output / "results/smoke/data/s1/train.parquet")
    assert record["inputs"]["data/s1/train"]["sha256"] == expected
    assert record["settings"]["training.learning_rate"] == SMOKE.training.learning_rate
    assert record["threads"] == record["counted_threads"] == SMOKE.resources.finetune.cores
    assert {"code cells", "feyntune.training.trainer"} <= set(record["code"])


def test_moving_everything_changes_nothing(output, tmp_path, monkeypatch):
    moved = tmp_path / "elsewhere"
    output.rename(moved)
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(moved))
    assert not_fresh(SMOKE) == []


def test_copying_without_times_changes_nothing(output):
    for file in output.rglob("*"):
        os.utime(file)
    assert not_fresh(SMOKE) == []


# --- settings ---------------------------------------------------------------------------------

EVERYTHING = object()
AFTER_SNAPSHOT = object()


@pytest.mark.parametrize(
    ("setting", "value", "stale"),
    [
        ("title", "Another", DRAWN),
        ("statistics.resamples", 99, GATHERED),
        ("figures.smoothing", 5, DRAWN),
        ("human_evaluation.seed", 5, GATHERED),
        ("perplexity.tokens_per_batch", 64, [j for j in MEASURED if j[0] == PERPLEXITY]),
        ("commercial.instruction", "Write on.", ASKED),
        ("completions.temperature", 0.5, [j for j in MEASURED if j[0] == COMPLETIONS]),
        ("training.learning_rate", 1e-4, ADAPTED),
        ("training.lora.r", 4, ADAPTED),
        ("seed", 7, ADAPTED),
        ("base.quantization", None, ADAPTED),
        ("base.start", "eos", [*ADAPTED, *MEASURED, *ASKED]),
        # One flavour's targets are no matter of the other.
        (
            "flavours.LoRA-QKV.target_modules",
            ["q_proj"],
            [job for job in ADAPTED if job[1] == QKV],
        ),
        ("base.stand_in.layers", 3, [(BASE_MODEL, None), *ADAPTED, *MEASURED, *ASKED]),
        ("data.split_seed", 7, AFTER_SNAPSHOT),
        ("data.sample_seed", 7, AFTER_SNAPSHOT),
        ("data.excluded_ids", [], AFTER_SNAPSHOT),
        ("data.stand_in.records", 7, EVERYTHING),
        ("base.stand_in.threads", 3, [(BASE_MODEL, None), *ADAPTED, *MEASURED, *ASKED]),
        ("resources.finetune.cores", 2, ADAPTED),
        ("resources.perplexity.cores", 2, [j for j in MEASURED if j[0] == PERPLEXITY]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_setting_makes_stale_what_depends_on_it(output, setting, value, stale):
    settings = smoke(**{setting: value})
    if stale is EVERYTHING:
        expected = jobs(plan(settings))
    elif stale is AFTER_SNAPSHOT:
        expected = jobs(plan(settings))[1:]
    else:
        # New results make stale what gathers them; the words of a title do not.
        expected = stale if stale in (DRAWN, GATHERED) else in_order(*stale, *GATHERED)
    assert not_fresh(settings) == expected


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("commercial.limits.usd", 5.0),
        ("commercial.parallel", 7),
        ("commercial.requests_per_minute", 30),
        ("commercial.timeout_seconds", 5.0),
        ("commercial.retries", 1),
        ("training.save_total_limit", 5),
        ("data.bad_lines_allowed", 0.5),
        ("resources.models_per_job", 1),
        ("resources.variants_per_job", 1),
        ("resources.finetune.memory_gb", 99),
        ("resources.data_curation.cores", 5),
    ],
)
def test_a_setting_that_changes_no_result_makes_nothing_stale(output, setting, value):
    assert not_fresh(smoke(**{setting: value})) == []


def test_a_gpus_sums_do_not_depend_on_threads(output):
    settings = smoke(resources__finetune__gpus=1, resources__finetune__cores=8)
    assert at((FINETUNE, ALL), settings).counted_threads is None


def test_training_settings_of_one_variant_make_only_it_stale(output):
    settings = smoke(variants=[{"name": ALL, "training": {"learning_rate": 1e-3}}, QKV])
    mine = [(FINETUNE, ALL), (PERPLEXITY, ALL), (COMPLETIONS, ALL)]
    assert not_fresh(settings) == in_order(*mine, *GATHERED)
    assert status(settings, FINETUNE, ALL) == (
        STALE,
        "settings changed: training.learning_rate: 0.003 -> 0.001",
    )
    assert status(settings, PERPLEXITY, ALL) == (STALE, f"02_finetune-{ALL} is stale")
    assert run_all(settings)[:1] == [(FINETUNE, ALL)]
    assert not_fresh(settings) == []


def test_training_settings_that_change_nothing_make_nothing_stale(output):
    epochs = {"num_train_epochs": SMOKE.training.num_train_epochs}
    assert not_fresh(smoke(variants=[{"name": ALL, "training": epochs}, QKV])) == []


def test_a_variant_of_another_name_takes_the_results_of_its_like(output):
    again = {"name": "again", "dataset": "s1", "flavour": "LoRA-all"}
    settings = smoke(variants=[ALL, QKV, again])
    assert runner.run(at((FINETUNE, "again"), settings)) == runner.TAKEN_OVER
    other = smoke(variants=[ALL, QKV, again | {"seed": 7}])
    assert status(other, FINETUNE, "again") == (STALE, "settings changed: seed: 42 -> 7")


def test_a_result_of_another_configuration_is_never_fresh(output):
    one, other = SMOKE, smoke(perplexity__tokens_per_batch=64)
    job = (PERPLEXITY, "base")
    why = "settings changed: perplexity.tokens_per_batch: 4096 -> 64"
    assert status(other, *job) == (STALE, why)
    assert runner.run(at(job, other)) == runner.DONE
    assert fresh(other, *job)
    why = "settings changed: perplexity.tokens_per_batch: 64 -> 4096"
    assert status(one, *job) == (STALE, why)


def test_fewer_variants_leave_the_others_results_alone(output):
    settings = smoke(variants=[ALL])
    assert not_fresh(settings) == GATHERED
    assert not_fresh(SMOKE) == []


# --- files ------------------------------------------------------------------------------------


EVALUATED = [(PERPLEXITY, ALL), (COMPLETIONS, ALL)]
ROLES = {
    "data/s1/test.parquet": "data/s1/test",
    "data/curation.json": "curation",
    "base/deep/two.bin": "base/deep/two.bin",
    f"finetune/{ALL}/adapter/one.bin": "adapter/one.bin",
    f"finetune/{ALL}/log.parquet": "log",
    "perplexity/base.parquet": "perplexity",
    f"similarity/{QKV}.json": "similarity",
    "commercial/one.bin": "commercial/one.bin",
}


@pytest.mark.parametrize(
    ("file", "job", "after"),
    [
        ("data/s1/test.parquet", (CURATION, None), PLAN[2:]),
        ("data/curation.json", (CURATION, None), PLAN[2:]),
        ("base/deep/two.bin", (BASE_MODEL, None), [*ADAPTED, *MEASURED, *ASKED]),
        (f"finetune/{ALL}/adapter/one.bin", (FINETUNE, ALL), EVALUATED),
        (f"finetune/{ALL}/log.parquet", (FINETUNE, ALL), EVALUATED),
        ("perplexity/base.parquet", (PERPLEXITY, "base"), []),
        (f"similarity/{QKV}.json", (COMPLETIONS, QKV), []),
        ("commercial/one.bin", (COMMERCIAL, None), []),
    ],
)
@pytest.mark.parametrize("change", ["one byte", "gone"])
def test_a_result_that_is_not_as_recorded_is_stale(output, file, job, after, change):
    path = output / "results" / "smoke" / file
    content = path.read_text()
    if change == "gone":
        path.unlink()
    else:
        rewrite(path, content[:-1] + "X")
    settings = SMOKE
    assert status(settings, *job) == (STALE, f"result changed: {ROLES[file]}")
    assert not_fresh(settings) == in_order(job, *after, *GATHERED)
    # Made again it is as before, and so is all that was made of it.
    assert runner.run(at(job, settings)) == runner.DONE
    assert path.read_text() == content
    assert not_fresh(settings) == GATHERED


def test_files_of_ratings_count_by_what_they_hold(output, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "ratings.csv").write_text("scores")
    settings = smoke(human_evaluation__ratings=[str(tmp_path / "one" / "ratings.csv")])
    assert not_fresh(settings) == GATHERED
    run_all(settings)
    moved = smoke(human_evaluation__ratings=[str(tmp_path / "two" / "ratings.csv")])
    assert not_fresh(settings) == not_fresh(moved) == []
    rewrite(tmp_path / "one" / "ratings.csv", "others")
    assert not_fresh(settings) == GATHERED


def test_a_file_that_no_stage_wrote_is_noticed(output):
    (output / "results/smoke/base/pytorch_model.bin").write_text("what is this?")
    found = status(SMOKE, BASE_MODEL, None)
    assert found == (STALE, "result changed: base/pytorch_model.bin")


def test_a_file_manager_may_look_at_results(output):
    for folder in ("results/smoke/base", f"results/smoke/finetune/{ALL}/adapter", "figures/smoke"):
        (output / folder / ".DS_Store").write_text("seen")
    assert not_fresh(SMOKE) == []


def test_results_without_a_record_are_not_trusted(output):
    settings = SMOKE
    at((CURATION, None)).record_file.unlink()
    assert status(settings, CURATION, None) == (MISSING, "not run")
    assert status(settings, PERPLEXITY, "base") == (STALE, "01_data_curation is missing")


@pytest.mark.parametrize("content", ["", '{"key": "', "[]"])
def test_a_broken_record_is_none(output, content):
    settings = SMOKE
    at((PERPLEXITY, "base")).record_file.write_text(content)
    assert status(settings, PERPLEXITY, "base") == (MISSING, "not run")


def test_a_record_without_results_is_stale(output):
    settings = SMOKE
    shutil.rmtree(settings.paths.adapter(ALL))
    settings.paths.log(ALL).unlink()
    state, why = status(settings, FINETUNE, ALL)
    assert state == STALE
    assert why.startswith("result changed: ")


def test_a_users_snapshot_counts_by_its_contents(output, tmp_path):
    file = tmp_path / "mine" / "arxiv.json"
    file.parent.mkdir()
    file.write_text("one\n")
    settings = smoke(data__snapshot=str(file))
    job = (CURATION, None)
    assert status(settings, *job)[0] == STALE, "made from the stand-in"
    assert runner.run(at(job, settings)) == runner.DONE

    os.utime(file, ns=(1, 1))
    assert fresh(settings, *job), "touched"
    moved = tmp_path / "arxiv.json"
    shutil.move(file, moved)
    settings = smoke(data__snapshot=str(moved))
    assert fresh(settings, *job), "moved"
    rewrite(moved, "two\n")
    assert status(settings, *job) == (STALE, "input changed: snapshot")
    moved.unlink()
    assert status(settings, *job) == (STALE, "input changed: snapshot")
