"""Run records: hashes by role, and what a record holds."""

import json
import os
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from feyntune.paths import Paths, output_root
from feyntune.runs import records

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2's example


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch) -> Path:
    """An output folder of the test's own."""
    folder = tmp_path / "output"
    folder.mkdir()
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(folder))
    monkeypatch.delenv(records.FACTS_VARIABLE, raising=False)
    return folder


def put(path: Path, content: str = "abc") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


# --- hashes and names -------------------------------------------------------------------------


def test_sha256_of_a_known_text(root):
    assert records.sha256(put(root / "a")) == ABC


def test_files_have_the_roles_of_their_places(root, tmp_path):
    put(root / "results" / "x" / "base" / "config.json")
    put(root / "results" / "x" / "base" / "deep" / "model.safetensors")
    one = put(root / "results" / "x" / "data" / "train.parquet")
    mine = put(tmp_path / "home" / "me" / "arxiv.json")
    base = root / "results" / "x" / "base"
    places = {"base": base, "data/s1/train": one, "none": root / "none", "snapshot": mine}
    assert records.files(places) == {
        "base/config.json": base / "config.json",
        "base/deep/model.safetensors": base / "deep" / "model.safetensors",
        "data/s1/train": one,
        "snapshot": mine,
    }


def test_states_hold_no_path_and_the_same_files_elsewhere_have_the_same_hashes(root, tmp_path):
    one, other = put(root / "results" / "a.parquet"), put(tmp_path / "home" / "b.parquet")
    here, there = records.states({"data": one}), records.states({"data": other})
    assert str(tmp_path) not in json.dumps(here)
    assert here["data"]["bytes"] == 3
    assert records.hashes(here) == records.hashes(there) == {"data": ABC}


def test_hidden_files_are_no_contents_of_a_folder(root):
    put(root / "results" / "x" / "base" / "config.json")
    put(root / "results" / "x" / "base" / ".DS_Store")
    put(root / "results" / "x" / "base" / ".partial-model.safetensors")
    assert list(records.files({"x": root / "results" / "x"})) == ["x/base/config.json"]


def test_a_file_of_known_size_and_time_is_not_read_again(root, monkeypatch):
    file = put(root / "a")
    known = records.states({"a": file})
    monkeypatch.setattr(records, "sha256", lambda path: pytest.fail("read again"))
    assert records.states({"a": file}, known) == known


def test_a_new_time_or_size_is_looked_into(root):
    file = put(root / "a")
    known = records.states({"a": file})
    stat = file.stat()
    # Same size, later: another hash for other contents, the same for the same.
    put(file, "abd")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert records.states({"a": file}, known)["a"]["sha256"] != ABC
    put(file, "abc")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert records.states({"a": file}, known)["a"]["sha256"] == ABC
    # Same time, longer.
    put(file, "abcd")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert records.states({"a": file}, known)["a"]["sha256"] != ABC


def test_without_what_is_known_every_byte_is_hashed(root):
    """What `feyntune verify` is to rely on: a time can be forged, contents cannot."""
    file = put(root / "a")
    known, stat = records.states({"a": file}), file.stat()
    put(file, "abd")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert records.states({"a": file}, known)["a"]["sha256"] == ABC, "the shortcut is one"
    assert records.states({"a": file})["a"]["sha256"] != ABC


# --- records ----------------------------------------------------------------------------------


def test_a_record_is_read_as_it_was_written(root):
    record = {"key": "k", "inputs": {"ä": {"bytes": 1}}, "peak": None, "seconds": 0.1}
    records.write(root / "runs" / "a.json", record)
    assert records.read(root / "runs" / "a.json") == record
    assert os.listdir(root / "runs") == ["a.json"]


@pytest.mark.parametrize("content", [b"", b'{"key": "k', b"[]", b"null", b"\xff\xfe"])
def test_what_is_no_record_is_none(root, content):
    (root / "a.json").write_bytes(content)
    assert records.read(root / "a.json") is None


def test_no_record_is_none(root):
    assert records.read(root / "none.json") is None


def test_a_record_that_cannot_be_written_leaves_the_old_one(root):
    records.write(root / "a.json", {"key": "old"})
    with pytest.raises(TypeError):
        records.write(root / "a.json", {"key": object()})
    assert records.read(root / "a.json") == {"key": "old"}


def test_notes_are_gathered(root, monkeypatch):
    place = root / "facts.json"
    monkeypatch.setenv(records.FACTS_VARIABLE, str(place))
    records.note(seconds=1.5, tokens=10)
    records.note(tokens=20, device="cpu")
    noted = records.read(place)
    assert {k: noted[k] for k in ("seconds", "tokens", "device")} == {
        "seconds": 1.5,
        "tokens": 20,
        "device": "cpu",
    }
    assert noted["peak_memory_bytes"] > 10 * 2**20, "an interpreter is larger than this"


def test_notes_outside_a_run_go_nowhere(root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    records.note(seconds=1.0)
    assert list(tmp_path.rglob("*")) == [root]


def test_surroundings_name_versions_and_no_path():
    found = records.surroundings()
    assert found["packages"]["torch"] == metadata.version("torch")
    assert set(found["packages"]) >= {"transformers", "trl", "peft", "datasets", "numpy"}
    assert found["hardware"]["cores"] == os.cpu_count()
    text = json.dumps(found)
    assert str(records.REPOSITORY) not in text
    assert str(Path.home()) + "/" not in text


def test_no_commit_outside_a_clone(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "REPOSITORY", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    found = records.surroundings()
    assert found["commit"] is None
    assert found["uncommitted_changes"] is None, "not known"


def git(folder, *arguments):
    person = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    command = ["git", "-C", str(folder), *person, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def somebody_elses(tmp_path):
    """Another repository, with a commit."""
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "another")
    return tmp_path


def test_the_commit_of_another_repository_is_not_ours(somebody_elses, monkeypatch):
    """A ZIP of this one, unpacked within it; and one that git's variables name."""
    inside = somebody_elses / "FeynTune"
    inside.mkdir()
    monkeypatch.setattr(records, "REPOSITORY", inside)
    found = records.surroundings()
    assert found["commit"] is None and found["uncommitted_changes"] is None
    git(inside, "init", "--quiet")
    git(inside, "commit", "--quiet", "--allow-empty", "--message", "own")
    own = git(inside, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(somebody_elses / ".git"))
    found = records.surroundings()
    assert found["commit"] == own and found["uncommitted_changes"] is False


def test_without_git_nothing_is_known(monkeypatch):
    monkeypatch.setenv("PATH", "")
    found = records.surroundings()
    assert found["commit"] is None and found["uncommitted_changes"] is None


@pytest.mark.parametrize(("devices", "gpus"), [([], []), (["nvidia0"], None), (["nvidiactl"], [])])
def test_gpus_that_their_driver_does_not_name_are_unknown(tmp_path, monkeypatch, devices, gpus):
    for name in devices:
        (tmp_path / name).touch()
    monkeypatch.setattr(records, "DEVICES", tmp_path)
    monkeypatch.setenv("PATH", "")
    records._gpus.cache_clear()
    assert records.surroundings()["hardware"]["gpus"] == gpus
    records._gpus.cache_clear()


def test_output_goes_to_the_repository_unless_told_otherwise(root, monkeypatch):
    assert output_root() == root
    assert Paths("demo").figures == root / "figures" / "demo"
    monkeypatch.delenv("FEYNTUNE_OUTPUT")
    assert output_root() == records.REPOSITORY
