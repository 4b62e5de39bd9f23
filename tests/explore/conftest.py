"""A session on the tiny stand-in, with completions of a few tokens."""

import pytest


@pytest.fixture(scope="module")
def session(stand_in):
    from feyntune.explore.session import Session  # torch takes seconds that colours do not need

    settings = stand_in.experiment
    few = settings.completions.model_copy(update={"max_new_tokens": 12})
    return Session(settings.model_copy(update={"completions": few}))
