"""Nothing is lost: what can befall a run, on the stand-in, and how it ends all the same."""

import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import tiny
import torch
from transformers import TrainerCallback

from feyntune.errors import UserError
from feyntune.runs.signals import Preempted
from feyntune.training import checkpoints as saved_runs
from feyntune.training import trainer
from feyntune.training.checkpoints import DIVERGED, resume_point
from feyntune.training.log import training_log
from feyntune.training.trainer import PaperTrainer

# Thirteen abstracts in batches of four, twice: eight steps, checkpoints after 2, 5 and 8.
SHORT = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "evaluations": 4}
ABSTRACTS = 13
KEY = {"all": "key"}
STOP = 7  # two steps after the second checkpoint, in the middle of the second epoch


def log_of(trainer) -> pd.DataFrame:
    return training_log(trainer.state.log_history)


class Stopped(Exception):
    pass


class StopAfter(TrainerCallback):
    """End the run after a step: by an exception, or by waiting to be killed."""

    def __init__(self, step: int, *, wait: bool = False):
        self.step, self.wait = step, wait

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            if not self.wait:
                raise Stopped
            print("waiting", flush=True)
            signal.pause()


def short_run(stand_in, output: Path, *callbacks, kind=PaperTrainer, **update):
    """A few steps on a few abstracts; returns the trainer, not yet trained."""
    training = stand_in.experiment.training.model_copy(update=SHORT | update)
    train = stand_in.tokenised("train").select(range(ABSTRACTS))
    return stand_in.trainer(
        output, training=training, train=train, callbacks=callbacks, trainer_class=kind
    )


def outcome(trainer, folder: Path) -> tuple[bytes, pd.DataFrame]:
    trainer.model.save_pretrained(folder)
    return (folder / "adapter_model.safetensors").read_bytes(), log_of(trainer)


def assert_same(found: tuple[bytes, pd.DataFrame], expected: tuple[bytes, pd.DataFrame]) -> None:
    pd.testing.assert_frame_equal(found[1], expected[1], check_exact=True)
    assert found[0] == expected[0]


def interrupted(stand_in, folder: Path, callback: TrainerCallback) -> Path:
    resume_point(folder, KEY)
    with pytest.raises(Stopped):
        short_run(stand_in, folder, callback).train()
    return folder


def resumed(stand_in, folder: Path, from_step: int, saved: Path) -> tuple[bytes, pd.DataFrame]:
    point = resume_point(folder, KEY)
    assert point == str(folder / f"checkpoint-{from_step}")
    torch.manual_seed(99)  # whatever state the new process is in
    trainer = short_run(stand_in, folder)
    trainer.train(resume_from_checkpoint=point)
    return outcome(trainer, saved)


@pytest.fixture(scope="module")
def finished(stand_in, tmp_path_factory):
    """The folder of a run that ended, and its trainer."""
    folder = tmp_path_factory.mktemp("finished")
    assert resume_point(folder, KEY) is None
    trainer = short_run(stand_in, folder)
    trainer.train()
    return folder, trainer


@pytest.fixture(scope="module")
def uninterrupted(finished, tmp_path_factory):
    return outcome(finished[1], tmp_path_factory.mktemp("uninterrupted"))


@pytest.fixture(scope="module")
def broken_off(stand_in, tmp_path_factory):
    """The folder of a run that stopped after step 7, with checkpoints 2 and 5."""
    folder = interrupted(stand_in, tmp_path_factory.mktemp("broken-off"), StopAfter(STOP))
    assert {p.name for p in folder.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-5"}
    return folder


@pytest.fixture
def checkpoints(broken_off, tmp_path):
    return shutil.copytree(broken_off, tmp_path / "checkpoints")


def test_a_run_repeats_itself(stand_in, uninterrupted, tmp_path):
    trainer = short_run(stand_in, tmp_path / "checkpoints")
    trainer.train()
    assert_same(outcome(trainer, tmp_path), uninterrupted)


def test_evaluating_more_often_changes_nothing_but_the_evaluations(
    stand_in, uninterrupted, tmp_path
):
    trainer = short_run(stand_in, tmp_path / "checkpoints", evaluations=9)
    trainer.train()
    adapter, log = outcome(trainer, tmp_path)
    assert log["eval_loss"].count() == 9
    assert log["loss"].equals(uninterrupted[1]["loss"])
    assert adapter == uninterrupted[0]


def test_interrupted_equals_uninterrupted(stand_in, checkpoints, uninterrupted, tmp_path):
    assert_same(resumed(stand_in, checkpoints, 5, tmp_path / "saved"), uninterrupted)


def test_interrupted_while_a_checkpoint_was_written(stand_in, uninterrupted, tmp_path, monkeypatch):
    def mark_complete(checkpoint: Path) -> None:
        if checkpoint.name == "checkpoint-5":
            raise Stopped
        genuine(checkpoint)

    genuine = saved_runs.mark_complete
    with monkeypatch.context() as patch:
        patch.setattr(saved_runs, "mark_complete", mark_complete)
        folder = tmp_path / "checkpoints"
        resume_point(folder, KEY)
        with pytest.raises(Stopped):
            short_run(stand_in, folder).train()
    assert (folder / "checkpoint-5" / "optimizer.pt").exists()
    assert_same(resumed(stand_in, folder, 2, tmp_path / "saved"), uninterrupted)


def test_killed_between_the_last_checkpoint_and_the_end(
    stand_in, finished, uninterrupted, tmp_path
):
    folder = shutil.copytree(finished[0], tmp_path / "checkpoints")
    assert_same(resumed(stand_in, folder, 8, tmp_path / "saved"), uninterrupted)


@pytest.mark.slow
def test_killed_equals_uninterrupted(stand_in, uninterrupted, tmp_path):
    """SIGKILL, from outside, to a process in the middle of training."""
    folder = tmp_path / "checkpoints"
    resume_point(folder, KEY)
    child = subprocess.Popen(
        [sys.executable, __file__, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "OMP_NUM_THREADS": str(torch.get_num_threads()),
        },
    )
    try:
        assert any(line == "waiting\n" for line in child.stdout)
        assert child.poll() is None
    finally:
        child.kill()
        child.communicate()
    assert child.returncode == -signal.SIGKILL
    assert_same(resumed(stand_in, folder, 5, tmp_path / "saved"), uninterrupted)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


def test_falls_back_to_the_checkpoint_before(stand_in, checkpoints, uninterrupted, tmp_path):
    flip(checkpoints / "checkpoint-5" / "adapter_model.safetensors")
    assert_same(resumed(stand_in, checkpoints, 2, tmp_path / "saved"), uninterrupted)


# --- asked to end -----------------------------------------------------------------------------


class Terminate(TrainerCallback):
    """SIGTERM in the middle of a step."""

    def __init__(self, step: int):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step - 1:
            os.kill(os.getpid(), signal.SIGTERM)


# In an epoch, at its end (four steps each), and where a checkpoint is due anyway.
@pytest.mark.parametrize("step", [3, 4, 5])
def test_sigterm_saves_and_ends_and_equals_undisturbed(stand_in, uninterrupted, tmp_path, step):
    folder, before = tmp_path / "checkpoints", signal.getsignal(signal.SIGTERM)
    resume_point(folder, KEY)
    with pytest.raises(Preempted, match=rf"checkpoint-{step} of 8 steps is saved"):
        short_run(stand_in, folder, Terminate(step)).train()
    assert signal.getsignal(signal.SIGTERM) is before
    assert_same(resumed(stand_in, folder, step, tmp_path / "saved"), uninterrupted)


def test_sigterm_in_the_last_step_is_too_late_to_matter(stand_in, uninterrupted, tmp_path):
    run = short_run(stand_in, tmp_path / "checkpoints", Terminate(8))
    run.train()
    assert_same(outcome(run, tmp_path), uninterrupted)


# --- no room on the disk ----------------------------------------------------------------------


class FullDisk(TrainerCallback):
    """From a step on, no file may grow beyond some bytes."""

    def __init__(self, step: int, size: int):
        self.step, self.size = step, size

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, resource.RLIM_INFINITY))


@pytest.fixture
def limits():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


# Too small for the adapter, and for the optimiser's state but not for the adapter.
@pytest.mark.parametrize("size", [1000, 100_000])
def test_a_full_disk_is_said_and_the_run_goes_on_once_there_is_room(
    stand_in, uninterrupted, tmp_path, limits, size
):
    folder = tmp_path / "checkpoints"
    resume_point(folder, KEY)
    with pytest.raises(UserError, match=r"checkpoint-5 could not be written .* make room"):
        short_run(stand_in, folder, FullDisk(5, size)).train()
    limits()
    assert not (folder / "checkpoint-5").exists()
    assert_same(resumed(stand_in, folder, 2, tmp_path / "saved"), uninterrupted)


# --- no memory left ---------------------------------------------------------------------------


def short_of_memory(rows: int, step: int = 0, error=torch.OutOfMemoryError):
    """A trainer whose device holds only so many abstracts at a time, from a step on."""

    class Short(PaperTrainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            loss = super().compute_loss(model, inputs, *args, **kwargs)
            if len(inputs["input_ids"]) > rows and self.state.global_step >= step:
                raise error("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return loss

    return Short


def without_dropout(stand_in):
    lora = stand_in.experiment.training.lora.model_copy(update={"lora_dropout": 0.0})
    return {"lora": lora}


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_out_of_memory_changes_nothing_but_the_order_of_sums(stand_in, tmp_path, capsys, rows):
    """Abstracts of one batch differ in length by far: a mean of means would be another loss."""
    results = []
    for kind in (PaperTrainer, short_of_memory(rows)):
        run = short_run(stand_in, tmp_path / "run", kind=kind, **without_dropout(stand_in))
        run.train()
        results.append((log_of(run), run))
    (whole, _), (cut, run) = results
    assert run.rows == {1: 1, 2: 2, 3: 2}[rows]
    said = f"Out of memory at step 1: now {2 if rows > 1 else 1} abstracts at a time, still 4"
    assert said in capsys.readouterr().out
    for column in ("loss", "grad_norm", "eval_loss"):
        pd.testing.assert_series_equal(cut[column], whole[column], rtol=2e-4)
    assert cut["tokens"].equals(whole["tokens"])
    assert cut["learning_rate"].equals(whole["learning_rate"])


def test_out_of_memory_half_way_leaves_no_trace_of_the_failed_attempt(stand_in, tmp_path):
    """The step begins again from zero gradients and the same dropout as a run that knew."""

    class Knew(PaperTrainer):
        def training_step(self, *args, **kwargs):
            self.rows = 2 if self.state.global_step >= 3 else self.rows
            return super().training_step(*args, **kwargs)

    results = []
    for kind in (short_of_memory(2, step=3), Knew):
        run = short_run(stand_in, tmp_path / "run", kind=kind)
        run.train()
        results.append(outcome(run, tmp_path / kind.__name__))
    assert_same(*results)


def test_gradients_of_the_pieces_that_fitted_are_not_counted_twice(stand_in, tmp_path):
    """Memory ends in the second piece of a step, when the first has left its gradients."""

    class Short(PaperTrainer):
        def training_step(self, *args, **kwargs):
            self.pieces = 0
            return super().training_step(*args, **kwargs)

        def compute_loss(self, *args, **kwargs):
            self.pieces += 1
            if self.state.global_step == 3 and self.rows == 2 and self.pieces == 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return super().compute_loss(*args, **kwargs)

    class Knew(PaperTrainer):
        def training_step(self, *args, **kwargs):
            self.rows = 1 if self.state.global_step >= 3 else self.rows
            return super().training_step(*args, **kwargs)

    results = []
    for kind in (Short, Knew):
        # Of twelve abstracts, every batch is full.
        run = short_run(stand_in, tmp_path / "run", kind=kind)
        run.train_dataset = run.train_dataset.select(range(12))
        run.rows = 2
        run.train()
        assert run.rows == 1
        results.append(outcome(run, tmp_path / kind.__name__))
    assert_same(*results)


def test_a_run_that_goes_on_keeps_to_what_fitted(stand_in, tmp_path, capsys):
    folder = tmp_path / "checkpoints"
    kind = short_of_memory(2, step=3)
    whole = short_run(stand_in, tmp_path / "whole", kind=kind)
    whole.train()
    resume_point(folder, KEY)
    with pytest.raises(Preempted):
        short_run(stand_in, folder, Terminate(6), kind=kind).train()
    capsys.readouterr()
    run = short_run(stand_in, folder, kind=kind)
    run.train(resume_from_checkpoint=resume_point(folder, KEY))
    assert "Out of memory" not in capsys.readouterr().out
    assert_same(outcome(run, tmp_path / "one"), outcome(whole, tmp_path / "other"))


def test_one_abstract_that_does_not_fit_is_the_users_to_mend(stand_in, tmp_path):
    with pytest.raises(UserError, match=r"Out of memory at step 1 with one abstract at a time"):
        short_run(stand_in, tmp_path / "run", kind=short_of_memory(0)).train()


def test_another_runtime_error_is_not_taken_for_a_lack_of_memory(stand_in, tmp_path):
    class Broken(PaperTrainer):
        def compute_loss(self, *args, **kwargs):
            raise RuntimeError("a bug of ours")

    with pytest.raises(RuntimeError, match="a bug of ours"):
        short_run(stand_in, tmp_path / "run", kind=Broken).train()


@pytest.mark.parametrize(("planned", "largest"), [(1, 1), (2, 2), (4, 3)])
def test_a_cpu_evaluates_no_more_abstracts_at_a_time_than_were_planned(
    stand_in, tmp_path, monkeypatch, planned, largest
):
    """The settings of the tests allow three."""
    genuine, seen = trainer.next_token_nll, []

    class Planned(PaperTrainer):
        def __init__(self, **given):
            super().__init__(**{**given, "rows": planned})

    def counted(model, ids, mask):
        seen.append(len(ids))
        return genuine(model, ids, mask)

    monkeypatch.setattr(trainer, "next_token_nll", counted)
    short_run(stand_in, tmp_path / "run", kind=Planned).evaluate()
    assert max(seen) == largest


def test_out_of_memory_in_an_evaluation_changes_nothing(stand_in, tmp_path, monkeypatch):
    whole = short_run(stand_in, tmp_path / "run").evaluate()
    genuine = trainer.next_token_nll

    def short(model, ids, mask):
        if len(ids) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return genuine(model, ids, mask)

    monkeypatch.setattr(trainer, "next_token_nll", short)
    assert short_run(stand_in, tmp_path / "run").evaluate() == pytest.approx(whole, rel=1e-5)


# --- not a number -----------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_loss_that_is_not_a_number_ends_the_run_and_names_the_batch(
    stand_in, tmp_path, uninterrupted, factor
):
    class Exploding(PaperTrainer):
        def compute_loss(self, *args, **kwargs):
            good = super().compute_loss(*args, **kwargs)
            return good * factor if self.state.global_step == 3 else good

    folder = tmp_path / "checkpoints"
    resume_point(folder, KEY)
    with pytest.raises(UserError, match="loss at step 4 is not a number") as error:
        short_run(stand_in, folder, kind=Exploding).train()
    record = json.loads((folder / DIVERGED).read_text())
    assert (record["step"], record["what"]) == (4, "loss")
    # The last step of an epoch of 13 in fours: one abstract, named.
    assert len(record["ids"]) == 1 and record["ids"][0] in str(error.value)
    assert record["ids"][0] in stand_in.rows("train")["id"][:ABSTRACTS]
    assert_same(resumed(stand_in, folder, 2, tmp_path / "saved"), uninterrupted)


def test_a_gradient_that_is_not_a_number_never_reaches_the_weights(stand_in, tmp_path):
    class Exploding(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **kwargs):
            if state.global_step == 2:
                weights = [p for p in model.parameters() if p.requires_grad]
                weights[0].register_hook(lambda gradient: gradient * math.nan)

    run = short_run(stand_in, tmp_path / "run", Exploding())
    with pytest.raises(UserError, match="gradient at step 3 is not a number"):
        run.train()
    assert all(p.isfinite().all() for p in run.model.parameters() if p.requires_grad)


if __name__ == "__main__":  # the process that is killed
    stand_in = tiny.load(Path(os.environ["FEYNTUNE_OUTPUT"]))
    short_run(stand_in, Path(sys.argv[1]), StopAfter(STOP, wait=True)).train()
