"""Results in a folder of the test's own, and waits that no test needs cut short."""

import openai
import pytest
from commercial_runs import KEY, VARIABLE

from feyntune.evaluation.commercial import asking


@pytest.fixture
def output(tmp_path, monkeypatch):
    """Results in a folder of the test's own; waits that no test needs are short."""
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path))
    monkeypatch.setenv(VARIABLE, KEY)
    monkeypatch.setattr(asking, "BACK_OFF", 0.01)
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.01)
    return tmp_path
