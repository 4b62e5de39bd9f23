"""Two processes make the same training as one, and what goes wrong in them is said."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

VARIANT = "s1-LoRA-QKV"
# Sums over the rows of a batch are taken in another order.
TOLERANCE = 1e-5
# Thirty-five abstracts in fours: the last batch of an epoch has three, for two processes.
UPDATE = {"evaluations": 3, "epochs": 1}


def settings(experiment):
    """Without dropout, which every process draws for itself."""
    lora = experiment.training.lora.model_copy(update={"dropout": 0.0})
    training = experiment.training.model_copy(update={**UPDATE, "lora": lora})
    return experiment.model_copy(update={"training": training})


def launched(stand_in, *arguments: str) -> subprocess.CompletedProcess:
    """Training in a process of its own: one that has touched bitsandbytes cannot be forked."""
    import tiny  # not above: the launched process would import bitsandbytes with it

    (stand_in.output / "overrides.json").write_text(json.dumps(tiny.OVERRIDES))
    path = os.pathsep.join(sys.path)
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one(stand_in, tmp_path):
    experiment = settings(stand_in.experiment)
    single = stand_in.trainer(tmp_path / "one", variant=VARIANT, training=experiment.training)
    single.train()
    done = launched(stand_in, "2")
    assert done.returncode == 0, done.stderr[-2000:]
    last = experiment.paths.checkpoints(VARIANT) / f"checkpoint-{single.state.max_steps}"
    # Really two: each left the state of its own random numbers.
    assert {p.name for p in last.glob("rng_state*")} == {"rng_state_0.pth", "rng_state_1.pth"}
    assert (last / "feyntune-hashes.json").exists()
    found = json.loads((last / "trainer_state.json").read_text())["log_history"]
    expected = [e for e in single.state.log_history if "train_runtime" not in e]
    assert len(found) == len(expected) == single.state.max_steps + UPDATE["evaluations"]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=TOLERANCE)


@pytest.mark.slow
def test_an_error_in_a_process_is_the_launchers_own(stand_in):
    done = launched(stand_in, "2", "fail")
    assert done.returncode == 3
    assert "UserError: 1 training steps are too few" in done.stdout


if __name__ == "__main__":
    # Light, as the start of notebook 02 is: `tiny` would import bitsandbytes.
    from feyntune.errors import UserError
    from feyntune.experiment import load as experiment
    from feyntune.training import parallel

    overrides = json.loads(Path(os.environ["FEYNTUNE_OUTPUT"], "overrides.json").read_text())
    loaded = settings(experiment.load("smoke", overrides))
    if "fail" in sys.argv:
        training = loaded.training.model_copy(update={"batch_size": 64})
        loaded = loaded.model_copy(update={"training": training})
    try:
        parallel.launch(loaded, VARIANT, int(sys.argv[1]))
    except UserError as error:
        print(f"UserError: {error}")
        sys.exit(3)
