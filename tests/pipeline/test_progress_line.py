"""What the workflow shows while it runs: the logger plugin, given what jobs write in their logs."""

import io
import json
import sys

import pytest
from rich.console import Console

from feyntune.experiment import load
from feyntune.paths import WORKFLOW
from feyntune.pipeline import engine
from feyntune.runs import records, stages

sys.path.insert(0, str(WORKFLOW))

import snakemake_logger_plugin_feyntune as plugin
from snakemake_logger_plugin_feyntune.estimate import Estimate, about

FINETUNE, ALL, QKV = "02_finetune", "02_finetune-s1-LoRA-all", "02_finetune-s1-LoRA-QKV"
STEP = (
    "{}: step 120/1,080 (11 %) | train 2.413 | validation 2.387, perplexity 10.9 | lr 2.9e-4 | "
    "13,100 tokens/s | 4 min, 31 min left\n"
)


def run(name: str, stage: str = FINETUNE, seconds: float | None = None) -> dict:
    subject = name.removeprefix(f"{stage}-") if name != stage else None
    return {"name": name, "stage": stage, "subject": subject, "seconds": seconds}


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """A handler of two jobs at work, which writes to memory; the log of the first job."""

    def make(width: int = 100, *, terminal: bool = False):
        figures = run("07_figures_and_tables", "07_figures_and_tables")
        jobs = [{"name": ALL, "runs": [run(ALL)]}, {"name": QKV, "runs": [run(QKV), figures]}]
        (tmp_path / "jobs.json").write_text(json.dumps({"jobs": jobs, "workers": 2}))
        monkeypatch.setenv("FEYNTUNE_JOBS", str(tmp_path / "jobs.json"))
        handler = plugin.LogHandler(None, None)
        handler.console = Console(file=io.StringIO(), width=width, soft_wrap=True)
        handler.live = object() if terminal else None
        handler.names, handler.started = {1: ALL, 2: QKV}, {1: 0.0, 2: 0.0}
        log = tmp_path / "a.log"
        handler.logs = {1: [str(log)]}
        return handler, log

    return make


def line(handler) -> str:
    """The line on a terminal, without the clock."""
    head, _, rest = handler._line().plain.partition(" | ")
    return f"{head.split()[0]} {rest}"


def test_a_line_says_which_runs_are_at_work_and_how_far_they_are(shown):
    handler, log = shown(width=200)
    assert line(handler) == f"[0/3] {ALL} | {QKV}"
    log.write_text(STEP.format(ALL))
    handler._look()
    assert line(handler) == (
        f"[0/3] {ALL}  step 120/1,080, perplexity 10.9, 31 min left | {QKV}"
    )  # fmt: skip
    log.write_text(f"{STEP.format(ALL)}{ALL}: done (2000 s)\n")
    handler._look()
    assert line(handler).startswith("[1/3] ")


@pytest.mark.parametrize("width", [200, 110, 100, 80, 60, 30])
def test_it_fits_into_the_terminal(shown, width):
    handler, log = shown(width)
    log.write_text(STEP.format(ALL) + STEP.format(QKV))
    handler._look()
    handler.console.print(handler._line())
    text = handler.console.file.getvalue()
    assert text.count("\n") == 1 and len(text.rstrip("\n")) <= width
    assert ("step" in text) == (width >= 100)


def test_without_a_terminal_a_line_per_run_and_the_estimate_once(shown):
    handler, log = shown()
    log.write_text(STEP.format(ALL) * 3 + f"{ALL}: done (300 s)\n{QKV}: up to date (0 s)\n")
    handler._look()
    handler._look()
    said = handler.console.file.getvalue().splitlines()
    assert [each for each in said if each.startswith("[")] == [
        f"[1/3] {ALL}  300 s",
        f"[2/3] {QKV}  0 s  up to date",
    ]
    assert sum(each.startswith("About ") for each in said) == 1 and len(said) == 3


def test_a_log_that_is_written_anew_is_read_anew(shown):
    handler, log = shown()
    log.write_text(f"{STEP.format(ALL)}something else\n")
    handler._look()
    log.write_text(f"{ALL}: done (3 s)\nnot whole")
    handler._look()
    assert list(handler.estimate.ended) == [ALL]


# --- how long it will take --------------------------------------------------------------------


def estimate(*runs: dict, workers: int | None = 2) -> Estimate:
    return Estimate([{"runs": [each]} for each in runs], workers)


def trainings(number: int, **given) -> list[dict]:
    return [run(f"{FINETUNE}-{n}", **given) for n in range(number)]


def test_nothing_is_said_before_anything_was_seen_nor_for_a_queue():
    for workers in (2, None):
        found = estimate(*trainings(20), workers=workers)
        assert found.left() is None
    found.ended[f"{FINETUNE}-0"] = 100.0
    assert found.left() is None


def test_runs_side_by_side_share_the_workers():
    found = estimate(*trainings(9))
    found.ended[f"{FINETUNE}-0"] = 100.0
    assert found.left() == pytest.approx(8 * 100 / 2)
    found.under_way[f"{FINETUNE}-1"] = 10.0
    assert found.left() == pytest.approx((7 * 100 + 10) / 2)


def test_no_run_ends_before_it_says_so_itself():
    found = estimate(*trainings(2))
    found.ended[f"{FINETUNE}-0"], found.under_way[f"{FINETUNE}-1"] = 100.0, 90.0
    assert found.left() == 90.0


def test_runs_of_one_job_follow_one_another():
    first, *rest = trainings(4)
    found = Estimate([{"runs": [first]}, {"runs": rest}], workers=2)
    found.ended[first["name"]] = 100.0
    assert found.left() == pytest.approx(3 * 100)


def test_what_a_stage_took_earlier_counts_until_it_is_seen_now():
    later = run("07_figures_and_tables", "07_figures_and_tables", seconds=55.0)
    found = estimate(*trainings(2), later)
    found.ended |= {f"{FINETUNE}-0": 100.0, f"{FINETUNE}-1": None}
    assert found.left() == 55.0


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(20, "under 1 min left"), (290, "about 5 min left"), (3 * 3600, "about 3 h left")],
)
def test_no_more_exact_than_it_is(seconds, said):
    assert about(seconds) == said


def test_what_never_ran_is_expected_to_take_what_others_of_its_stage_took(tmp_path, monkeypatch):
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path))
    smoke = load.load("smoke")
    done, new = (stages.run(smoke, stages.FINETUNE, variant) for variant in smoke.variants)

    def expected():
        [job] = engine._jobs(smoke, [new], workers=1)
        return job["runs"][0]["seconds"]

    assert expected() is None
    records.write(done.record_file, {"seconds": 40.0})
    assert expected() == 40.0
    records.write(new.record_file, {"seconds": 20.0})
    assert expected() == 20.0, "its own"
