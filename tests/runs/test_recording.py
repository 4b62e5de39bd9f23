"""Recording runs: by the runner, by hand, by taking results over, by accepting a change of code."""

import ast
import csv
import json
import os
import shutil
from types import SimpleNamespace

import fakes
import pytest
from smoke_results import (
    ALL,
    DRAWN,
    GATHERED,
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

from feyntune.errors import UserError
from feyntune.experiment import load
from feyntune.experiment.files import read_yaml, remove
from feyntune.pipeline import leftovers, notebooks, runner
from feyntune.runs import code, recording, records, stages
from feyntune.runs.freshness import MISSING, STALE, Freshness, training_key
from feyntune.runs.stages import (
    BASE_MODEL,
    COMMERCIAL,
    COMPLETIONS,
    CURATION,
    FIGURES,
    FINETUNE,
    HUMAN,
    PERPLEXITY,
    REPORT,
    SNAPSHOT,
    STAGES,
    plan,
)


def refusal(of) -> str:
    with pytest.raises(UserError) as caught:
        runner.run(of)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- the runner -------------------------------------------------------------------------------


def test_a_stage_whose_inputs_are_not_there_says_what_to_run(output):
    SMOKE.paths.log(ALL).unlink()
    message = refusal(at((PERPLEXITY, ALL), smoke(perplexity__tokens_per_batch=64)))
    assert f"03_perplexity-{ALL} needs 02_finetune-{ALL}, which is stale" in message
    assert f"Run feyntune run 02_finetune --experiment smoke --variant {ALL} first" in message
    at((CURATION, None)).record_file.unlink()
    message = refusal(at((COMPLETIONS, "base")))
    assert "needs 01_data_curation, which is missing (not run)" in message
    assert "Run feyntune run 01_data_curation --experiment smoke first" in message


def test_figures_are_drawn_from_what_is_there_but_not_from_nothing(output, tmp_path, monkeypatch):
    at((PERPLEXITY, QKV)).record_file.unlink()
    assert status(SMOKE, *DRAWN[0])[0] == STALE
    assert [runner.run(at(job)) for job in DRAWN] == [runner.DONE, runner.DONE]
    assert not_fresh(SMOKE) == [(PERPLEXITY, QKV), (HUMAN, None)]
    at(DRAWN[0]).record_file.touch()
    assert [runner.run(at(job)) for job in DRAWN] == [runner.UP_TO_DATE, runner.UP_TO_DATE]
    # The result that was missing makes them stale again.
    runner.run(at((PERPLEXITY, QKV)))
    assert not_fresh(SMOKE) == GATHERED

    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path / "empty"))
    assert "Run feyntune run 01_data_curation" in refusal(at(DRAWN[0]))
    assert "Run feyntune run 07_figures_and_tables" in refusal(at(DRAWN[1]))


def test_the_report_is_made_from_figures_and_claims(output, tmp_path, monkeypatch):
    (output / "tables/smoke/one.bin").write_text("changed by hand")
    assert not_fresh(SMOKE) == DRAWN, "what no record has is in no report"
    assert [runner.run(at(job)) for job in DRAWN] == [runner.DONE, runner.DONE]
    place = tmp_path / "smoke.expected.yaml"
    place.write_text("snapshot: null\nclaims: []\n")
    monkeypatch.setattr(stages, "expectations", lambda name: place)
    assert not_fresh(SMOKE) == DRAWN[1:], "other claims"


@pytest.mark.parametrize("table", ["CAPTIONS", "STYLE"])
def test_captions_and_the_style_make_figures_and_report_stale_alone(
    output, tmp_path, monkeypatch, table
):
    place = tmp_path / "table"
    shutil.copy(getattr(stages, table), place)
    monkeypatch.setattr(stages, table, place)
    assert not_fresh(SMOKE) == []
    rewrite(place, place.read_text() + "# another word\n")
    assert not_fresh(SMOKE) == DRAWN


def test_the_grammar_makes_the_snapshot_stale(output, tmp_path, monkeypatch):
    place = tmp_path / "grammar.yaml"
    shutil.copy(stages.GRAMMAR, place)
    monkeypatch.setattr(stages, "GRAMMAR", place)
    assert not_fresh(SMOKE) == []
    rewrite(place, place.read_text() + "\n")
    assert not_fresh(SMOKE)[0] == (SNAPSHOT, None)


def test_a_recipe_makes_curation_stale_and_no_base(output, monkeypatch):
    settings = smoke(recipes__s4__parts=[{"source": "hep-th"}])
    assert status(settings, CURATION)[0] == STALE
    assert status(settings, CURATION)[1].startswith("settings changed: recipes.s4.")
    assert runner.run(at((CURATION, None), settings)) == runner.DONE
    # The fakes' files depend on the settings; the real ones are the same but for s4.
    base = Freshness(settings).parts(at((BASE_MODEL, None), settings))
    assert not any("recipes" in name for name in base["settings"])
    assert set(base["inputs"]) == {"snapshot", "sampled"}


def test_released_names_are_a_setting_of_what_reads_released_files():
    for name in ("published", "released"):
        experiment = load.load(name)
        stage = plan(experiment)[0]
        assert stage.settings["names"]["s1-LoRA-QKV"] == "s1-L-3.1-8B-qkv_v2"


def test_a_stage_that_fails_keeps_what_was_there(output, monkeypatch):
    settings = smoke(perplexity__tokens_per_batch=64)
    job = (PERPLEXITY, "base")

    def fail(*_):
        raise UserError("out of paper")

    monkeypatch.setattr(notebooks, "execute", fail)
    assert refusal(at(job, settings)) == "out of paper"
    assert status(settings, *job)[0] == STALE, "not recorded under the new settings"
    assert fresh(SMOKE, *job), "nothing was rewritten: it is still the old settings' result"


def test_a_stage_that_fails_half_way_has_no_fresh_result(output, monkeypatch):
    job = (COMPLETIONS, "base")
    settings = smoke(completions__temperature=0.5)

    def half(of, *_):
        rewrite(of.writes["completions"], "half")
        raise UserError("out of paper")

    monkeypatch.setattr(notebooks, "execute", half)
    refusal(at(job, settings))
    assert not fresh(settings, *job)
    assert status(SMOKE, *job) == (STALE, "result changed: completions")


def test_a_stage_that_writes_nothing_is_an_error(output, monkeypatch):
    SMOKE.paths.log(ALL).unlink()
    monkeypatch.setattr(notebooks, "execute", lambda *_: None)
    assert refusal(at((FINETUNE, ALL))).endswith("ended without writing adapter, log.parquet.")


def test_the_experiment_as_it_was_resolved_lies_with_a_run(output):
    settings = smoke(perplexity__tokens_per_batch=64)
    job = at((PERPLEXITY, "base"), settings)
    assert runner.run(job) == runner.DONE
    found = read_yaml(job.record_file.with_suffix(".yaml"))
    assert found["perplexity"] == settings.perplexity.model_dump() and found["name"] == "smoke"
    assert found["variants"][ALL]["training"]["learning_rate"] == 3e-3, "which demo sets"


def test_what_may_be_a_secret_lies_nowhere(output):
    secret = "http://127.0.0.1:9/hunter2"
    others = {"perplexity.tokens_per_batch": 64, "commercial.providers.stand-in.base_url": secret}
    job = at((PERPLEXITY, "base"), load.with_settings("smoke", others))
    assert runner.run(job) == runner.DONE
    resolved = job.record_file.with_suffix(".yaml").read_text()
    assert "base_url: " in resolved and "hunter2" not in resolved


def test_outputs_that_were_not_rewritten_are_never_recorded(output, monkeypatch):
    """As when the kernel imported another checkout: its results went elsewhere."""
    settings = smoke(perplexity__tokens_per_batch=64)
    job = (PERPLEXITY, "base")
    monkeypatch.setattr(notebooks, "execute", lambda *_: None)
    assert refusal(at(job, settings)).endswith("ended without writing base.parquet.")
    assert status(settings, *job)[0] != "fresh"
    assert fresh(SMOKE, *job), "what was there is still the old settings' result"


def test_figures_of_some_models_never_stand_in_place_of_those_of_all(output):
    whole = SMOKE.paths.figures
    before = {file: file.stat().st_mtime_ns for file in whole.rglob("*")}
    # As after `--variants`: one of the models has no result of today.
    rewrite(SMOKE.paths.perplexity(QKV), "another day's")
    assert runner.run(at((FIGURES, None))) == runner.DONE
    assert SMOKE.paths.figures == SMOKE.paths.results / "partial" / "figures"
    assert list(SMOKE.paths.tables.iterdir()) and fresh(SMOKE, FIGURES)
    assert {file: file.stat().st_mtime_ns for file in whole.rglob("*")} == before
    assert (SMOKE.paths.lacking).read_text().count(QKV) == 1
    run_all(SMOKE)
    assert SMOKE.paths.figures == whole and fresh(SMOKE, FIGURES)
    assert not SMOKE.paths.partial.exists()


def test_a_leftover_among_new_outputs_is_set_aside(output):
    old = SMOKE.paths.figures / "fig-of-another-day.pdf"
    old.write_text("old")
    assert runner.run(at((FIGURES, None))) == runner.DONE
    assert not old.exists()
    aside = SMOKE.paths.set_aside / FIGURES / "figures" / old.name
    assert aside.read_text() == "old"
    assert fresh(SMOKE, FIGURES)


def test_recorded_answers_are_kept_and_recorded(output):
    answers = SMOKE.paths.answers("stand-in")
    answers.parent.mkdir(parents=True, exist_ok=True)
    answers.write_text("{}\n")
    assert runner.run(at((COMMERCIAL, None))) == runner.DONE
    assert "commercial/answers/stand-in.jsonl" in at((COMMERCIAL, None)).record["outputs"]


def test_the_others_go_on_when_one_fails_or_its_kernel_is_killed(output, monkeypatch):
    settings = smoke(training__learning_rate=1e-4)
    kernels = []

    def execute(of, kernel):
        kernels.append(kernel)
        if of.subject == ALL:
            raise notebooks.KernelDied(f"{of}: its process was killed")
        fakes.fake(of)

    monkeypatch.setattr(notebooks, "execute", execute)
    ended = []
    with pytest.raises(UserError, match="its process was killed"):
        for each, what in runner.run_together(stages.every(settings, FINETUNE)):
            ended.append((each.subject, what))
    assert ended == [(QKV, runner.DONE)]
    assert kernels[0] is kernels[1] and not kernels[0].started()


def test_what_needs_a_failed_run_is_left_out_and_not_said_again(output, monkeypatch):
    def execute(of, kernel):
        if of.subject == ALL and of.stage.name == FINETUNE:
            raise UserError(f"{of} failed")
        fakes.fake(of)

    monkeypatch.setattr(notebooks, "execute", execute)
    settings, ended = smoke(training__learning_rate=1e-4), []
    with pytest.raises(UserError) as raised:
        for each, _ in runner.run_together(stages.every(settings, FINETUNE, PERPLEXITY)):
            ended.append(str(each))
    assert str(raised.value) == f"02_finetune-{ALL} failed"
    assert ended == [f"02_finetune-{QKV}", "03_perplexity-base", f"03_perplexity-{QKV}"]


def test_a_kernel_is_shared_by_what_may_use_the_same(output, monkeypatch):
    class Manager:
        has_kernel = False

    kernels = []

    def execute(of, kernel):
        kernels.append(kernel.manager())
        fakes.fake(of)

    monkeypatch.setattr(notebooks, "_manager", lambda folder: Manager())
    monkeypatch.setattr(notebooks, "execute", execute)
    settings = smoke(training__learning_rate=1e-4, resources__perplexity__cores=2)
    runs = stages.every(settings, FINETUNE, PERPLEXITY)
    assert len([*runner.run_together(runs)]) == 5
    first, second = {*kernels[:2]}, {*kernels[2:]}
    assert len(first) == len(second) == 1 and first != second


# --- checkpoints ------------------------------------------------------------------------------


def test_a_checkpoint_has_the_parts_that_it_was_trained_with(output, monkeypatch):
    before = training_key(SMOKE, ALL)
    assert set(before) == {"settings", "data", "base", "code"}
    assert training_key(smoke(training__save_total_limit=5), ALL) == before
    assert training_key(smoke(perplexity__tokens_per_batch=64), ALL) == before
    other = training_key(smoke(training__weight_decay=0.5), ALL)
    assert {part for part in before if before[part] != other[part]} == {"settings"}
    rewrite(output / "results/smoke/base/one.bin", "another base")
    other = training_key(SMOKE, ALL)
    assert {part for part in before if before[part] != other[part]} == {"base"}


# --- taking results over ----------------------------------------------------------------------


@pytest.fixture
def mine(output, tmp_path, monkeypatch):
    """Another experiment that extends smoke and lies next to it."""
    folder = tmp_path / "experiments"
    shutil.copytree(load.EXPERIMENTS, folder)
    monkeypatch.setattr(load, "EXPERIMENTS", folder)

    def experiment(text: str):
        (folder / "mine.yaml").write_text(f"extends: smoke\n{text}")
        return load.load("mine")

    return experiment


def test_results_with_the_same_key_are_taken_over(mine, output):
    settings = mine("training: {learning_rate: 1.0e-2}\n")
    taken, made = [], []
    for each in plan(settings):
        what = runner.run(each)
        (taken if what == runner.TAKEN_OVER else made).append((each.stage.name, each.subject))
    assert taken == [
        (SNAPSHOT, None),
        (CURATION, None),
        (BASE_MODEL, None),
        (PERPLEXITY, "base"),
        (COMPLETIONS, "base"),
        (COMMERCIAL, None),
    ]
    assert {stage for stage, _ in made} == {
        FINETUNE, PERPLEXITY, COMPLETIONS, HUMAN, FIGURES, REPORT,
    }  # fmt: skip
    record = at((BASE_MODEL, None), settings).record
    assert record["taken_from"] == {"experiment": "smoke", "subject": None}
    assert record["places"] == {"base": "results/mine/base"}
    # The donor may go.
    shutil.rmtree(output / "results" / "smoke")
    assert not_fresh(settings) == []


def test_a_donor_whose_files_changed_gives_nothing(mine, output):
    settings = mine("title: Mine\n")
    rewrite(output / "results/smoke/snapshot/likelihood.parquet", "damaged")
    assert runner.run(at((SNAPSHOT, None), settings)) == runner.DONE


def test_taking_over_costs_the_donor_nothing(mine, output):
    settings = mine("title: Mine\n")
    for each in plan(settings)[:3]:
        assert runner.run(each) == runner.TAKEN_OVER
    rewrite(output / "results/mine/base/one.bin", "mine alone")
    assert not_fresh(SMOKE) == []


# --- by hand ----------------------------------------------------------------------------------


@pytest.fixture
def by_hand(output, monkeypatch):
    """A notebook's kernel in which every saved cell has run."""
    import IPython

    monkeypatch.delenv(records.FACTS_VARIABLE, raising=False)
    cells = {name: code.code_cells(code.NOTEBOOKS / f"{name}.ipynb") for name in (PERPLEXITY,)}
    history = SimpleNamespace(input_hist_raw=["", *cells[PERPLEXITY]])
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(history_manager=history))
    monkeypatch.setattr(recording, "_use_threads", lambda number: None)
    return history


def test_a_notebook_run_by_hand_writes_the_same_record(by_hand, output):
    job = (PERPLEXITY, "base")
    before = at(job).record
    remove(at(job).record_file)
    assert status(SMOKE, *job) == (MISSING, "not run")
    run = recording.begin(SMOKE, *job)
    fakes.fake(at(job))
    run.finish(tokens=3)
    after = at(job).record
    times = {"started", "seconds", "peak_memory_bytes", "facts", "outputs"}
    assert {k: v for k, v in after.items() if k not in times} == {
        k: v for k, v in before.items() if k not in times
    }
    assert records.hashes(after["outputs"]) == records.hashes(before["outputs"])
    assert after["facts"] == {"tokens": 3}
    assert fresh(SMOKE, *job)


def test_by_hand_too_the_users_settings_are_set_aside(by_hand, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("WORLD_SIZE", "2")
    recording.begin(SMOKE, PERPLEXITY, ALL)
    assert not {"ACCELERATE_MIXED_PRECISION", "WORLD_SIZE"} & set(os.environ)


def test_cells_that_are_not_as_saved_are_not_recorded(by_hand, output, capsys):
    job = (PERPLEXITY, "base")
    remove(at(job).record_file)
    by_hand.input_hist_raw[3] += "\nscores = scores / 2"
    run = recording.begin(SMOKE, *job)
    fakes.fake(at(job))
    run.finish(tokens=3)
    assert "Not recorded: 1 cells" in capsys.readouterr().out
    assert not fresh(SMOKE, *job)


def test_by_hand_too_inputs_must_be_fresh(by_hand, output):
    SMOKE.paths.log(ALL).unlink()
    with pytest.raises(UserError, match="needs 02_finetune-s1-LoRA-all, which is stale") as caught:
        recording.begin(SMOKE, PERPLEXITY, ALL)
    assert "./run_all.sh --experiment smoke for all" in str(caught.value)
    assert caught.value._render_traceback_() == [f"UserError: {caught.value}"], "in a notebook"


def test_a_fresh_result_is_shown_by_hand_and_says_how_to_compute_it_anew(by_hand, output):
    of = at((PERPLEXITY, "base"))
    run = recording.begin(SMOKE, PERPLEXITY, "base")
    assert run.fresh
    assert "remove results/smoke/runs/03_perplexity-base.json" in run.as_recorded
    of.record_file.unlink()
    assert not recording.begin(SMOKE, PERPLEXITY, "base").fresh


def test_the_runners_notebooks_leave_the_record_to_it(output, tmp_path, monkeypatch):
    monkeypatch.setenv(records.FACTS_VARIABLE, str(tmp_path / "facts.json"))
    run = recording.begin(SMOKE, PERPLEXITY, "base")
    assert not run.fresh, "whether to run is the runner's choice"
    run.finish(tokens=3)
    assert json.loads((tmp_path / "facts.json").read_text())["tokens"] == 3


def test_every_notebook_begins_and_finishes_its_own_stage():
    for stage in STAGES.values():
        if stage.maker is None:
            cells = "\n".join(code.code_cells(code.NOTEBOOKS / f"{stage.name}.ipynb"))
            name = next(k for k, v in vars(stages).items() if v == stage.name)
            subject = "" if stage.per == "experiment" else f", {stage.per}"
            assert f"run = recording.begin(settings, stages.{name}{subject})" in cells
            assert cells.count(code.FINISH) == 1


def test_notebooks_that_compute_for_long_neither_compute_nor_write_what_is_fresh():
    for stage in (FINETUNE, PERPLEXITY, COMPLETIONS):
        cells = code.code_cells(code.NOTEBOOKS / f"{stage}.ipynb")
        (last,) = (cell for cell in cells if code.FINISH in cell)
        (guard,) = (
            node for node in ast.parse(last).body if "run.finish" in ast.unparse(node)
        )  # fmt: skip
        assert isinstance(guard, ast.If) and ast.unparse(guard.test) == "not run.fresh"
        assert last.count("writing(") == ast.unparse(guard).count("writing(") > 0
        assert any("if run.fresh:\n    print(run.as_recorded)" in cell for cell in cells)


# --- accepting a change of code ---------------------------------------------------------------


@pytest.fixture
def edited(monkeypatch):
    """Another hash of the code of a stage."""
    genuine = code.of_notebook

    def edit(name: str) -> None:
        def of_notebook(asked: str) -> dict[str, str]:
            found = genuine(asked)
            return {**found, code.CELLS: "edited"} if asked == name else found

        monkeypatch.setattr(code, "of_notebook", of_notebook)

    return edit


def test_a_change_of_code_that_changes_nothing_is_accepted(output, edited):
    edited(FINETUNE)
    assert not_fresh(SMOKE)[:2] == [(FINETUNE, ALL), (FINETUNE, QKV)]
    root = os.environ["FEYNTUNE_OUTPUT"]
    sample, accepted = runner.accept(stages.every(SMOKE, FINETUNE), "renamed a variable")
    assert os.environ["FEYNTUNE_OUTPUT"] == root
    assert jobs(accepted) == [(FINETUNE, ALL), (FINETUNE, QKV)]
    assert sample in accepted
    assert not_fresh(SMOKE) == in_order(*GATHERED), "the report lists it"
    entry = at((FINETUNE, QKV)).record["accepted"][-1]
    assert (entry["why"], entry["recomputed"]) == ("renamed a variable", str(sample))


def test_a_change_of_code_that_changes_a_result_is_not(output, edited, monkeypatch):
    edited(FINETUNE)

    def other(of, *_):
        fakes.fake(of)
        rewrite(of.writes["log"], "other numbers")

    monkeypatch.setattr(notebooks, "execute", other)
    with pytest.raises(UserError, match="differs in log: the change of code changed results"):
        runner.accept(stages.every(SMOKE, FINETUNE), "renamed a variable")
    assert not_fresh(SMOKE)[0] == (FINETUNE, ALL)


def test_there_must_be_something_to_accept(output, edited):
    with pytest.raises(UserError, match="no result is stale because of its code alone"):
        runner.accept(stages.every(SMOKE, FINETUNE), "why not")
    edited(FINETUNE)
    other = smoke(training__learning_rate=1e-4)
    with pytest.raises(UserError, match="no result is stale because of its code alone"):
        runner.accept(stages.every(other, FINETUNE), "settings differ, too")
    with pytest.raises(UserError, match="takes seconds"):
        runner.accept(stages.every(SMOKE, FIGURES), "why not")
    with pytest.raises(UserError, match="records answers with their times"):
        runner.accept(stages.every(SMOKE, COMMERCIAL), "why not")


def test_a_complete_run_again_is_the_same_plan(output):
    assert run_all(SMOKE) == []
    assert len(PLAN) == 15


# --- the table of trials ----------------------------------------------------------------------


def trial_rows(experiment) -> list[dict]:
    with (experiment.paths.trials / "index.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_model_of_a_trial_has_a_row_until_it_is_removed(output):
    smoke = load.load("smoke")
    hot = load.load("smoke", {"training.learning_rate": 0.01}, trial="hot")
    before = {path: path.read_bytes() for path in smoke.paths.results.rglob("*.json")}
    for stage in (FINETUNE, PERPLEXITY, COMPLETIONS):
        assert runner.run(at((stage, ALL), hot)) == runner.DONE
    (row,) = trial_rows(smoke)
    assert (row["trial"], row["model"]) == ("hot", ALL)
    assert row["overrides"] == '{"training.learning_rate": 0.01}' and row["date"]
    assert {path: path.read_bytes() for path in before} == before, "nothing of smoke is touched"
    leftovers.remove_all(leftovers.find(trials=True, set_aside=False))
    assert not (smoke.paths.trials / "index.csv").exists()
