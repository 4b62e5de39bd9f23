"""One tiny stand-in for all tests that need a model, made once in a session."""

import gc
import os
import shutil

import pytest
from filelock import FileLock


def pytest_collection_finish() -> None:
    """What was imported stays: every training ends with a search of all objects for cycles."""
    gc.freeze()


@pytest.fixture(scope="session")
def made_stand_in(tmp_path_factory):
    import tiny  # torch and TRL take seconds that other tests do not need

    output = tmp_path_factory.mktemp("stand-in")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEYNTUNE_OUTPUT", str(output))
        if "PYTEST_XDIST_WORKER" not in os.environ:
            return tiny.make(output)
        # The first process makes it, each other takes a copy, as tests may write to their own.
        first = tmp_path_factory.getbasetemp().parent / "stand-in"
        with FileLock(f"{first}.lock"):
            if not first.exists():
                tiny.make(output)
                shutil.copytree(output, first)
        shutil.copytree(first, output, dirs_exist_ok=True)
        return tiny.load(output)


@pytest.fixture(scope="module")
def stand_in(made_stand_in):
    """The shared stand-in, with its output folder in force for the modules that ask for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEYNTUNE_OUTPUT", str(made_stand_in.output))
        yield made_stand_in
