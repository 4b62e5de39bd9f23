"""Pinned downloads against real servers on loopback, and from a mirror folder."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import fake_hub
import huggingface_hub.constants as hf
import mirror
import pandas as pd
import pytest
import yaml
from fake_hub import GOOD_TOKEN, OTHER_TOKEN, Repository
from huggingface_hub.utils import _http as hf_http
from kagglehub import clients as kaggle_clients
from kagglesdk.kaggle_env import KaggleEnv, _env_to_endpoint
from safetensors.numpy import load_file

from feyntune.data.fetch import download, origins
from feyntune.data.fetch import pins as lock
from feyntune.errors import UserError
from feyntune.experiment import load as experiment
from feyntune.paths import EXPERIMENTS, REPOSITORY

OLD, NEW = "a" * 40, "b" * 40
MODEL, DATASET, KAGGLE = "owner/model", "owner/scores", "owner/snapshot"
WEIGHTS = bytes(range(256)) * 400  # a hundred pieces of a download
FILES = {
    "README.md": b"# A model\n",
    "config.json": b"{}\n",
    "model.safetensors": WEIGHTS,
    "original/params.json": b'{"dim": 1}\n',
    "pytorch_model.bin": b"pickled",
    ".gitattributes": b"*.safetensors filter=lfs\n",
}
NAMED_BY = {"model": "base.model", "kaggle": "data.snapshot"}
CSV = b"paper,score\n" + b"0806.1218,7\n" * 5000
JSON = b'{"id": "0806.1218"}\n' * 5000


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """The servers, with every library pointed at them and at empty caches."""
    with fake_hub.serving() as server:
        server.repositories = {
            ("model", MODEL): Repository({OLD: FILES | {"config.json": b"{ }\n"}, NEW: FILES}),
            ("dataset", DATASET): Repository({NEW: {"data/test-0.parquet": WEIGHTS[:5000]}}),
        }
        server.kaggle = {(KAGGLE, 193): {"snapshot.json": JSON, "LICENSE": b"CC0\n"}}
        server.web = {"/web/ratings.csv": CSV}
        for name in [v for v in os.environ if v.startswith(("HF_", "KAGGLE", "HUGGING"))]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path / "output"))
        monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kaggle"))
        monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
        monkeypatch.setitem(_env_to_endpoint, KaggleEnv.LOCAL, server.url)
        monkeypatch.setattr(hf, "ENDPOINT", server.url)
        monkeypatch.setattr(
            hf,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            server.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr(hf, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(hf, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(hf, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hf, "DOWNLOAD_CHUNK_SIZE", 1024)
        monkeypatch.setattr(kaggle_clients, "CHUNK_SIZE", 1024)
        monkeypatch.setattr(origins, "CHUNK", 1024)
        # Which addresses are the Hub's: loopback has no TLS.
        addresses = hf_http.REPO_API_REGEX
        also = re.compile(addresses.pattern.replace("https", "https?"), addresses.flags)
        monkeypatch.setattr(hf_http, "REPO_API_REGEX", also)
        yield server


@pytest.fixture
def loaded():
    """An experiment that needs what a test names."""

    def load(**sources):
        # A model or a snapshot is fetched where a section names it.
        named = {
            NAMED_BY[source["origin"]]: source["id"]
            for source in sources.values()
            if source["origin"] in NAMED_BY
        }
        return experiment.load("demo", {"fetch": sources, **named})

    return load


def model(*files, revision="main", **more):
    return {"origin": "model", "id": MODEL, "revision": revision, "files": list(files), **more}


def dataset(*files):
    return {"origin": "dataset", "id": DATASET, "revision": "main", "files": list(files)}


def kaggle(*files, version=193):
    return {"origin": "kaggle", "id": KAGGLE, "version": version, "files": list(files)}


def web(fake, content=CSV, **more):
    digest = hashlib.sha256(content).hexdigest()
    known = {"url": f"{fake.url}/web/ratings.csv", "sha256": digest, "bytes": len(content)}
    return {"origin": "web", **known, **more}


def everything(fake):
    return {
        "base": model("*.json", "*.safetensors"),
        "scores": dataset("data/*.parquet"),
        "snapshot": kaggle("*.json"),
        "ratings": web(fake),
    }


def fetch(made, **options):
    """Fetch all that an experiment needs; what was reported."""
    lines = []
    download.fetch(made, made.sources, report=lines.append, **options)
    return lines


def seen(made, name):
    """The files of a source as a stage sees them."""
    folder = made.paths.fetched(name)
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def written(made):
    return yaml.safe_load(made.paths.lockfile.read_text())["sources"]


def refused(made, **options):
    """The one line that a fetch ends with."""
    with pytest.raises(UserError) as error:
        fetch(made, **options)
    message = str(error.value)
    assert "\n" not in message
    assert "hf_" not in message
    return message


# --- what is fetched -----------------------------------------------------------------------------


def test_everything_comes_and_only_what_was_asked_for_is_visible(fake, loaded):
    made = loaded(**everything(fake))
    assert download.missing(made, made.sources) == ["base", "scores", "snapshot", "ratings"]
    lines = fetch(made)
    assert seen(made, "base") == {
        name: FILES[name] for name in ("config.json", "model.safetensors", "original/params.json")
    }
    assert seen(made, "scores") == {"data/test-0.parquet": WEIGHTS[:5000]}
    assert seen(made, "snapshot") == {"snapshot.json": JSON}
    assert seen(made, "ratings") == {"ratings.csv": CSV}
    assert download.missing(made, made.sources) == download.differences(made) == []
    assert lines[0] == f"base: {MODEL} at {NEW[:7]}, 3 files, 0.10 MB"
    assert [line.split(":")[0] for line in lines] == list(made.sources)
    assert not list(made.paths.fetched("x").parent.glob(".*"))


def test_the_lock_holds_commits_sizes_and_hashes_and_no_place(fake, loaded, tmp_path):
    made = loaded(**everything(fake))
    fetch(made)
    entries = written(made)
    assert list(entries) == list(made.sources)
    assert entries["base"]["commit"] == NEW
    assert entries["snapshot"]["source"]["version"] == 193
    for name in made.sources:
        assert entries[name]["files"] == {
            file: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for file, content in sorted(seen(made, name).items())
        }
    text = made.paths.lockfile.read_text()
    assert text.startswith("# What experiments/demo.yaml needs")
    assert str(tmp_path) not in text


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
    assert download.missing(made, made.sources) == ["base"]
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
    assert download.missing(changed, changed.sources) == ["scores", "base"]
    fetch(changed, update=True)
    assert list(seen(changed, "base")) == ["README.md"]
    assert list(written(changed)) == ["scores", "base"]


def test_sources_that_are_gone_leave_the_lock(fake, loaded):
    fetch(loaded(**everything(fake)))
    made = loaded(base=model("config.json"))
    fetch(made, update=True)
    assert list(written(made)) == ["base"]


def test_what_a_users_file_replaces_stays_in_the_lock(fake, loaded):
    both = {"base": model("config.json"), "snapshot": kaggle("*.json")}
    fetch(loaded(**both))
    own = experiment.load("demo", {"fetch": both, "base.model": MODEL, "data.snapshot": "my.json"})
    assert list(own.sources) == ["base"]
    fetch(own, update=True)
    lock.write(own, lock.read(own))
    assert list(written(own)) == ["base", "snapshot"]
    assert download.differences(own) == []


def test_a_committed_lock_holds_where_the_output_is_elsewhere(fake, loaded, monkeypatch, tmp_path):
    made = loaded(base=model("config.json"))
    fetch(made)
    monkeypatch.setattr(lock, "EXPERIMENTS", made.paths.lockfile.parent)
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path / "other"))
    fake.repositories["model", MODEL].commits["c" * 40] = {"config.json": b"new"}
    fetch(made)
    assert seen(made, "base") == {"config.json": FILES["config.json"]}
    assert not made.paths.lockfile.exists()  # nothing to say that the committed one does not
    assert download.locked(made) == ["base"]


def test_the_committed_lock_is_none_of_the_tests():
    assert lock.EXPERIMENTS == EXPERIMENTS == REPOSITORY / "experiments"


@pytest.mark.parametrize("text", ["sources: [", "sources: {base: {commit: 1}}", "- x", "\x00"])
def test_a_lock_that_cannot_be_read_is_named(fake, loaded, text):
    made = loaded(base=model("config.json"))
    made.paths.lockfile.parent.mkdir(parents=True)
    made.paths.lockfile.write_text(text)
    assert str(made.paths.lockfile) in refused(made)


# --- patterns ------------------------------------------------------------------------------------


def test_a_pattern_without_a_file_is_named_with_what_there_is(fake, loaded):
    message = refused(loaded(base=model("*.json", "*.gguf")))
    assert "'*.gguf'" in message
    assert "README.md, config.json, model.safetensors" in message
    assert ".gitattributes" not in message


def test_an_optional_pattern_may_match_nothing(fake, loaded):
    made = loaded(base=model("config.json", optional=["*.gguf", "original/*"]))
    fetch(made)
    assert list(seen(made, "base")) == ["config.json", "original/params.json"]


@pytest.mark.parametrize(
    "source", [model("*"), model("*.bin"), model("config.json", optional=["*.bin"])]
)
def test_pickles_are_refused(fake, loaded, source):
    message = refused(loaded(base=source))
    assert "pytorch_model.bin is a pickle" in message
    assert not fake.downloads()


def test_pickles_are_refused_also_where_the_lock_names_them(fake, loaded):
    made = loaded(base=model("config.json"))
    fetch(made)
    text = made.paths.lockfile.read_text().replace("config.json:", "pytorch_model.bin:")
    made.paths.lockfile.write_text(text)
    assert "pytorch_model.bin is a pickle" in refused(made)


def test_hidden_files_come_only_by_name(fake, loaded):
    fake.repositories["model", MODEL].commits[NEW] = {".gitattributes": b"x", "a.json": b"y"}
    everything = loaded(base=model("*"))
    fetch(everything)
    assert list(seen(everything, "base")) == ["a.json"]
    named = loaded(base=model(".git*"))
    fetch(named, update=True)
    assert list(seen(named, "base")) == [".gitattributes"]


# --- a differing byte ----------------------------------------------------------------------------


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
    assert download.missing(made, made.sources) == []  # in its size it is the same
    [difference] = download.differences(made)
    assert difference.startswith(f"{name}: {file} has SHA-256 ")
    message = refused(made)
    assert message.startswith(f"{name}: {file} has SHA-256 ")
    assert f"bring back {place}, or remove it and fetch again" in message
    place.unlink()
    assert download.missing(made, made.sources) == [name]
    fetch(made)
    assert seen(made, name)[file] == content


def test_a_shorter_file_and_a_stranger_are_differences(fake, loaded):
    made = loaded(**everything(fake))
    fetch(made)
    real_file(made, "ratings", "ratings.csv").write_bytes(b"short")
    (made.paths.fetched("base") / "stranger.json").write_text("{}")
    assert download.missing(made, made.sources) == ["base", "ratings"]
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
    assert download.differences(made) == download.locked(made) == []
    fetch(made)
    changed = loaded(base=model("README.md"))
    assert "the experiment asks for other than the lock names" in download.differences(changed)[0]
    made.paths.fetched("base").rename(tmp_path / "away")
    assert download.differences(made) == []
    assert download.missing(made, made.sources) == ["base"]


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


# --- the way there -------------------------------------------------------------------------------


def test_a_gated_repository_says_where_to_ask(fake, loaded, monkeypatch):
    fake.repositories["model", MODEL].gated = True
    made = loaded(base=model("config.json"))
    for token in (None, OTHER_TOKEN):
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        message = refused(made)
        assert (
            f"model {MODEL} is gated: request access at https://huggingface.co/{MODEL}" in message
        )
        assert "HF_TOKEN" in message
        assert not made.paths.fetched("base").exists()
    monkeypatch.setenv("HF_TOKEN", GOOD_TOKEN)
    fetch(made)
    assert GOOD_TOKEN in str(fake.credentials)
    for file in Path(made.paths.lockfile).parents[1].rglob("*"):
        assert not file.is_file() or GOOD_TOKEN.encode() not in file.read_bytes()


def test_a_token_that_is_not_accepted(fake, loaded, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    message = refused(loaded(base=model("config.json")))
    assert "does not accept the credentials: set HF_TOKEN or run `hf auth login`" in message


def test_what_is_not_on_the_hub(fake, loaded, monkeypatch):
    nobody = model("*") | {"id": "owner/nobody"}
    assert "there is no model owner/nobody" in refused(loaded(base=nobody))
    monkeypatch.setenv("HF_TOKEN", GOOD_TOKEN)
    assert "there is no model owner/nobody" in refused(loaded(base=nobody))
    data = dataset("*") | {"id": "owner/nobody"}
    assert "https://huggingface.co/datasets/owner/nobody" in refused(loaded(base=data))
    assert "has no such revision" in refused(loaded(base=model("*", revision="v9")))
    assert "owner/name" in refused(loaded(base=model("*") | {"id": "a/b/c"}))


def test_a_commit_that_is_gone(fake, loaded, tmp_path):
    made = loaded(base=model("config.json"))
    fetch(made)
    Path(hf.HF_HUB_CACHE).rename(tmp_path / "away")
    del fake.repositories["model", MODEL].commits[NEW]
    assert "no such revision" in refused(made)
    fake.repositories["model", MODEL].commits[NEW] = {"README.md": b""}
    assert "lacks a file" in refused(made)


@pytest.mark.parametrize(("status", "words"), [(500, "in trouble"), (429, "wait"), (418, "418")])
@pytest.mark.parametrize("name", ["base", "snapshot", "ratings"])
def test_a_server_in_trouble(fake, loaded, monkeypatch, status, words, name):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    fake.status = status
    assert words in refused(loaded(**{name: everything(fake)[name]}))


@pytest.mark.parametrize("name", ["base", "snapshot", "ratings"])
def test_no_network(fake, loaded, monkeypatch, name):
    made = loaded(**{name: everything(fake)[name]})
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    # A port of which nobody listens.
    monkeypatch.setattr(hf, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(_env_to_endpoint, KaggleEnv.LOCAL, "http://127.0.0.1:9")
    if name == "ratings":
        made = loaded(ratings=web(fake, url="http://127.0.0.1:9/ratings.csv"))
    message = refused(made)
    assert message.startswith(f"{name}: no connection to the server of ")
    assert "--mirror" in message


def test_no_network_with_the_lock_and_an_empty_cache(fake, loaded, monkeypatch, tmp_path):
    made = loaded(base=model("config.json"))
    fetch(made)
    Path(hf.HF_HUB_CACHE).rename(tmp_path / "away")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(hf, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}")
    assert "no connection" in refused(made)


def test_no_network_is_needed_for_what_the_cache_holds(fake, loaded, monkeypatch, tmp_path):
    made = loaded(base=model("config.json"), snapshot=kaggle("snapshot.json"))
    fetch(made)
    for name in made.sources:
        made.paths.fetched(name).rename(tmp_path / name)
    fake.log.clear()
    monkeypatch.setattr(hf, "HF_HUB_OFFLINE", True)
    fetch(made)
    assert fake.log == []
    assert download.missing(made, made.sources) == []


def test_offline_by_the_environment(fake, loaded, monkeypatch):
    monkeypatch.setattr(hf, "HF_HUB_OFFLINE", True)
    message = refused(loaded(base=model("config.json")))
    assert "HF_HUB_OFFLINE" in message
    assert "--mirror" in message


def test_what_answers_is_not_the_hub(fake, loaded, monkeypatch, tmp_path):
    made = loaded(base=model("config.json"))
    fetch(made)
    Path(hf.HF_HUB_CACHE).rename(tmp_path / "away")
    portal = fake.url + "/web/ratings.csv?"
    monkeypatch.setattr(hf, "HUGGINGFACE_CO_URL_TEMPLATE", portal + "{repo_id}{revision}{filename}")
    assert "is not the Hub" in refused(made)


# --- half a download -----------------------------------------------------------------------------


def test_the_hub_resumes_where_the_connection_broke(fake, loaded, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    made = loaded(base=model("model.safetensors"))
    fake.breaks = 2
    fetch(made)
    assert seen(made, "base") == {"model.safetensors": WEIGHTS}
    spans = [span for path, span in fake.downloads() if path.startswith("/cdn/")]
    assert spans[0] is None
    assert 0 < int(spans[1][6:-1]) < int(spans[2][6:-1])


def test_the_hub_goes_silent(fake, loaded, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(hf, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    made = loaded(base=model("config.json", "model.safetensors"))
    fake.silent = True
    message = refused(made)
    assert "stopped answering" in message
    assert "run the same command again" in message
    assert not made.paths.fetched("base").exists()
    assert not made.paths.lockfile.exists()
    fake.silent = False
    fetch(made)
    assert seen(made, "base")["model.safetensors"] == WEIGHTS


def test_the_storage_of_large_files_is_down(fake, loaded, monkeypatch):
    """The real downloader of the Hub's large files, in Rust, which fails in its own way."""
    monkeypatch.setenv("HF_XET_CLIENT_RETRY_MAX_ATTEMPTS", "1")
    fake.xet = True
    message = refused(loaded(base=model("*.safetensors")))
    assert f"base: the storage of model {MODEL} did not give its files" in message
    assert "/xet-token" in [path for path, _ in fake.downloads()]


def test_kaggle_resumes(fake, loaded):
    made = loaded(snapshot=kaggle("*.json"))
    fake.breaks = 1
    message = refused(made)
    assert "the connection broke while version 193 of Kaggle dataset" in message
    assert not made.paths.fetched("snapshot").exists()
    fetch(made)
    assert seen(made, "snapshot") == {"snapshot.json": JSON}
    spans = [span for path, span in fake.downloads() if path.startswith("/storage/")]
    assert spans[0] is None
    assert int(spans[-1][6:-1]) > 0


def test_kaggle_starts_again_where_ranges_are_not_honoured(fake, loaded):
    made = loaded(snapshot=kaggle("*.json"))
    fake.breaks, fake.ranges = 1, False
    refused(made)
    fetch(made)
    assert seen(made, "snapshot") == {"snapshot.json": JSON}


@pytest.mark.parametrize("ranges", [True, False])
def test_a_web_file_resumes(fake, loaded, ranges):
    made = loaded(ratings=web(fake))
    fake.breaks, fake.ranges = 1, ranges
    message = refused(made)
    assert "the connection broke" in message
    folder = made.paths.fetched("ratings")
    [partial] = folder.parent.iterdir()
    assert partial.name == ".partial-ratings-ratings.csv"
    begun = partial.stat().st_size
    assert 0 < begun < len(CSV)
    fetch(made)
    assert seen(made, "ratings") == {"ratings.csv": CSV}
    assert fake.downloads()[-1][1] == f"bytes={begun}-"
    assert list(folder.parent.iterdir()) == [folder]


def test_a_web_server_goes_silent(fake, loaded, monkeypatch):
    monkeypatch.setattr(origins, "TIMEOUT", (1, 0.1))
    fake.silent = True
    made = loaded(ratings=web(fake))
    assert "stopped answering" in refused(made)
    fake.silent = False
    fetch(made)
    assert seen(made, "ratings") == {"ratings.csv": CSV}


@pytest.mark.parametrize("content", [CSV[:-1] + b"?", CSV + b"?" * 5000, CSV[:-7]])
def test_a_web_file_that_is_another_never_gets_its_name(fake, loaded, content):
    made = loaded(ratings=web(fake))
    fake.web["/web/ratings.csv"] = content
    message = refused(made)
    assert "is not the pinned file" in message
    assert f"{fake.url}/web/ratings.csv" in message
    # Of a file that is too long no more is read than shows it.
    assert (f"({len(content):,} bytes" in message) == (len(content) <= len(CSV))
    assert not list(made.paths.fetched("ratings").parent.iterdir())
    fake.web["/web/ratings.csv"] = CSV
    fetch(made)
    assert seen(made, "ratings") == {"ratings.csv": CSV}


@pytest.mark.parametrize("left", [CSV[:100] + b"?", CSV + b"?", CSV])
def test_what_lies_half_fetched_may_be_of_another_file(fake, loaded, left):
    made = loaded(ratings=web(fake))
    partial = made.paths.fetched("ratings").with_name(".partial-ratings-ratings.csv")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(left)
    if left.startswith(CSV[:101]):
        fetch(made)
    else:
        assert "is not the pinned file" in refused(made)
        fetch(made)
    assert seen(made, "ratings") == {"ratings.csv": CSV}
    assert len(fake.downloads()) == (0 if left == CSV else 1 if left.startswith(CSV) else 2)


def test_a_web_file_that_is_not_there(fake, loaded):
    gone = web(fake, url=f"{fake.url}/web/gone.csv")
    assert f"there is no {fake.url}/web/gone.csv" in refused(loaded(ratings=gone))


FETCH = """
import sys
from feyntune import experiment, hub
import yaml
made = experiment.load("demo", yaml.safe_load(sys.argv[1]))
hub.fetch(made, made.sources)
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
    assert download.missing(made, made.sources) == ["base", "ratings"]
    assert not made.paths.fetched("base").exists()
    fake.silent = False
    again = subprocess.run(command, **piped, timeout=60)
    assert (again.returncode, again.stderr) == (0, "")  # no progress bar without a terminal
    assert download.missing(made, made.sources) == download.differences(made) == []


# --- disk ----------------------------------------------------------------------------------------


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
    for name in made.sources:
        if name != "ratings":
            made.paths.fetched(name).rename(tmp_path / name)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage(0, 0, 0))
    fetch(made)
    Path(os.environ["KAGGLEHUB_CACHE"]).rename(tmp_path / "away")
    assert "make room" in refused(made)  # the lock knows how large Kaggle's files are


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is full")
def test_a_disk_that_gets_full(fake, loaded):
    made = loaded(ratings=web(fake))
    partial = made.paths.fetched("ratings").with_name(".partial-ratings-ratings.csv")
    partial.parent.mkdir(parents=True)
    partial.symlink_to("/dev/full")
    assert "ratings: the disk is full: make room" in refused(made)
    partial.unlink()
    fetch(made)


def test_a_cache_that_may_not_be_written(fake, loaded, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(hf, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    assert "choose another cache folder" in refused(loaded(base=model("config.json")))


# --- Kaggle --------------------------------------------------------------------------------------


def test_kaggle_wants_credentials(fake, loaded, monkeypatch):
    fake.kaggle_needs_token = True
    made = loaded(snapshot=kaggle("*.json"))
    message = refused(made)
    assert f"https://www.kaggle.com/datasets/{KAGGLE}" in message
    assert "KAGGLE_API_TOKEN" in message
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_secret")
    fetch(made)
    assert "Bearer KGAT_secret" in fake.credentials
    assert "KGAT" not in made.paths.lockfile.read_text()


def test_kaggle_has_no_such_version(fake, loaded):
    message = refused(loaded(snapshot=kaggle("*.json", version=9999)))
    assert f"there is no version 9999 of Kaggle dataset {KAGGLE}" in message


def test_kaggle_has_no_such_file(fake, loaded):
    message = refused(loaded(snapshot=kaggle("*.zip")))
    assert "'*.zip'; there is LICENSE, snapshot.json" in message


def test_kaggle_archive_that_is_another(fake, loaded):
    fake.corrupt = True
    made = loaded(snapshot=kaggle("*.json"))
    assert "the connection broke" in refused(made)
    fake.corrupt = False
    fetch(made)


def test_kaggle_file_that_left_the_version(fake, loaded, tmp_path):
    made = loaded(snapshot=kaggle("*.json"))
    fetch(made)
    fake.kaggle[KAGGLE, 193] = {"LICENSE": b"CC0\n"}
    Path(os.environ["KAGGLEHUB_CACHE"]).rename(tmp_path / "away")
    assert "snapshot.json is not in version 193" in refused(made)


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


# --- model cards ---------------------------------------------------------------------------------

CARDS = {
    "s1-LoRA-all": (["LLMsForHepth/hep-th_primary"], "confirmed"),
    "s2-LoRA-all": ("LLMsForHepth/hep-ph_gr-qc_primary", "confirmed"),
    "s4-LoRA-all": (["LLMsForHepth/hep-th_85_gr-qc_15"], "contradicted"),
    "s5-LoRA-all": (["LLMsForHepth/hep-th_85_gr-qc_15", "LLMsForHepth/other"], "contradicted"),
    "s6-LoRA-all": (["hep-th_85_hep-ph_15"], "contradicted"),
    "s7-LoRA-all": (["generator"], "not said"),
    "s8-LoRA-all": ([], "not said"),
    "s9-LoRA-all": (None, "not said"),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mirror")
    said = {variant: datasets for variant, (datasets, _) in CARDS.items()}
    return mirror.build(folder, abstracts=5, cards=said)


@pytest.fixture
def published(built, fake):
    return experiment.load("published", built.overrides)


def test_cards_confirm_or_contradict_our_recipes(published, built):
    lines = {line.split(":")[0]: line for line in fetch(published, mirror=built.folder)}
    cards = download.cards(published)
    assert {variant: cards[variant]["verdict"] for variant in CARDS} == {
        variant: verdict for variant, (_, verdict) in CARDS.items()
    }
    assert cards["s2-LoRA-all"]["datasets"] == ["LLMsForHepth/hep-ph_gr-qc_primary"]
    assert cards["s10-LoRA-QKV"]["verdict"] == "confirmed"
    assert len(cards) == 20
    assert written(published)["s4-LoRA-all"]["card"]["verdict"] == "contradicted"
    assert "which confirms our recipe" in lines["s1-LoRA-all"]
    assert "hep-th_85_gr-qc_15, which CONTRADICTS our recipe" in lines["s4-LoRA-all"]
    assert "its card names no dataset, which says nothing" in lines["s9-LoRA-all"]


def test_without_a_lock_no_card_says_anything(published):
    assert download.cards(published) == {}


@pytest.mark.parametrize("text", ["no front matter", "---\na: [\n---\n", "---\n- a\n---\n", "\xff"])
def test_a_card_that_cannot_be_read_says_nothing(fake, text):
    made = experiment.load(
        "demo", {"adapters": {"revision": "main", "files": ["README.md"], "more": {}}}
    )
    for source in made.sources.values():
        files = {"README.md": text.encode("latin-1")}
        fake.repositories["model", source.id] = Repository({NEW: files})
    fetch(made)
    assert {card["verdict"] for card in download.cards(made).values()} == {"not said"}


# --- mirrors -------------------------------------------------------------------------------------


def test_a_mirror_gives_everything_without_a_server(published, built, fake):
    fetch(published, mirror=built.folder)
    assert fake.log == []
    assert download.missing(published, published.sources) == download.differences(published) == []
    scores = published.paths.fetched("perplexities") / mirror.PARQUET
    assert scores.is_symlink()
    assert pd.read_parquet(scores).filter(like="perplexity_").shape == (5, 21)
    state = json.loads((published.paths.fetched("s1-LoRA-QKV") / mirror.STATE).read_text())
    assert state["log_history"][0]["step"] == 0
    rated = pd.read_csv(
        published.paths.fetched("ratings") / "llm_human_evaluation_final.csv", dtype={"paper": str}
    )
    assert len(rated) == 900
    commit = mirror.commit_of("LLMsForHepth/hep-th_perplexities")
    assert written(published)["perplexities"]["commit"] == commit
    weights = built.folder / "LLMsForHepth" / "s1-L-3.1-8B-base" / "adapter_model.safetensors"
    assert len(load_file(weights)) == 2


def test_the_lock_of_the_hub_holds_for_a_mirror(fake, loaded, tmp_path):
    made = loaded(**everything(fake))
    fetch(made)
    folder = as_mirror(fake, tmp_path / "mirror")
    for name in made.sources:
        made.paths.fetched(name).rename(tmp_path / name)
    before = written(made)
    fetch(made, mirror=folder)
    assert written(made) == before  # with its commit, which this mirror does not tell
    assert download.differences(made) == []
    for name in made.sources:
        assert all(p.is_symlink() for p in made.paths.fetched(name).rglob("*") if p.is_file())


def as_mirror(fake, folder):
    """What the servers hold, as a folder."""
    files = {f"{MODEL}/{name}": content for name, content in FILES.items()}
    files |= {f"datasets/{DATASET}/data/test-0.parquet": WEIGHTS[:5000]}
    files |= {f"kaggle/datasets/{KAGGLE}/versions/193/snapshot.json": JSON}
    files |= {"web/127.0.0.1/web/ratings.csv": CSV}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


PLACES = {
    "base": f"{MODEL}/model.safetensors",
    "scores": f"datasets/{DATASET}/data/test-0.parquet",
    "snapshot": f"kaggle/datasets/{KAGGLE}/versions/193/snapshot.json",
    "ratings": "web/127.0.0.1/web/ratings.csv",
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("locked", [True, False])
def test_a_file_that_is_missing_in_a_mirror_is_named(fake, loaded, tmp_path, name, locked):
    folder = as_mirror(fake, tmp_path / "mirror")
    made = loaded(**{name: everything(fake)[name]})
    if locked:
        fetch(made)
        made.paths.fetched(name).rename(tmp_path / "away")
    (folder / PLACES[name]).unlink()
    message = refused(made, mirror=folder)
    pattern = "'*.safetensors'" if name == "base" else "no file"
    by_pattern = pattern in message and not locked
    assert by_pattern or f"{folder / PLACES[name]} is missing in the mirror" in message
    assert not made.paths.fetched(name).exists()


@pytest.mark.parametrize("name", PLACES)
def test_a_file_that_was_replaced_in_a_mirror_is_named(fake, loaded, tmp_path, name):
    folder = as_mirror(fake, tmp_path / "mirror")
    made = loaded(**{name: everything(fake)[name]})
    if name != "ratings":  # which the experiment itself pins
        fetch(made, mirror=folder)
        made.paths.fetched(name).rename(tmp_path / "away")
    content = (folder / PLACES[name]).read_bytes()
    (folder / PLACES[name]).write_bytes(content[:-1] + b"?")
    message = refused(made, mirror=folder)
    assert Path(PLACES[name]).name in message.split(" has SHA-256 ")[0]
    assert f"put the right file at {folder / PLACES[name]}" in message
    assert not made.paths.fetched(name).exists()


def test_a_repository_that_is_not_in_a_mirror(fake, loaded, tmp_path):
    folder = tmp_path / "mirror"
    with pytest.raises(UserError, match=r"The mirror .* is no folder"):
        fetch(loaded(base=model("config.json")), mirror=folder)
    folder.mkdir()
    for name, where in {
        "base": f"{folder}/{MODEL} and {folder}/models--owner--model",
        "scores": f"{folder}/datasets/{DATASET} and {folder}/datasets--owner--scores",
        "snapshot": f"{folder}/kaggle/datasets/{KAGGLE}/versions/193",
        "ratings": f"{folder}/web/127.0.0.1/web/ratings.csv",
    }.items():
        assert where in refused(loaded(**{name: everything(fake)[name]}), mirror=folder)
    assert fake.log == []


def test_a_mirror_without_commits_says_none(fake, loaded, tmp_path):
    made = loaded(base=model("config.json"))
    lines = fetch(made, mirror=as_mirror(fake, tmp_path / "mirror"))
    assert written(made)["base"]["commit"] is None
    assert "an unknown commit" in lines[0]
    made.paths.fetched("base").rename(tmp_path / "away")
    fetch(made)  # from the Hub: the hashes decide
    assert download.differences(made) == []


def note(folder, file, commit):
    place = folder / MODEL / ".cache" / "huggingface" / "download" / f"{file}.metadata"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f"{commit}\netag\n1.0\n")


def test_commits_of_a_mirror(fake, loaded, tmp_path):
    folder = as_mirror(fake, tmp_path / "mirror")
    made = loaded(base=model("config.json", "README.md"))
    note(folder, "config.json", NEW)
    note(folder, "README.md", OLD)
    note(folder, "model.safetensors", "c" * 40)  # not asked for
    assert "are of different commits (aaaaaaa, bbbbbbb)" in refused(made, mirror=folder)
    note(folder, "README.md", NEW)
    other = loaded(base=model("config.json", revision=OLD))
    assert "is at commit bbbbbbb, the experiment asks for aaaaaaa" in refused(other, mirror=folder)
    fetch(made, mirror=folder)
    assert written(made)["base"]["commit"] == NEW


def test_a_cache_of_huggingface_hub_is_a_mirror(fake, loaded, tmp_path):
    made = loaded(base=model("*.json"), scores=dataset("*"))
    fetch(made)
    before = written(made)
    cache = Path(hf.HF_HUB_CACHE).rename(tmp_path / "mirror")
    for name in made.sources:
        made.paths.fetched(name).rename(tmp_path / name)
    fake.log.clear()
    fetch(made, mirror=cache)  # by the commit of the lock
    for name in made.sources:
        made.paths.fetched(name).rename(tmp_path / f"{name}-again")
    made.paths.lockfile.unlink()
    (cache / "models--owner--model" / "refs").mkdir(exist_ok=True)
    (cache / "models--owner--model" / "refs" / "main").write_text(NEW)
    (cache / "datasets--owner--scores" / "refs").mkdir(exist_ok=True)
    (cache / "datasets--owner--scores" / "refs" / "main").write_text(NEW)
    fetch(made, mirror=cache)  # by what its branch was
    assert written(made) == before
    assert fake.log == []
    gone = loaded(base=model("*.json", revision=OLD))
    assert f"snapshots/{OLD}" in refused(gone, mirror=cache, update=True)


def test_a_clone_without_large_files_is_no_mirror(fake, loaded, tmp_path):
    folder = as_mirror(fake, tmp_path / "mirror")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (folder / MODEL / "model.safetensors").write_bytes(pointer)
    assert "git lfs pull" in refused(loaded(base=model("*.safetensors")), mirror=folder)


def test_update_takes_what_the_mirror_holds_now(fake, loaded, tmp_path):
    folder = as_mirror(fake, tmp_path / "mirror")
    made = loaded(base=model("config.json"))
    fetch(made, mirror=folder)
    (folder / MODEL / "config.json").write_bytes(b"[]\n")
    assert "config.json has SHA-256" in refused(made, mirror=folder)
    fetch(made, mirror=folder, update=True)
    assert written(made)["base"]["files"]["config.json"]["sha256"] == (
        hashlib.sha256(b"[]\n").hexdigest()
    )


def test_the_lock_is_kept_source_by_source(fake, loaded, tmp_path):
    folder = as_mirror(fake, tmp_path / "mirror")
    made = loaded(**everything(fake))
    (folder / PLACES["snapshot"]).unlink()
    refused(made, mirror=folder)
    assert list(written(made)) == ["base", "scores"]
    assert download.missing(made, made.sources) == ["snapshot", "ratings"]


def test_the_released_datasets_share_the_lock(fake, tmp_path):
    pins = {"revision": "main", "files": ["data/*.parquet"]}
    changes = {"fetch": {"base": model("config.json")}, "base.model": MODEL}
    made = experiment.load("demo", changes)
    both = experiment.load("demo", changes | {"released_datasets": pins})
    for source in both.compared.values():
        files = {"data/train-0.parquet": source.id.encode()}
        fake.repositories["dataset", source.id] = Repository({NEW: files})
    fetch(made)
    download.fetch(both, both.compared, report=str)
    assert list(written(both)) == ["base", *both.compared]
    assert download.missing(both, both.compared) == download.differences(both) == []
    both.paths.fetched("s3").rename(tmp_path / "away")
    assert download.missing(both, both.compared) == ["s3"]
    assert download.differences(both) == []  # they need not be here
