"""How far a training is: a line, a table, a file."""

import json
import sys
from types import SimpleNamespace

import pytest

from feyntune.errors import UserError
from feyntune.experiment import load
from feyntune.runs import progress, stages

RECORD = {
    "step": 120, "steps": 1080, "share": 1 / 9, "epoch": 0.44, "train_loss": 2.413,
    "validation_loss": 2.387, "validation_perplexity": 10.9, "learning_rate": 2.9e-4,
    "tokens_per_second": 13100.0, "seconds": 240.0, "seconds_left": 1860.0,
}  # fmt: skip
LINE = (
    "step 120/1,080 (11 %) | train 2.413 | validation 2.387, perplexity 10.9 | lr 2.9e-4 | "
    "13,100 tokens/s | 4 min, 31 min left"
)
UNTRAINED = {"train_loss": None, "learning_rate": None, "tokens_per_second": None}


def test_a_record_as_a_line():
    assert progress.line(RECORD) == LINE


def test_what_is_not_known_yet_is_left_out_of_the_line():
    first = RECORD | UNTRAINED | {"step": 0, "share": 0.0, "seconds": 2.0, "seconds_left": None}
    assert progress.line(first) == "step 0/1,080 (0 %) | validation 2.387, perplexity 10.9 | 2 s"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (59, "59 s"), (60, "1 min"), (3569, "59 min"), (9000, "2.5 h")],
)
def test_durations(seconds, said):
    assert progress.rough_duration(seconds) == said


def test_a_table_has_a_bar_and_a_row_per_evaluation():
    table = progress.table([RECORD | UNTRAINED | {"step": 0}, RECORD])
    assert table.count("<tr>") == 3 and 'value="120" max="1080"' in table
    assert "step 120/1,080 (11 %), 31 min left" in table and "<script" not in table


def test_each_record_is_in_the_file_at_once(tmp_path, capsys):
    shown = progress.Shown(tmp_path / "new" / "log.jsonl")
    shown.go_on({})
    shown.add(RECORD)
    assert json.loads((tmp_path / "new" / "log.jsonl").read_text()) == RECORD
    assert capsys.readouterr().out == f"{LINE}\n"


def test_a_resumed_run_drops_what_came_after_its_checkpoint_and_what_is_not_its_own(tmp_path):
    file = tmp_path / "log.jsonl"
    losses = {0: 3.0, 5: 2.5, 10: 2.0}
    lines = [json.dumps({"step": step, "validation_loss": loss}) for step, loss in losses.items()]
    file.write_text("\n".join([*lines, '{"step": 15, "valid']))
    shown = progress.Shown(file)
    shown.go_on({0: 3.0, 5: 2.4})
    assert [record["step"] for record in progress.read(file)] == [0]
    shown.go_on({})
    assert progress.read(file) == []


def test_a_notebook_updates_one_table_and_tells_its_job_the_line(tmp_path, monkeypatch, capsys):
    import IPython.display

    sent = []

    def display(data, **more):
        sent.append({"data": data, **more})
        return SimpleNamespace(update=display)

    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=None))
    monkeypatch.setattr(IPython.display, "display", display)
    shown = progress.Shown(tmp_path / "log.jsonl")
    shown.go_on({})
    shown.add(RECORD)
    shown.add(RECORD | {"step": 240})
    assert [message.get("display_id") for message in sent] == [True, None]
    assert sent[0]["transient"] == {progress.LINE: LINE}
    assert sent[1]["data"]["text/html"].count("<tr>") == 3
    assert "feyntune" not in str(sent[1]["data"]) and capsys.readouterr().out == ""


def test_what_is_not_installed_is_said_before_anything_runs(monkeypatch, tmp_path):
    """In one line, with the command; nothing is said where nothing is to be trained."""
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path))
    monkeypatch.setattr(progress, "find_spec", lambda name: None)
    reported = load.load("smoke", {"training.report_to": "trackio"})
    install = f"trackio is not installed: {sys.executable} -m pip install trackio, or set"
    with pytest.raises(UserError, match=install):
        progress.check_reporters(stages.plan(reported))
    progress.check_reporters(stages.every(reported, stages.PERPLEXITY))
    progress.check_reporters(stages.plan(load.load("smoke")))
    monkeypatch.setattr(progress, "find_spec", lambda name: name)
    progress.check_reporters(stages.plan(reported))


def test_where_it_is_reported_to_makes_nothing_stale():
    keys = [
        stages.run(load.load("smoke", given), stages.FINETUNE, "s1-LoRA-all").settings
        for given in ({}, {"training.report_to": "tensorboard"})
    ]
    assert keys[0] == keys[1]
