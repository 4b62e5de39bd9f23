"""What a fetch brings, checks and says, against real servers on loopback."""

import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from contextlib import nullcontext
from pathlib import Path

import huggingface_hub.constants as hf
import pytest
import yaml
from fetching import (
    CSV,
    DATASET,
    FILES,
    JSON,
    KAGGLE,
    MODEL,
    NEW,
    OLD,
    WEIGHTS,
    dataset,
    everything,
    fetch,
    kaggle,
    model,
    refused,
    seen,
    web,
    written,
)

from feyntune.data.fetch import download, origins, pins
from feyntune.paths import REPOSITORY


def test_everything_comes_and_only_what_was_asked_for_is_visible(fake, loaded):
    made = loaded(**everything(fake))
    assert download.missing(made, made.outside) == ["base", "scores", "snapshot", "ratings"]
    lines = fetch(made)
    assert seen(made, "base") == {
        name: FILES[name] for name in ("config.json", "model.safetensors", "original/params.json")
    }
    assert seen(made, "scores") == {"data/test-0.parquet": WEIGHTS[:5000]}
    assert seen(made, "snapshot") == {"snapshot.json": JSON}
    assert seen(made, "ratings") == {"ratings.csv": CSV}
    assert download.missing(made, made.outside) == download.differences(made) == []
    assert lines[0] == f"base: {MODEL} at {NEW[:7]}, 3 files, 0.10 MB"
    assert [line.split(":")[0] for line in lines] == list(made.outside)
    assert not list(made.paths.fetched("x").parent.glob(".*"))


def test_a_second_fetch_asks_no_server(fake, loaded):
    made = loaded(**everything(fake))
    fetch(made)
    before = made.paths.lockfile.stat().st_mtime_ns
    fake.log.clear()
    fetch(made)
    assert fake.log == []
    assert made.paths.lockfile.stat().st_mtime_ns == before


def test_the_locked_commit_is_fetched_though_the_branch_moved(fake, loaded, tmp_path):
    made = loaded(base=model("config.json"))
    fetch(made)
    moved = dict(fake.repositories["model", MODEL].commits) | {"c" * 40: {"config.json": b"new"}}
    fake.repositories["model", MODEL].commits = moved
    Path(hf.HF_HUB_CACHE).rename(tmp_path / "elsewhere")
    assert download.missing(made, made.outside) == ["base"]
    fetch(made)
    assert seen(made, "base") == {"config.json": FILES["config.json"]}
    fetch(made, update=True)
    assert seen(made, "base") == {"config.json": b"new"}
    assert written(made)["base"]["commit"] == "c" * 40


def test_a_revision_may_be_a_commit(fake, loaded):
    made = loaded(base=model("config.json", revision=OLD))
    fetch(made)
    assert seen(made, "base") == {"config.json": b"{ }\n"}
    assert written(made)["base"]["commit"] == OLD


def test_another_source_than_the_locked_one_is_refused_before_any_download(fake, loaded):
    fetch(loaded(base=model("config.json")))
    changed = loaded(scores=dataset("*"), base=model("README.md", revision=OLD))
    fake.log.clear()
    message = refused(changed)
    assert f"revision '{OLD}', not 'main'" in message
    assert "files ['README.md'], not ['config.json']" in message
    assert "--experiment demo --update` renews the pin" in message
    assert fake.log == []
    assert download.missing(changed, changed.outside) == ["scores", "base"]
    fetch(changed, update=True)
    assert list(seen(changed, "base")) == ["README.md"]
    assert list(written(changed)) == ["scores", "base"]


def real_file(made, name, file):
    return (made.paths.fetched(name) / file).resolve()


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("base", "original/params.json"),
        ("base", "model.safetensors"),
        ("scores", "data/test-0.parquet"),
        ("snapshot", "snapshot.json"),
        ("ratings", "ratings.csv"),
    ],
)
def test_a_differing_byte_names_its_file_and_the_way_out_works(fake, loaded, name, file):
    made = loaded(**everything(fake))
    fetch(made)
    place = real_file(made, name, file)
    content = place.read_bytes()
    place.chmod(0o644)
    place.write_bytes(content[:-1] + b"?")
    assert download.missing(made, made.outside) == []  # in its size it is the same
    [difference] = download.differences(made)
    assert difference.startswith(f"{name}: {file} has SHA-256 ")
    message = refused(made)
    assert message.startswith(f"{name}: {file} has SHA-256 ")
    assert f"bring back {place}, or remove it and fetch again" in message
    place.unlink()
    assert download.missing(made, made.outside) == [name]
    fetch(made)
    assert seen(made, name)[file] == content


def test_a_shorter_file_and_a_stranger_are_differences(fake, loaded):
    made = loaded(**everything(fake))
    fetch(made)
    real_file(made, "ratings", "ratings.csv").write_bytes(b"short")
    (made.paths.fetched("base") / "stranger.json").write_text("{}")
    assert download.missing(made, made.outside) == ["base", "ratings"]
    assert download.differences(made) == [
        "base: stranger.json is not in the lock",
        f"ratings: ratings.csv has 5 bytes instead of {len(CSV):,}",
    ]
    (made.paths.fetched("base") / "config.json").unlink()
    assert "base: config.json is missing" in download.differences(made)
    fetch(made)
    assert download.differences(made) == []


def test_another_source_than_the_locked_one_differs_an_absent_one_not(fake, loaded, tmp_path):
    made = loaded(base=model("config.json"))
    assert download.differences(made) == list(pins.read(made)) == []
    fetch(made)
    changed = loaded(base=model("README.md"))
    assert "the experiment asks for other than the lock names" in download.differences(changed)[0]
    made.paths.fetched("base").rename(tmp_path / "away")
    assert download.differences(made) == []
    assert download.missing(made, made.outside) == ["base"]


def test_another_file_in_the_cache_than_the_lock_says(fake, loaded, tmp_path):
    """The cache of another machine: the lock is known, the folder is new."""
    made = loaded(base=model("config.json", "model.safetensors"))
    fetch(made)
    blob = real_file(made, "base", "model.safetensors")
    made.paths.fetched("base").rename(tmp_path / "away")
    blob.write_bytes(WEIGHTS[:-1] + b"?")
    message = refused(made)
    assert message.startswith("base: model.safetensors has SHA-256")
    assert str(blob) in message
    assert "--update" in message
    assert not made.paths.fetched("base").exists()


def test_a_first_download_is_compared_with_what_the_hub_says(fake, loaded):
    made = loaded(base=model("config.json", "model.safetensors"))
    fake.corrupt = True
    message = refused(made)
    assert message.startswith("base: model.safetensors has SHA-256")
    assert "--update" not in message
    assert not made.paths.lockfile.exists()
    assert not made.paths.fetched("base").exists()


FETCH = """
import sys
from feyntune.data.fetch import download
from feyntune.experiment import load
import yaml
made = load.with_settings("demo", yaml.safe_load(sys.argv[1]))
download.fetch(made, made.outside)
"""


def test_a_killed_fetch_leaves_nothing_half_and_goes_on(fake, loaded, tmp_path):
    """In a process of its own, as users start it: by the environment, no patches."""
    sources = {
        "first": dataset("*.txt"),
        "base": model("config.json", "model.safetensors"),
        "ratings": web(fake),
    }
    fake.repositories["dataset", DATASET].commits[NEW]["small.txt"] = b""
    made = loaded(**sources)
    environment = os.environ | {
        "HF_ENDPOINT": fake.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONPATH": str(REPOSITORY),
    }
    command = [
        sys.executable,
        "-u",
        "-c",
        FETCH,
        yaml.safe_dump({"fetch": sources, "base.model": MODEL}, sort_keys=False),
    ]
    piped = {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    fake.silent = True
    started = subprocess.Popen(command, **piped)
    deadline = time.monotonic() + 60
    while not any("/cdn/" in path for path, _ in fake.downloads()) and time.monotonic() < deadline:
        time.sleep(0.05)
    started.send_signal(signal.SIGKILL)
    assert started.communicate(timeout=30)[0].startswith("first: ")
    assert download.missing(made, made.outside) == ["base", "ratings"]
    assert not made.paths.fetched("base").exists()
    fake.silent = False
    again = subprocess.run(command, **piped, timeout=60)
    assert (again.returncode, again.stderr) == (0, "")  # no progress bar without a terminal
    assert download.missing(made, made.outside) == download.differences(made) == []


def test_nothing_is_said_but_what_is_reported(fake, loaded):
    """In a process of its own: what a library takes for standard output is decided at import."""
    sources = {"snapshot": kaggle("*.json")}
    text = yaml.safe_dump({"fetch": sources, "data.snapshot": KAGGLE})
    pointed = f"""
from kagglesdk import kaggle_env
kaggle_env._env_to_endpoint[kaggle_env.KaggleEnv.LOCAL] = {fake.url!r}
"""
    done = subprocess.run(
        [sys.executable, "-c", pointed + FETCH, text],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.stdout == f"snapshot: {KAGGLE}, version 193, 1 file, 0.10 MB\n"


def test_room_is_looked_for_before_downloading(fake, loaded, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(
        download.shutil, "disk_usage", lambda _: usage(0, 0, download.RESERVE + 1000)
    )
    for name in ("base", "ratings"):
        message = refused(loaded(**{name: everything(fake)[name]}))
        assert f"{name}: 0.1" in message or f"{name}: 0.0" in message
        assert "make room" in message
        assert not fake.downloads()
    fetch(loaded(base=model("config.json")))


def test_room_is_not_needed_for_what_is_here(fake, loaded, monkeypatch, tmp_path):
    made = loaded(**everything(fake))
    fetch(made)
    for name in made.outside:
        if name != "ratings":
            made.paths.fetched(name).rename(tmp_path / name)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage(0, 0, 0))
    fetch(made)
    Path(os.environ["KAGGLEHUB_CACHE"]).rename(tmp_path / "away")
    assert "make room" in refused(made)  # the lock knows how large Kaggle's files are


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is full")
def test_a_disk_that_gets_full(fake, loaded, monkeypatch):
    made = loaded(ratings=web(fake))
    with monkeypatch.context() as patch:
        patch.setattr(origins, "writing", lambda target: nullcontext(Path("/dev/full")))
        assert "ratings: the disk is full: make room" in refused(made)
    fetch(made)


def test_a_cache_that_may_not_be_written(fake, loaded, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(hf, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    assert "choose another cache folder" in refused(loaded(base=model("config.json")))
