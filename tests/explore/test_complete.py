"""``feyntune complete``: the completion alone on the standard output, or one line."""

import pytest
import tiny
from click.testing import CliRunner

from feyntune import cli
from feyntune.explore.session import Session

TEXT = "We study strings on a torus.\nWe find that they"


def complete(*arguments, text=None):
    return CliRunner().invoke(cli.main, ["complete", *arguments], input=text, prog_name="feyntune")


@pytest.mark.parametrize("model", ["base", tiny.VARIANT])
def test_a_file_or_the_standard_input(stand_in, tmp_path, model):
    file = tmp_path / "mine.txt"
    file.write_text(TEXT)
    settings = cli.experiments.load("smoke")
    expected = Session(settings).continuation(TEXT, model) + "\n"
    found = [complete("--model", f"smoke/{model}", str(file)),
             complete("--model", f"smoke/{model}", text=TEXT)]  # fmt: skip
    assert [each.stdout for each in found] == [expected, expected]
    assert all("stand-in corpus and model" in each.stderr for each in found)


@pytest.mark.parametrize(
    ("model", "text", "said"),
    [
        ("smoke/base", " \n", "The text is empty"),
        ("smoke/base", "word " * 3000, "the model reads at most 2,048, of which 64 are kept"),
        ("smoke/base", "<|end_of_text|>", "is a sign to the model"),
        ("smoke/s1-LoRA-QKV", TEXT, "s1-LoRA-QKV is not trained in experiment smoke"),
        ("demo/base", TEXT, "nothing of experiment demo"),
        ("smoke/s1-lora-all", TEXT, "Did you mean 's1-LoRA-all'"),
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
