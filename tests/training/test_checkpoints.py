"""From which checkpoint a training resumes, and that nothing is lost that does not fit."""

import os
import shutil
from pathlib import Path

import pytest

from feyntune.training import checkpoints
from feyntune.training.checkpoints import DIVERGED, HASHES, KEY, mark_complete, resume_point

FILES = ("adapter_model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json")
TODAY = {"settings": "s1", "data": "d1", "code": "c1"}
OTHER = {"settings": "s2", "data": "d1", "code": "c2"}


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.setattr(checkpoints.time, "strftime", lambda _: "2026-11-25-101500")


def save(folder: Path, step: int, text: str = "") -> Path:
    """A whole checkpoint, as the trainer saves it, of small files."""
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir()
    for name in FILES:
        (checkpoint / name).write_text(f"{name} of step {step} {text}")
    mark_complete(checkpoint)
    return checkpoint


@pytest.fixture
def folder(tmp_path):
    """A training that has saved checkpoints 2 and 5."""
    folder = tmp_path / "checkpoints"
    assert resume_point(folder, TODAY) is None
    save(folder, 2)
    save(folder, 5)
    return folder


def resumed(folder: Path, key: dict[str, str] = TODAY) -> tuple[str | None, list[str]]:
    """Name of the checkpoint to resume from, and what was reported."""
    said: list[str] = []
    found = resume_point(folder, key, said.append)
    return found and str(Path(found).relative_to(folder)), said


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


def garble(file: Path) -> None:
    file.write_bytes(b"\xff\xfe" + file.read_bytes())


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


# --- whole or damaged -------------------------------------------------------------------------


def test_the_last_whole_checkpoint_is_taken(folder):
    assert resumed(folder) == ("checkpoint-5", ["Going on from checkpoint-5."])


def test_the_last_checkpoint_is_the_last_in_number_not_in_spelling(folder):
    save(folder, 10)
    assert resumed(folder)[0] == "checkpoint-10"


@pytest.mark.parametrize(
    ("damage", "name", "said"),
    [
        (flip, "adapter_model.safetensors", "adapter_model.safetensors changed or missing"),
        (flip, "trainer_state.json", "trainer_state.json changed or missing"),
        (cut, "optimizer.pt", "optimizer.pt changed or missing"),
        (Path.unlink, "rng_state.pth", "rng_state.pth changed or missing"),
        (cut, HASHES, "never finished, or its hashes cannot be read"),
        (garble, HASHES, "never finished, or its hashes cannot be read"),
        (Path.unlink, HASHES, "never finished, or its hashes cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_taken(folder, damage, name, said):
    damage(folder / "checkpoint-5" / name)
    damaged = contents(folder / "checkpoint-5")
    found, lines = resumed(folder)
    assert found == "checkpoint-2"
    assert said in lines[0] and lines[0].endswith(
        "set aside in set-aside/2026-11-25-101500-damaged."
    )
    place = folder / "set-aside" / "2026-11-25-101500-damaged" / "checkpoint-5"
    assert contents(place) == damaged and not (folder / "checkpoint-5").exists()
    damage(folder / "checkpoint-2" / name)
    found, lines = resumed(folder)
    assert found is None
    assert lines[-1] == "No whole checkpoint is left: starting from the beginning."
    # What is damaged never comes back, though the key is the same.
    assert resumed(folder) == (None, [])
    assert len(list(folder.glob("set-aside/*-damaged*/checkpoint-*"))) == 2


# --- of another key ---------------------------------------------------------------------------


def test_checkpoints_of_another_key_are_set_aside_and_the_parts_named(folder):
    before = contents(folder / "checkpoint-5")
    found, lines = resumed(folder, OTHER)
    name = "set-aside/2026-11-25-101500-settings-code"
    assert found is None
    assert lines == [
        f"checkpoint-2, checkpoint-5 set aside in {name}: trained with other settings, code than "
        "today's."
    ]
    assert not list(folder.glob("checkpoint-*"))
    assert contents(folder / name / "checkpoint-5") == before
    assert resumed(folder, OTHER) == (None, [])


def test_they_are_taken_back_when_their_key_is_todays_again(folder):
    (folder / DIVERGED).write_text("{}")
    resumed(folder, OTHER)
    assert not (folder / DIVERGED).exists()
    save(folder, 3, "of the other")
    found, lines = resumed(folder, TODAY)
    assert found == "checkpoint-5" and (folder / DIVERGED).exists()
    assert lines[0].startswith("checkpoint-3 set aside in set-aside/2026-11-25-101500-settings")
    assert lines[1].startswith("checkpoint-2, checkpoint-5, feyntune-diverged.json taken back from")
    # Back and forth, each training finds its own, and no empty folder is left.
    assert resumed(folder, OTHER)[0] == "checkpoint-3"
    assert "of the other" in (folder / "checkpoint-3" / FILES[0]).read_text()
    assert resumed(folder, TODAY)[0] == "checkpoint-5"
    assert len(list(folder.glob("set-aside/*"))) == 1


def test_a_third_key_leaves_both_others_alone(folder):
    resumed(folder, OTHER)
    save(folder, 3)
    assert resumed(folder, TODAY | {"data": "d3"})[0] is None
    assert {p.name for p in folder.glob("set-aside/*/checkpoint-*")} == {
        "checkpoint-2", "checkpoint-3", "checkpoint-5",
    }  # fmt: skip
    assert resumed(folder, OTHER)[0] == "checkpoint-3"
    assert resumed(folder, TODAY)[0] == "checkpoint-5"


def test_interrupted_while_they_were_set_aside_none_is_lost(folder):
    """As after a kill: one checkpoint is moved, the other not yet, the key still the old one."""
    place = folder / "set-aside" / "earlier"
    place.mkdir(parents=True)
    shutil.copy(folder / KEY, place / KEY)
    (folder / "checkpoint-2").rename(place / "checkpoint-2")
    assert resumed(folder, OTHER)[0] is None
    found, lines = resumed(folder, TODAY)
    assert found == "checkpoint-5" and len(lines) == 3
    assert {p.name for p in folder.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-5"}


def test_checkpoints_without_a_key_are_set_aside(folder):
    cut(folder / KEY)
    found, lines = resumed(folder)
    assert found is None
    assert lines == [
        "checkpoint-2, checkpoint-5 set aside in set-aside/2026-11-25-101500-unknown: what they "
        "were trained with cannot be read."
    ]
    assert len(list(folder.glob("set-aside/*-unknown/checkpoint-*"))) == 2
    assert resumed(folder) == (None, [])
