"""For ``pytest --nbval-lax notebooks/``: without results, one line says which command makes them.

The alternative is a ``NameError`` from every cell below the one that says so.
"""

from __future__ import annotations

from typing import Any

import pytest

from feyntune.errors import UserError
from feyntune.experiment import load
from feyntune.paths import NOTEBOOKS
from feyntune.runs import code, recording, stages
from feyntune.runs.freshness import Freshness

# Executed copies are for reading.
collect_ignore = ["executed"]
_left_out: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    tested = config.getoption("nbval", False) or config.getoption("nbval_lax", False)
    if not tested or hasattr(config, "workerinput"):  # the first of several processes says it
        return
    try:
        for stage in stages.STAGES.values():
            if stage.maker is None:
                given = _parameters(stage.name)
                settings = load.load(given["experiment"])
                subject = None if stage.per == "experiment" else given[stage.per]
                of = stages.run(settings, stage.name, subject)
                recording.check_inputs(Freshness(of.experiment), of)
    except UserError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_ignore_collect(collection_path) -> bool | None:
    """Leave `explore` out where its experiment, which is another than the others', was not run."""
    if collection_path != NOTEBOOKS / "explore.ipynb":
        return None
    settings = load.load(_parameters("explore")["experiment"])
    freshness = Freshness(settings)
    if all(freshness.fresh(each) for each in stages.every(settings, stages.PERPLEXITY)):
        return None
    _left_out.append(f"./run_all.sh --experiment {settings.name}")
    return True


def pytest_terminal_summary(terminalreporter) -> None:
    for command in _left_out:
        terminalreporter.write_line(f"explore.ipynb was left out: run {command} first.")


def _parameters(notebook: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    exec(code.tagged_cell(NOTEBOOKS / f"{notebook}.ipynb", "parameters"), found)
    return found
