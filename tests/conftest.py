"""One tiny stand-in for all tests that need a model, made once in a session."""

import gc

import pytest


def pytest_collection_finish() -> None:
    """What was imported stays: every training ends with a search of all objects for cycles."""
    gc.freeze()


@pytest.fixture(scope="session")
def made_stand_in(tmp_path_factory):
    import tiny  # torch and TRL take seconds that other tests do not need

    output = tmp_path_factory.mktemp("stand-in")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEYNTUNE_OUTPUT", str(output))
        return tiny.make(output)


@pytest.fixture(scope="module")
def stand_in(made_stand_in):
    """The shared stand-in, with its output folder in force for the modules that ask for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEYNTUNE_OUTPUT", str(made_stand_in.output))
        yield made_stand_in
