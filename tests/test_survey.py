"""What makes a result stale, and what does not.

Results are small fakes, written and recorded by the real runner: only the notebooks and the two
makers of stand-ins are replaced.
"""

import json
import os
import shutil
from pathlib import Path

import fakes
import pytest

from feyntune.errors import UserError
from feyntune.experiment import load
from feyntune.pipeline import notebooks, runner
from feyntune.runs import code, stages
from feyntune.runs import records as provenance
from feyntune.runs.freshness import FRESH, MISSING, STALE, Survey
from feyntune.runs.stages import (
    ADOPTED,
    BASE_MODEL,
    COMMERCIAL,
    COMPLETIONS,
    CURATION,
    FIGURES,
    FINETUNE,
    HUMAN,
    PERPLEXITY,
    RELEASED,
    REPORT,
    SNAPSHOT,
    STAGES,
    plan,
)

ALL, QKV = "s1-LoRA-all", "s1-LoRA-QKV"
ADAPTED = [(stage, v) for stage in (FINETUNE, PERPLEXITY, COMPLETIONS) for v in (ALL, QKV)]
MEASURED = [(stage, m) for stage in (PERPLEXITY, COMPLETIONS) for m in ("base", ALL, QKV)]
ASKED = [(COMMERCIAL, None)]
DRAWN = [(FIGURES, None), (REPORT, None)]
GATHERED = [(HUMAN, None), *DRAWN]


# --- fake results, real records ---------------------------------------------------------------


@pytest.fixture(scope="module")
def faked():
    """The real runner, in which every stage writes fakes."""
    environment = dict(os.environ)
    with pytest.MonkeyPatch.context() as patch:
        fakes.install(patch)
        yield patch
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture(scope="module")
def complete(faked, tmp_path_factory) -> Path:
    """The output folder of a complete run of smoke."""
    folder = tmp_path_factory.mktemp("complete")
    faked.setenv("FEYNTUNE_OUTPUT", str(folder))
    run_all(SMOKE)
    return folder


@pytest.fixture
def output(complete, tmp_path, monkeypatch) -> Path:
    """A copy of the complete run for one test, with the times of its files."""
    folder = tmp_path / "output"
    shutil.copytree(complete, folder)
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(folder))
    return folder


def smoke(**overrides):
    """The experiment smoke, changed: ``perplexity__tokens_per_batch=64``."""
    return load.load("smoke", {k.replace("__", "."): v for k, v in overrides.items()})


SMOKE = smoke()
PLAN = plan(SMOKE)


def run_all(settings) -> list[tuple[str, str | None]]:
    """Run every stage in order; return those that had something to do."""
    return [job for job in plan(settings) if runner.run(settings, *job, threads=1)]


def not_fresh(settings) -> list[tuple[str, str | None]]:
    survey = Survey(settings)
    return [job for job in plan(settings) if not survey.fresh(*job)]


def in_order(*jobs):
    return [job for job in PLAN if job in jobs]


# --- the usual ways ---------------------------------------------------------------------------


def test_nothing_there_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path))
    settings = SMOKE
    survey = Survey(settings)
    assert {survey.state(*job) for job in plan(settings)} == {(MISSING, "not run")}


def test_a_complete_run_is_fresh_and_is_not_run_again(output):
    settings = SMOKE
    survey = Survey(settings)
    assert {survey.state(*job) for job in plan(settings)} == {(FRESH, "")}
    assert run_all(settings) == []


def test_records_name_no_path_of_this_machine(output, complete):
    records = [*output.rglob("runs/*.json"), *output.rglob("run.json")]
    assert len(records) == len(PLAN) == 15
    for record in records:
        text = record.read_text()
        assert str(complete) not in text
        assert str(output) not in text
        assert "results/smoke/" in text


def test_a_record_says_what_made_the_result(output):
    settings = SMOKE
    record = provenance.read(settings.paths.record(FINETUNE, ALL))
    assert (record["stage"], record["subject"], record["seed"]) == (FINETUNE, ALL, 42)
    assert record["stand_in"] == "stand-in corpus and model"
    outputs = {f"results/smoke/finetune/{ALL}/{n}" for n in ("adapter/one.bin", "log.parquet")}
    assert outputs <= set(record["outputs"])
    assert set(record["inputs"]) == {
        "results/smoke/data/s1/train.parquet",
        "results/smoke/data/s1/validation.parquet",
        "results/smoke/base/one.bin",
        "results/smoke/base/deep/two.bin",
    }
    expected = provenance.sha256(output / "results/smoke/data/s1/train.parquet")
    assert record["inputs"]["results/smoke/data/s1/train.parquet"]["sha256"] == expected


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
        ("commercial.limits.usd", 5.0, DRAWN),
        ("completions.temperature", 0.5, [j for j in MEASURED if j[0] == COMPLETIONS]),
        ("training.learning_rate", 1e-4, ADAPTED),
        ("training.lora.r", 4, ADAPTED),
        ("seed", 7, ADAPTED),
        ("base.quantization", None, ADAPTED),
        # One flavour's targets are no matter of the other.
        (
            "training.lora.targets",
            {
                "LoRA-all": SMOKE.training.lora.targets["LoRA-all"],
                "LoRA-QKV": ["q_proj"],
            },
            [job for job in ADAPTED if job[1] == QKV],
        ),
        ("base.stand_in.layers", 3, [(BASE_MODEL, None), *ADAPTED, *MEASURED, *ASKED]),
        ("data.split_seed", 7, AFTER_SNAPSHOT),
        ("data.sample_seed", 7, AFTER_SNAPSHOT),
        ("data.excluded_ids", [], AFTER_SNAPSHOT),
        ("data.stand_in.records", 7, EVERYTHING),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_setting_makes_stale_what_depends_on_it(output, setting, value, stale):
    settings = smoke(**{setting: value})
    if stale is EVERYTHING:
        expected = plan(settings)
    elif stale is AFTER_SNAPSHOT:
        expected = plan(settings)[1:]
    else:
        # New results make stale what gathers them; the words of a title do not.
        expected = stale if stale in (DRAWN, GATHERED) else in_order(*stale, *GATHERED)
    assert not_fresh(settings) == expected


def test_overrides_of_one_variant_make_only_it_stale(output):
    settings = smoke(overrides={ALL: {"learning_rate": 1e-3}})
    mine = [(FINETUNE, ALL), (PERPLEXITY, ALL), (COMPLETIONS, ALL)]
    assert not_fresh(settings) == in_order(*mine, *GATHERED)
    survey = Survey(settings)
    assert survey.state(FINETUNE, ALL) == (STALE, "settings changed")
    assert survey.state(PERPLEXITY, ALL) == (STALE, f"02_finetune-{ALL} is stale")
    assert run_all(settings)[:1] == [(FINETUNE, ALL)]
    assert not_fresh(settings) == []


def test_overrides_that_change_nothing_make_nothing_stale(output):
    settings = smoke(overrides={ALL: {"epochs": SMOKE.training.epochs}})
    assert not_fresh(settings) == DRAWN, "the table of settings may name it"


def test_a_result_of_another_configuration_is_never_fresh(output):
    one, other = SMOKE, smoke(perplexity__tokens_per_batch=64)
    job = (PERPLEXITY, "base")
    assert Survey(other).state(*job) == (STALE, "settings changed")
    assert runner.run(other, *job, threads=1) is True
    assert Survey(other).fresh(*job)
    assert Survey(one).state(*job) == (STALE, "settings changed")


def test_fewer_variants_leave_the_others_results_alone(output):
    settings = smoke(variants=[ALL])
    assert not_fresh(settings) == GATHERED
    assert not_fresh(SMOKE) == []


# --- files ------------------------------------------------------------------------------------


def rewrite(file: Path, content: str) -> None:
    """Change a file and, as a slow person would, its time."""
    stat = file.stat()
    file.write_text(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))


@pytest.mark.parametrize(
    ("file", "job", "after"),
    [
        ("data/s1/test.parquet", (CURATION, None), PLAN[2:]),
        ("data/curation.json", (CURATION, None), PLAN[2:]),
        ("base/deep/two.bin", (BASE_MODEL, None), [*ADAPTED, *MEASURED, *ASKED]),
        (
            f"finetune/{ALL}/adapter/one.bin",
            (FINETUNE, ALL),
            [(PERPLEXITY, ALL), (COMPLETIONS, ALL)],
        ),
        (f"finetune/{ALL}/log.parquet", (FINETUNE, ALL), [(PERPLEXITY, ALL), (COMPLETIONS, ALL)]),
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
    assert Survey(settings).state(*job) == (STALE, f"result changed: results/smoke/{file}")
    assert not_fresh(settings) == in_order(job, *after, *GATHERED)
    # Made again it is as before, and so is all that was made of it.
    assert runner.run(settings, *job, threads=1) is True
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
    found = Survey(SMOKE).state(BASE_MODEL, None)
    assert found == (STALE, "result changed: results/smoke/base/pytorch_model.bin")


def test_a_file_manager_may_look_at_results(output):
    for folder in ("results/smoke/base", f"results/smoke/finetune/{ALL}/adapter", "figures/smoke"):
        (output / folder / ".DS_Store").write_text("seen")
    assert not_fresh(SMOKE) == []


def test_results_without_a_record_are_not_trusted(output):
    settings = SMOKE
    settings.paths.record(CURATION, None).unlink()
    survey = Survey(settings)
    assert survey.state(CURATION, None) == (MISSING, "not run")
    assert survey.state(PERPLEXITY, "base") == (STALE, "01_data_curation is missing")


@pytest.mark.parametrize("content", ["", '{"key": "', "[]"])
def test_a_broken_record_is_none(output, content):
    settings = SMOKE
    settings.paths.record(PERPLEXITY, "base").write_text(content)
    assert Survey(settings).state(PERPLEXITY, "base") == (MISSING, "not run")


def test_a_record_without_results_is_stale(output):
    settings = SMOKE
    shutil.rmtree(settings.paths.adapter(ALL))
    settings.paths.log(ALL).unlink()
    state, why = Survey(settings).state(FINETUNE, ALL)
    assert state == STALE
    assert why.startswith("result changed: ")


def test_a_users_snapshot_counts_by_its_contents(output, tmp_path):
    file = tmp_path / "mine" / "arxiv.json"
    file.parent.mkdir()
    file.write_text("one\n")
    settings = smoke(data__snapshot=str(file))
    job = (CURATION, None)
    assert Survey(settings).state(*job)[0] == STALE, "made from the stand-in"
    assert runner.run(settings, *job, threads=1) is True

    os.utime(file, ns=(1, 1))
    assert Survey(settings).fresh(*job), "touched"
    moved = tmp_path / "arxiv.json"
    shutil.move(file, moved)
    settings = smoke(data__snapshot=str(moved))
    assert Survey(settings).fresh(*job), "moved"
    rewrite(moved, "two\n")
    assert Survey(settings).state(*job) == (STALE, "input changed: arxiv.json")
    moved.unlink()
    assert Survey(settings).state(*job) == (STALE, "input changed: arxiv.json")


# --- the runner -------------------------------------------------------------------------------


def refusal(*arguments) -> str:
    with pytest.raises(UserError) as caught:
        runner.run(*arguments, threads=1)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_stage_whose_inputs_are_not_there_says_what_to_run(output):
    settings = SMOKE
    settings.paths.log(ALL).unlink()
    message = refusal(settings, PERPLEXITY, ALL)
    assert f"03_perplexity-{ALL} needs 02_finetune-{ALL}, which is stale" in message
    assert f"Run feyntune run 02_finetune --experiment smoke --variant {ALL} first" in message
    settings.paths.record(CURATION, None).unlink()
    message = refusal(settings, COMPLETIONS, "base")
    assert "needs 01_data_curation, which is missing (not run)" in message
    assert "Run feyntune run 01_data_curation --experiment smoke first" in message


def test_figures_are_drawn_from_what_is_there_but_not_from_nothing(output, tmp_path, monkeypatch):
    settings = SMOKE
    settings.paths.record(PERPLEXITY, QKV).unlink()
    assert Survey(settings).state(*DRAWN[0])[0] == STALE
    assert [runner.run(settings, *job, threads=1) for job in DRAWN] == [True, True]
    assert not_fresh(settings) == [(PERPLEXITY, QKV), (HUMAN, None)]
    settings.paths.record(*DRAWN[0]).touch()
    assert [runner.run(settings, *job, threads=1) for job in DRAWN] == [False, False]
    # The result that was missing makes them stale again.
    runner.run(settings, PERPLEXITY, QKV, threads=1)
    assert not_fresh(settings) == GATHERED

    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path / "empty"))
    assert "Run feyntune run 01_data_curation" in refusal(settings, *DRAWN[0])
    assert "Run feyntune run 07_figures_and_tables" in refusal(settings, *DRAWN[1])


def test_the_report_is_made_from_figures_and_claims(output, tmp_path, monkeypatch):
    (output / "tables/smoke/one.bin").write_text("changed by hand")
    assert not_fresh(SMOKE) == DRAWN, "what nothing vouches for is in no report"
    assert [runner.run(SMOKE, *job, threads=1) for job in DRAWN] == [True, True]
    place = tmp_path / "smoke.expected.yaml"
    place.write_text("snapshot: null\nclaims: []\n")
    monkeypatch.setattr(stages, "expectations", lambda name: place)
    assert not_fresh(SMOKE) == DRAWN[1:], "other claims"


def test_a_stage_that_fails_is_vouched_for_by_nothing(output, faked, monkeypatch):
    settings = smoke(perplexity__tokens_per_batch=64)
    job = (PERPLEXITY, "base")
    assert settings.paths.stamp(*job).is_file()

    def fail(*_):
        raise UserError("out of paper")

    monkeypatch.setattr(notebooks, "execute", fail)
    assert refusal(settings, *job) == "out of paper"
    assert not settings.paths.record(*job).exists()
    assert not settings.paths.stamp(*job).exists()
    # Also not for the settings of the result that was there before.
    assert Survey(SMOKE).state(*job) == (MISSING, "not run")
    assert Survey(SMOKE).fresh(PERPLEXITY, ALL), "the others are as they were"


def test_a_stage_that_writes_nothing_is_an_error(output, monkeypatch):
    settings = SMOKE
    settings.paths.log(ALL).unlink()
    monkeypatch.setattr(notebooks, "execute", lambda *_: None)
    assert refusal(settings, FINETUNE, ALL).endswith("ended without writing log.parquet.")
    assert not settings.paths.record(FINETUNE, ALL).exists()


def test_a_stamp_bears_the_key_of_its_record(output):
    settings = SMOKE
    key = provenance.read(settings.paths.record(FINETUNE, ALL))["key"]
    assert settings.paths.stamp(FINETUNE, ALL).read_text() == key + "\n"


# --- the plan ---------------------------------------------------------------------------------


def test_plan_is_complete_and_in_order():
    expected = [
        (SNAPSHOT, None),
        (CURATION, None),
        (BASE_MODEL, None),
        (FINETUNE, ALL),
        (FINETUNE, QKV),
        *[(PERPLEXITY, m) for m in ("base", ALL, QKV)],
        *[(COMPLETIONS, m) for m in ("base", ALL, QKV)],
        (COMMERCIAL, None),
        (HUMAN, None),
        (FIGURES, None),
        (REPORT, None),
    ]
    assert plan(SMOKE) == expected
    assert len(plan(load.load("demo"))) == 3 + 20 + 21 + 21 + 2 + 2


@pytest.mark.parametrize("name", load.names())
def test_every_stage_comes_after_what_it_needs(name):
    settings = load.load(name)
    jobs = plan(settings)
    for at, (stage, subject) in enumerate(jobs):
        assert set(STAGES[stage].needs(settings, subject)) <= set(jobs[:at])


def test_plan_leaves_out_stand_ins_that_are_not_needed():
    given = smoke(data__snapshot="arxiv.json")
    assert plan(given) == [job for job in PLAN if job != (SNAPSHOT, None)]
    given = smoke(base__model="meta-llama/Llama-3.1-8B")
    assert plan(given) == [job for job in PLAN if job != (BASE_MODEL, None)]
    given = smoke(data__snapshot="arxiv.json", base__model="meta-llama/Llama-3.1-8B")
    assert plan(given)[0] == (CURATION, None)
    needed = {job for stage, subject in plan(given) for job in STAGES[stage].needs(given, subject)}
    assert needed <= set(plan(given)), "and nothing asks for them"


def test_plan_of_some_models():
    jobs = plan(SMOKE, ["base", ALL])
    assert {subject for _, subject in jobs} == {None, "base", ALL}
    assert jobs == [job for job in PLAN if job[1] != QKV]


# --- the code ---------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A copy of package and notebooks, of which `code` takes the hashes."""
    for folder in ("feyntune", "notebooks"):
        ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        shutil.copytree(code.PACKAGE.parent / folder, tmp_path / folder, ignore=ignored)
    monkeypatch.setattr(code, "PACKAGE", tmp_path / "feyntune")
    monkeypatch.setattr(code, "NOTEBOOKS", tmp_path / "notebooks")
    yield tmp_path
    forget()


def forget() -> None:
    code.of_notebook.cache_clear()
    code.of_module.cache_clear()


def hashes() -> dict[str, str]:
    """The code of every stage, looked at anew."""
    forget()
    return {
        name: code.of_module(stage.maker) if stage.maker else code.of_notebook(name)
        for name, stage in STAGES.items()
    }


@pytest.fixture(scope="module")
def original() -> dict[str, str]:
    return hashes()


@pytest.fixture
def changed(original, checkout):
    """The stages whose code in the copy differs from the original's."""

    def look() -> set[str]:
        after = hashes()
        return {name for name in STAGES if after[name] != original[name]}

    return look


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def edit_cell(notebook: Path, kind: str, change) -> None:
    """Change the source of a notebook's first cell of a kind."""
    content = json.loads(notebook.read_text())
    cell = next(c for c in content["cells"] if c["cell_type"] == kind)
    cell["source"] = change("".join(cell["source"]))
    notebook.write_text(json.dumps(content))


def test_a_copy_has_the_hashes_of_the_original(original, changed):
    assert changed() == set()
    assert len(set(original.values())) == len(STAGES)


def test_rewording_changes_no_code(checkout, changed):
    for notebook in (checkout / "notebooks").glob("*.ipynb"):
        edit_cell(notebook, "markdown", lambda text: text + "\nAnother word.")
        edit_cell(notebook, "code", lambda text: "# A comment.\n" + text + "  # and another")
        content = json.loads(notebook.read_text())
        for cell in content["cells"]:
            cell["id"] = "other-" + cell.get("id", "")
            if cell["cell_type"] == "code":
                cell.update(outputs=[], execution_count=7, metadata={"collapsed": True})
        notebook.write_text(json.dumps(content, indent=4))
    for room in (checkout / "feyntune").rglob("*.py"):
        text = room.read_text()
        room.write_text(text.replace('"""', '"""Reworded. ', 1) + "\n\n\n# The end.\n")
    edit(checkout / "feyntune" / "corpora.py", '"""Build one of the', '"""Make another of the')
    assert changed() == set()


def test_a_code_cell_changes_its_stage_alone(checkout, changed):
    edit_cell(checkout / "notebooks/03_perplexity.ipynb", "code", lambda text: text + "\nx = 1")
    assert changed() == {PERPLEXITY}


def test_released_scores_have_stages_of_their_own():
    published = load.load("published")
    assert plan(published) == [(RELEASED, None), (HUMAN, None), (FIGURES, None), (REPORT, None)]
    assert STAGES[HUMAN].needs(published, None) == [(RELEASED, None)]
    assert STAGES[FIGURES].needs(published, None) == [(RELEASED, None), (HUMAN, None)]
    assert (RELEASED, None) not in plan(SMOKE)


def test_the_paper_makes_no_stand_ins():
    stages = {stage for stage, _ in plan(load.load("paper"))}
    every = {CURATION, FINETUNE, PERPLEXITY, COMPLETIONS, COMMERCIAL, HUMAN, FIGURES, REPORT}
    assert stages == every


def test_a_default_parameter_is_code_too(checkout, changed):
    edit_cell(
        checkout / "notebooks/02_finetune.ipynb",
        "code",
        lambda text: text.replace('"smoke"', '"demo"'),
    )
    assert changed() == {FINETUNE}


@pytest.mark.parametrize(
    ("room", "stale"),
    [
        ("corpora.py", {CURATION}),
        ("selection.py", {CURATION}),
        ("snapshot.py", {CURATION, BASE_MODEL}),
        ("released.py", {RELEASED}),
        ("release.py", {RELEASED, ADOPTED}),
        ("finetuning.py", {FINETUNE}),
        ("figures.py", {FIGURES}),
        ("steps.py", {FIGURES}),
        ("claims.py", {REPORT}),
        ("report.py", {REPORT}),
        ("page.py", {REPORT}),
        ("tables.py", {FIGURES}),
        ("sheets.py", {HUMAN}),
        ("agreement.py", {HUMAN}),
        ("judgement.py", {FIGURES}),
        ("similarity.py", {COMPLETIONS, COMMERCIAL}),
        ("asking.py", {COMMERCIAL}),
        ("demo/grammar.py", {SNAPSHOT}),
        ("demo/language.py", {SNAPSHOT}),
        ("demo/model.py", {BASE_MODEL}),
        # Rooms that only start, order and list the work move no result.
        ("cli.py", set()),
        ("runner.py", set()),
        ("workflow.py", set()),
    ],
)
def test_a_room_changes_the_stages_that_reach_it(checkout, changed, room, stale):
    file = checkout / "feyntune" / room
    file.write_text(file.read_text() + "\n\nADDED = 1\n")
    assert changed() == stale


def test_a_room_reached_through_another_counts(checkout, changed):
    """Notebook 01 does not name `errors`; rooms that it imports do."""
    cells = json.loads((checkout / "notebooks/01_data_curation.ipynb").read_text())["cells"]
    source = "".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    assert "feyntune.errors" not in source
    file = checkout / "feyntune" / "errors.py"
    file.write_text(file.read_text() + "\n\nADDED = 1\n")
    assert CURATION in changed()


def test_every_way_to_import_is_followed(checkout):
    package = checkout / "feyntune"
    (package / "deep.py").write_text("VALUE = 1\n")
    (package / "between.py").write_text("def late():\n    from feyntune.deep import VALUE\n")
    (package / "alone.py").write_text("VALUE = 1\n")
    ways = [
        "import feyntune.between",
        "from feyntune import between as b",
        "import feyntune.between as c",
    ]
    for way in ways:
        (package / "start.py").write_text(way + "\n")
        forget()
        before = code.of_module("feyntune.start")
        (package / "alone.py").write_text(f"VALUE = {way!r}\n")
        forget()
        assert code.of_module("feyntune.start") == before
        (package / "deep.py").write_text(f"VALUE = {way!r}\n")
        forget()
        assert code.of_module("feyntune.start") != before, way


def test_rooms_that_import_each_other_end(checkout):
    package = checkout / "feyntune"
    (package / "one.py").write_text("import feyntune.two\n")
    (package / "two.py").write_text("import feyntune.one\n")
    forget()
    assert len(code.of_module("feyntune.one")) == 64


def test_changed_code_makes_the_result_stale(output, checkout, changed):
    edit_cell(checkout / "notebooks/04_completions.ipynb", "code", lambda text: text + "\nx = 1")
    assert changed() == {COMPLETIONS}
    settings = SMOKE
    assert Survey(settings).state(COMPLETIONS, "base") == (STALE, "code changed")
    expected = [(COMPLETIONS, m) for m in settings.models]
    assert not_fresh(settings) == in_order(*expected, *GATHERED)
