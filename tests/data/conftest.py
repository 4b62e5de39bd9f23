"""Snapshots of hand-made records, and a synthetic one."""

import json
from pathlib import Path

import pytest

from feyntune.data.stand_in import corpus


@pytest.fixture
def file(tmp_path):
    """Write a snapshot of the given lines: records, or bytes as they are."""

    def write(*lines: dict | bytes) -> Path:
        path = tmp_path / "snapshot.json"
        raw = [x if isinstance(x, bytes) else json.dumps(x).encode() + b"\n" for x in lines]
        path.write_bytes(b"".join(raw))
        return path

    return write


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    path = folder / "snapshot.json"
    corpus.write(path, folder / "likelihood.parquet", records=1500, seed=7)
    return path
