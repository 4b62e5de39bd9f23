"""``feyntune complete``: the completion alone on the standard output, or one line."""

import shutil

import pytest
import tiny
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from feyntune import cli
from feyntune.experiment import load, trials
from feyntune.explore.session import Session
from feyntune.models import adapters

TEXT = "We study strings on a torus.\nWe find that they"


def complete(*arguments, text=None):
    return CliRunner().invoke(cli.main, ["complete", *arguments], input=text, prog_name="feyntune")


@pytest.mark.parametrize("model", ["base", tiny.VARIANT])
def test_a_file_or_the_standard_input(stand_in, tmp_path, model):
    file = tmp_path / "mine.txt"
    file.write_text(TEXT)
    settings = load.load("smoke")
    expected = Session(settings).continuation(TEXT, model) + "\n"
    found = [complete("--model", f"smoke/{model}", str(file)),
             complete("--model", f"smoke/{model}", text=TEXT)]  # fmt: skip
    assert [each.stdout for each in found] == [expected, expected]
    assert all("stand-in corpus and model" in each.stderr for each in found)


@pytest.fixture
def trial(stand_in):
    """A trial with an adapter of its own, which says the opposite of its experiment's."""
    made = load.load("smoke", {"training.learning_rate": 1e-2}, trial="hot")
    trials.record(made)
    folder = made.paths.adapter(tiny.VARIANT)
    shutil.copytree(stand_in.experiment.paths.adapter(tiny.VARIANT), folder)
    file = folder / adapters.WEIGHTS
    save_file({name: -tensor.abs() for name, tensor in load_file(file).items()}, file)
    yield made
    shutil.rmtree(made.paths.results)


def test_a_model_of_a_trial(trial):
    found = complete("--model", f"{trial.name}/{tiny.VARIANT}", text=TEXT)
    assert found.stdout == Session(trial).continuation(TEXT, tiny.VARIANT) + "\n"
    assert found.stdout != complete("--model", f"smoke/{tiny.VARIANT}", text=TEXT).stdout


@pytest.mark.parametrize(
    ("model", "text", "said"),
    [
        ("smoke/base", " \n", "The text is empty"),
        ("smoke/base", "word " * 3000, "the model reads at most 2,048, of which 64 are kept"),
        ("smoke/base", "<|end_of_text|>", "is a sign to the model"),
        ("smoke/s1-LoRA-QKV", TEXT, "s1-LoRA-QKV is not trained in experiment smoke"),
        ("demo/base", TEXT, "nothing of experiment demo"),
        ("smoke/s1-lora-all", TEXT, "Did you mean 's1-LoRA-all'"),
        ("smoke/trials/cold/base", TEXT, "There is no trial cold of smoke"),
        ("smke/base", TEXT, "Did you mean 'smoke'"),
        ("smoke", TEXT, "named as EXPERIMENT/MODEL"),
        ("published/base", TEXT, "no models to explore"),
    ],
)
def test_what_cannot_be_completed_is_said_in_one_line(stand_in, model, text, said):
    found = complete("--model", model, text=text)
    assert (found.exit_code, found.stdout) == (2, "")
    assert said in found.stderr and found.stderr.count("\n") == 1


def test_a_file_that_is_no_text(stand_in, tmp_path):
    file = tmp_path / "picture.png"
    file.write_bytes(b"\x89PNG\xff")
    assert "is no text in UTF-8" in complete("--model", "smoke/base", str(file)).stderr
