"""Servers on loopback in place of the Hub, Kaggle and the web, and experiments that need them."""

import os
import re

import fake_hub
import huggingface_hub.constants as hf
import mirror
import pytest
from fake_hub import Repository
from fetching import CARDS, CSV, DATASET, FILES, JSON, KAGGLE, MODEL, NAMED_BY, NEW, OLD, WEIGHTS
from huggingface_hub.utils import _http as hf_http
from kagglehub import clients as kaggle_clients
from kagglesdk.kaggle_env import KaggleEnv, _env_to_endpoint

from feyntune.data.fetch import origins
from feyntune.experiment import load as experiment


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
        return experiment.with_settings("demo", {"fetch": sources, **named})

    return load


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mirror")
    said = {variant: datasets for variant, (datasets, _) in CARDS.items()}
    return mirror.build(folder, abstracts=5, cards=said)


@pytest.fixture
def published(built, fake):
    return experiment.with_settings("published", built.overrides)
