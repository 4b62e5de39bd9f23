"""The command: what a slip gets is one line that helps, and never a traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import fakes
import pytest
import rating_texts
from click.testing import CliRunner
from filelock import FileLock

from feyntune import paths
from feyntune.cli import main
from feyntune.experiment import load, recipes
from feyntune.paths import REPOSITORY
from feyntune.pipeline import engine, runner
from feyntune.runs import stages

SMOKE = load.load("smoke")


@pytest.fixture(autouse=True)
def output(tmp_path, monkeypatch) -> Path:
    """An output folder of the test's own, and the environment as it was afterwards."""
    environment = dict(os.environ)
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path / "output"))
    yield tmp_path / "output"
    os.environ.clear()
    os.environ.update(environment)


def feyntune(*arguments: str):
    return CliRunner().invoke(main, arguments, prog_name="feyntune")


def process(*arguments: str) -> subprocess.CompletedProcess:
    """The command as a shell starts it."""
    return subprocess.run(
        [sys.executable, "-m", "feyntune", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )


def refusal(*arguments: str) -> str:
    """The one line on stderr with which the command refuses."""
    done = feyntune(*arguments)
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("feyntune: ")
    return line.removeprefix("feyntune: ")


# --- slips ------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("run", "01"), ("list",), ("reproduce",)])
def test_unknown_experiment(command):
    message = refusal(*command, "--experiment", "smok")
    assert message.startswith("Unknown experiment 'smok'. Did you mean 'smoke'? Valid: ")
    assert set(message.split("Valid: ")[1].rstrip(".").split(", ")) == set(load.names())


def test_unknown_variant():
    message = refusal("run", "02", "--experiment", "smoke", "--variant", "s1-lora-qkv")
    expected = (
        "Unknown model 's1-lora-qkv' of experiment smoke. Did you mean 's1-LoRA-QKV'? "
        "Valid: base, s1-LoRA-all, s1-LoRA-QKV, "
    )
    assert message.startswith(expected)
    message = refusal("reproduce", "--variants", "s1-LoRA-all,s11-LoRA-all", "--dry-run")
    assert message.startswith("Unknown model 's11-LoRA-all' of experiment demo.")
    assert all(message.count(f" {variant}") == 1 for variant in recipes.VARIANTS)


def test_variants_that_the_experiment_has_not_are_one_trial(monkeypatch):
    asked = []
    monkeypatch.setattr(engine, "reproduce", lambda trial, **o: asked.append((trial, o)))
    given = "s4-LoRA-QKV, s1-LoRA-all,s5-LoRA-all"
    feyntune("reproduce", "--experiment", "smoke", "--variants", given)
    ((trial, options),) = asked
    assert trial.name == "smoke/trials/s4-LoRA-QKV+s5-LoRA-all"
    assert options["models"] == ["base", "s1-LoRA-all", "s4-LoRA-QKV", "s5-LoRA-all"]


def test_a_variant_of_the_paper_that_the_experiment_has_not_is_a_trial(monkeypatch):
    fakes.install(monkeypatch)
    for each in stages.plan(SMOKE)[:3]:
        runner.run(each)
    run = ("run", "02", "--experiment", "smoke", "--variant", "s2-LoRA-all")
    assert feyntune(*run).exit_code == 0
    assert "trials" in str(load.load("smoke/trials/s2-LoRA-all").paths.adapter("s2-LoRA-all"))
    assert not SMOKE.paths.finetune("s2-LoRA-all").exists()


def test_unknown_model():
    message = refusal("run", "perplexity", "--experiment", "smoke", "--model", "bse")
    expected = (
        "Unknown model 'bse' of experiment smoke. Did you mean 'base'? Valid: base, s1-LoRA-all, "
    )
    assert message.startswith(expected)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("03_perplexty", "03_perplexity"),
        ("2_finetune", "02_finetune"),
        ("stand-in", "stand-in-base"),
    ],
)
def test_unknown_stage(given, meant):
    message = refusal("run", given)
    assert f"Unknown stage {given!r}. Did you mean {meant!r}?" in message
    assert message.split("Valid: ")[1] == ", ".join(stages.STAGES) + "."


def test_unknown_command():
    message = refusal("lst")
    commands = "accept, clean, compare, complete, fetch, list, publish, ratings-sheet, reproduce, "
    commands += "run, show, verify"
    assert message == f"Unknown command 'lst'. Did you mean 'list'? Valid: {commands}."


def test_unknown_option():
    message = refusal("list", "--experimnt", "smoke")
    assert message.startswith("Unknown option '--experimnt'. Did you mean '--experiment'? Valid: ")
    assert "--snapshot" in message
    assert "Did you mean '--dry-run'?" in refusal("reproduce", "--dryrun")


def test_unknown_profile():
    message = refusal("reproduce", "--profile", "slrm", "--dry-run", "--experiment", "smoke")
    assert message.startswith("Unknown profile 'slrm'.")
    assert message.endswith(f"Valid: {', '.join(engine.profiles())}.")
    assert "local" in engine.profiles()


@pytest.mark.parametrize("option", [("--jobs", "0"), ("--jobs", "two")])
def test_value_of_an_option_out_of_range(option):
    done = feyntune("reproduce", *option)
    assert done.exit_code == 2
    assert "Invalid value for '--jobs'" in done.stderr


def test_an_experiment_without_its_option():
    """Not handed to Snakemake as the name of a file to make."""
    message = refusal("reproduce", "smoke", "--dry-run")
    assert message.startswith("What is 'smoke'?")
    assert "--experiment" in message


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("run", "03", "--variant", "s1-LoRA-all"),
            "03_perplexity runs per model; --variant does not apply to it.",
        ),
        (
            ("run", "02", "--model", "base"),
            "02_finetune runs per variant; --model does not apply to it.",
        ),
        (
            ("run", "01", "--model", "base"),
            "01_data_curation runs per experiment; --model does not apply to it.",
        ),
        (("run", "02"), "02_finetune runs per variant: say which with --variant."),
        (("run", "04"), "04_completions runs per model: say which with --model."),
        (("run", "02", "03", "--model", "base"), "--variant and --model go with one stage."),
    ],
)
def test_what_a_stage_runs_per(arguments, said):
    assert refusal(*arguments) == said


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("training.learning_rate='many'", "training.learning_rate: input should be a valid number"),
        ("training.learning_rat=1e-2", "(did you mean 'learning_rate'?)"),
        ("learning_rate", "--set wants KEY=VALUE"),
        ("completions.top_k=[1", "--set completions.top_k=[1 is not YAML"),
        ("data.sample_seed=1", "data.sample_seed cannot be set for one run: write experiments/"),
        ("base.model=x", "`extends: smoke` and set it there"),
    ],
)
def test_bad_settings(setting, said):
    options = ("--experiment", "smoke", "--variant", "s1-LoRA-all", "--set", setting)
    assert said in refusal("run", "02", *options)


def test_runs_are_given_by_the_names_that_list_shows():
    message = refusal("run", "stand-in-base", "03_perplexity-bse", "--experiment", "smoke")
    assert message.startswith("Unknown run '03_perplexity-bse'. Did you mean '03_perplexity-base'?")
    message = refusal("run", "02_finetune-s1-LoRA-all", "04", "--experiment", "smoke")
    assert message.startswith("Unknown run '04'.")


def test_as_a_process_too():
    """Nothing but the line, through the real entry point."""
    done = process("run", "07", "--experiment", "dem")
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("feyntune: Unknown experiment 'dem'. Did you mean 'demo'?")


# --- results that are not there ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        (("01",), "stand-in-snapshot"),
        (("02", "--variant", "s1-LoRA-all"), "01_data_curation"),
        (("03", "--model", "base"), "01_data_curation"),
        (("04", "--model", "s1-LoRA-QKV"), "01_data_curation"),
        (("stand-in-base",), "01_data_curation"),
        (("07",), "01_data_curation"),
    ],
)
def test_a_stage_without_its_inputs_says_what_to_run_first(arguments, needed, output):
    message = refusal("run", *arguments, "--experiment", "smoke")
    assert f"needs {needed}, which is missing (not run)" in message
    assert f"Run feyntune run {needed} --experiment smoke first, or ./run_all.sh" in message
    assert not list(output.rglob("*.ipynb")), "nothing was started"


def test_list_of_nothing(output):
    done = feyntune("list", "--experiment", "smoke")
    assert done.exit_code == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == ["missing"] * 15 + ["15"]
    assert done.stdout.endswith("15 runs: 15 missing.\n")
    assert lines[0] == ["missing", "stand-in-snapshot", "not", "run"]
    assert lines[-2][1] == "08_reproduction_report"
    assert not output.exists(), "looking makes nothing"


def test_list_tells_fresh_from_stale_and_why(monkeypatch):
    fakes.install(monkeypatch)
    for each in stages.plan(SMOKE)[:4]:
        runner.run(each)
    SMOKE.paths.log("s1-LoRA-all").write_text("changed")
    lines = feyntune("list", "--experiment", "smoke").stdout.splitlines()
    assert [line.split()[0] for line in lines] == [
        *["fresh"] * 3, "stale", *["missing"] * 11, "15",
    ]  # fmt: skip
    assert lines[3].endswith("result changed: log")
    assert lines[-1] == "15 runs: 3 fresh, 1 stale, 11 missing."


# --- snapshots --------------------------------------------------------------------------------


def test_snapshot_missing(tmp_path):
    place = str(tmp_path / "none.json")
    message = refusal("reproduce", "--experiment", "smoke", "--snapshot", place)
    assert message == f"The snapshot {place} does not exist; give a file of JSON lines."


def test_snapshot_is_a_folder(tmp_path):
    message = refusal("reproduce", "--experiment", "smoke", "--snapshot", str(tmp_path))
    assert message == f"The snapshot {tmp_path} is a folder; give a file of JSON lines."


def test_a_snapshot_takes_the_place_of_the_stand_in(tmp_path):
    done = feyntune("list", "--experiment", "smoke", "--snapshot", str(tmp_path / "a.json"))
    assert "stand-in-snapshot" not in done.stdout
    assert "01_data_curation" in done.stdout


@pytest.mark.parametrize("name", ["a.json", "a #1.json", "b: c.json", "Données [2024].json", "~"])
def test_any_name_of_a_snapshot_reaches_the_processes_started(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert feyntune("list", "--experiment", "smoke", "--snapshot", name).exit_code == 0
    made = {load.load(each).snapshot for each in load.names() if each.startswith("smoke-")}
    assert made == {tmp_path / name}


def test_a_bad_snapshot_is_refused_in_one_line_and_its_notebook_kept(tmp_path, output):
    """Through papermill and a kernel, as in a run of the workflow."""
    csv = tmp_path / "arxiv.csv"
    csv.write_text("id,title\n1,A title\n")
    done = process("run", "01", "--experiment", "smoke", "--snapshot", str(csv))
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert line.startswith("feyntune: 01_data_curation failed in cell ")
    assert "2 of 2 lines cannot be used (line 1: not JSON" in line
    assert (output / "results/smoke-arxiv/notebooks/01_data_curation.ipynb").is_file()
    assert stages.run(load.load("smoke-arxiv"), stages.CURATION).record is None
    assert not list(output.rglob("*.parquet"))


# --- the whole --------------------------------------------------------------------------------


def test_dry_run_says_what_would_run_and_runs_nothing(output):
    done = process("reproduce", "--dry-run", "--experiment", "smoke")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "15 stages to run."
    would = [line.split() for line in lines[:-1]]
    assert [line[:2] for line in would] == [["would", "run"]] * 15
    assert [line[2] for line in would] == list(map(str, stages.plan(SMOKE)))
    assert [" ".join(line[3:]) for line in would] == ["not run"] * 15
    made = [path for path in output.rglob("*") if path.is_file() and ".snakemake" not in path.parts]
    assert made == [SMOKE.paths.lock]


def test_dry_run_of_some_variants():
    done = process("reproduce", "--dry-run", "--experiment", "smoke", "--variants", "s1-LoRA-all")
    assert done.returncode == 0, done.stderr
    assert "12 stages to run" in done.stdout
    assert "LoRA-QKV" not in done.stdout


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_two_runs_at_once_are_refused(options):
    SMOKE.paths.lock.parent.mkdir(parents=True)
    with FileLock(SMOKE.paths.lock):
        message = refusal("reproduce", "--experiment", "smoke", *options)
    assert message.startswith("Another run of smoke is at work: ")


def test_nothing_to_do_starts_nothing(monkeypatch):
    fakes.install(monkeypatch)
    for each in stages.plan(SMOKE):
        runner.run(each)
    monkeypatch.setattr(engine, "_snakemake", lambda *_: pytest.fail("started"))
    done = feyntune("reproduce", "--experiment", "smoke")
    assert done.exit_code == 0, done.output
    assert "nothing to do, every result is up to date" in done.stdout
    assert "did not end" not in done.stdout


def test_run_of_a_fresh_stage_does_nothing(monkeypatch):
    fakes.install(monkeypatch)
    first = feyntune("run", "stand-in-snapshot", "--experiment", "smoke")
    assert (first.exit_code, first.stderr) == (0, "stand-in-snapshot: done (0 s)\n")
    again = feyntune("run", "stand-in-snapshot", "--experiment", "smoke")
    assert (again.exit_code, again.stderr) == (0, "stand-in-snapshot: up to date (0 s)\n")


@pytest.mark.parametrize("stage", ["03", "perplexity", "03_perplexity"])
def test_three_names_of_a_stage(monkeypatch, stage):
    fakes.install(monkeypatch)
    for each in stages.plan(SMOKE)[:3]:
        runner.run(each)
    done = feyntune("run", stage, "--experiment", "smoke", "--model", "base")
    assert (done.exit_code, done.stderr) == (0, "03_perplexity-base: done (0 s)\n")
    assert SMOKE.paths.perplexity("base").is_file()


def test_several_gpus_for_one_variant_are_refused_before_anything_runs(monkeypatch):
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("started"))
    gpus = ("--set", "resources.finetune.gpus=4")
    message = refusal("reproduce", "--experiment", "smoke", *gpus)
    assert "resources.finetune.gpus" in message and "less than or equal to 1" in message


def test_an_adapter_that_was_not_made_so_is_not_published(monkeypatch):
    fakes.install(monkeypatch)
    for each in stages.plan(SMOKE)[:5]:
        runner.run(each)
    options = ("--experiment", "smoke", "--to", "me", "--variant", "s1-LoRA-all")
    # What an interrupted training anew leaves: the old adapter without a record.
    stages.run(SMOKE, stages.FINETUNE, "s1-LoRA-all").record_file.unlink()
    assert "02_finetune-s1-LoRA-all is missing (not run)" in refusal("publish", *options)


def test_a_mistake_in_the_claims_is_said_before_anything_runs(monkeypatch, tmp_path):
    place = tmp_path / "smoke.expected.yaml"
    claim = {"claim": "c", "source": "s", "certainty": "stated", "table": "perplexities"}
    claim |= {"column": "mean", "expected": 1}
    place.write_text(json.dumps({"snapshot": None, "claims": [claim]}))
    monkeypatch.setattr(paths, "expectations", lambda name: place)
    monkeypatch.setattr(engine, "_snakemake", lambda *_: pytest.fail("started"))
    message = refusal("reproduce", "--experiment", "smoke")
    assert message.startswith("experiments/smoke.expected.yaml: Unknown table 'perplexities'.")


def test_figures_only(monkeypatch):
    message = refusal("reproduce", "--figures-only", "--experiment", "smoke")
    assert "06_human_evaluation needs 01_data_curation, which is missing" in message

    fakes.install(monkeypatch)
    for each in stages.plan(SMOKE)[:2]:
        runner.run(each)
    done = feyntune("reproduce", "--figures-only", "--experiment", "smoke")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("Drawn from the results there are.")
    assert SMOKE.paths.figures.is_dir()
    assert not SMOKE.paths.finetune("s1-LoRA-all").exists(), "and nothing else was run"
    done = feyntune("reproduce", "--figures-only", "--experiment", "smoke")
    assert done.stdout.startswith("Figures and report are up to date.")


def test_figures_only_dry_run(output):
    done = feyntune("reproduce", "--figures-only", "--dry-run", "--experiment", "smoke")
    assert (done.exit_code, done.stdout) == (
        0,
        "Would run 06_human_evaluation, 07_figures_and_tables, 08_reproduction_report.\n",
    )
    assert not [path for path in output.rglob("*") if path.is_file()]


def completed(monkeypatch):
    """Results of completions and of a commercial model that are fresh, though invented."""
    texts = rating_texts.completions(["base", "s1-LoRA-all"])
    answers = rating_texts.completions(["Claude"])["Claude"].assign(status="answered")
    found = SimpleNamespace(completions=texts, commercial={"Claude": answers})
    monkeypatch.setattr("feyntune.analysis.results.load", lambda *_: found)


def test_rating_sheets(monkeypatch, output):
    completed(monkeypatch)
    command = ("ratings-sheet", "--experiment", "smoke", "--raters", "CP, VN", "--own", "0")
    done = feyntune(*command, "--paper", "0806.1218")
    assert done.exit_code == 0, done.output
    folder = SMOKE.paths.rating_sheets
    assert f"{folder / 'key.csv'} (whose each completion is: no rater may see it)" in done.stdout
    assert {path.name for path in (folder / "sheets").iterdir()} == {
        "CP.csv", "CP.html", "VN.csv", "VN.html",
    }  # fmt: skip
    key = (folder / "key.csv").read_text(encoding="utf-8-sig").splitlines()
    assert len(key) == 1 + 2 * 3 and all("0806.1218" in line for line in key[1:])
    assert sum("Claude" in line for line in key) == 2
    assert "write these to another folder" in refusal(*command)
    assert feyntune(*command, "--output", str(output / "other")).exit_code == 0
    assert (output / "other" / "key.csv").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--raters", "CP,cp"), "cp is named more than once"),
        (("--raters", "C P"), "pattern"),
        (("--systems", "s2-LoRA-all"), "no completions of s2-LoRA-all"),
        (("--own", "50"), "152 papers are to be drawn"),
        (("--shared", "0", "--own", "0"), "nothing to rate"),
        (("--paper", "1111.11111"), "1111.11111 is not an abstract"),
        (("--own", "-1"), "-1 is not in the range"),
    ],
)
def test_rating_sheets_that_cannot_be_made(monkeypatch, options, message):
    completed(monkeypatch)
    assert message in refusal("ratings-sheet", "--experiment", "smoke", *options)
    assert not SMOKE.paths.rating_sheets.exists()


def test_rating_sheets_of_nothing():
    assert "There are no data of experiment smoke" in refusal(
        "ratings-sheet", "--experiment", "smoke"
    )


def test_help_lists_the_commands():
    done = feyntune("-h")
    assert done.exit_code == 0
    assert all(command in done.stdout for command in ("run", "list", "reproduce"))


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["reproduce", "--dry-run"]])
def test_starting_imports_no_torch(arguments, output):
    """Importing it takes seconds, which a command that only looks does not pay."""
    code = (
        "import sys; from feyntune.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print('slow:', {'torch', 'transformers', 'papermill'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "slow: set()", done.stdout + done.stderr


# --- accepting and removing -------------------------------------------------------------------


def test_accept_says_what_was_recomputed_and_how_many_were_accepted(monkeypatch):
    run = stages.run(SMOKE, stages.FINETUNE, "s1-LoRA-all")
    monkeypatch.setattr(runner, "accept", lambda runs, why: (run, runs))
    done = feyntune("accept", "02", "--experiment", "smoke", "--why", "renamed a variable")
    assert done.stdout == f"{run}: computed again, the same bytes. Results accepted: 2.\n"
    assert "--why" in refusal("accept", "02", "--experiment", "smoke")
    assert "Unknown stage" in refusal("accept", "02x", "--why", "because")


def test_clean_shows_sizes_asks_and_removes_only_what_was_set_aside(output):
    assert feyntune("clean").stdout == "Nothing to remove.\n"
    aside = SMOKE.paths.set_aside / "run" / "log"
    checkpoint = SMOKE.paths.checkpoints("s1-LoRA-all") / "set-aside" / "key" / "optimizer.pt"
    kept = SMOKE.paths.checkpoints("s1-LoRA-all") / "checkpoint-2" / "optimizer.pt"
    trial = SMOKE.paths.results / "trials" / "hot" / "perplexity.parquet"
    for file in (aside, checkpoint, kept, trial):
        file.parent.mkdir(parents=True)
        file.write_bytes(bytes(1_500_000))
    no = CliRunner().invoke(main, ["clean"], input="n\n")
    assert "Remove 3 of 4.5 MB? [y/N]" in no.stdout and "1.5 MB" in no.stdout
    assert all(file.exists() for file in (aside, checkpoint, kept, trial))
    assert feyntune("clean", "--trials", "--yes").exit_code == 0
    assert not trial.exists() and aside.exists() and checkpoint.exists()
    assert feyntune("clean", "--set-aside", "--yes").exit_code == 0
    assert not aside.exists() and not checkpoint.exists() and kept.exists()
