"""The way to the Hub, Kaggle and the web, and everything that can go wrong on it."""

import os
import time
from pathlib import Path

import huggingface_hub.constants as hf
import pytest
from fake_hub import GOOD_TOKEN, OTHER_TOKEN
from fetching import (
    CSV,
    JSON,
    KAGGLE,
    MODEL,
    NEW,
    WEIGHTS,
    dataset,
    everything,
    fetch,
    kaggle,
    model,
    refused,
    seen,
    web,
)
from kagglesdk.kaggle_env import KaggleEnv, _env_to_endpoint

from feyntune.data.fetch import download, origins


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
    for name in made.outside:
        made.paths.fetched(name).rename(tmp_path / name)
    fake.log.clear()
    monkeypatch.setattr(hf, "HF_HUB_OFFLINE", True)
    fetch(made)
    assert fake.log == []
    assert download.missing(made, made.outside) == []


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


def test_a_web_file_starts_again_after_a_break(fake, loaded):
    made = loaded(ratings=web(fake))
    fake.breaks = 1
    assert "the connection broke" in refused(made)
    folder = made.paths.fetched("ratings")
    assert list(folder.parent.iterdir()) == []
    fetch(made)
    assert seen(made, "ratings") == {"ratings.csv": CSV}
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


def test_a_web_file_that_is_not_there(fake, loaded):
    gone = web(fake, url=f"{fake.url}/web/gone.csv")
    assert f"there is no {fake.url}/web/gone.csv" in refused(loaded(ratings=gone))


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
