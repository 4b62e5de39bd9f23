"""A complete fake run of smoke, and a copy of it for each test."""

import os
import shutil
from pathlib import Path

import fakes
import pytest
from smoke_results import SMOKE, run_all


@pytest.fixture(scope="module")
def faked():
    """The real runner, in which every stage writes fakes."""
    environment = dict(os.environ)
    with pytest.MonkeyPatch.context() as patch:
        fakes.install(patch)
        yield patch
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture(scope="module")
def complete(faked, tmp_path_factory) -> Path:
    """The output folder of a complete run of smoke."""
    folder = tmp_path_factory.mktemp("complete")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEYNTUNE_OUTPUT", str(folder))
        run_all(SMOKE)
    return folder


@pytest.fixture
def output(complete, tmp_path, monkeypatch) -> Path:
    """A copy of the complete run for one test, with the times of its files."""
    folder = tmp_path / "output"
    shutil.copytree(complete, folder)
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(folder))
    return folder
