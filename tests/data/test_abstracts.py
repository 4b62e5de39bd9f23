"""Abstracts on disk, and work on them in several processes."""

import math
import os
import time

import joblib
import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from snapshots import FIELDS

from feyntune.data import selection
from feyntune.data.abstracts import in_parallel
from feyntune.errors import UserError


def test_same_rows_give_the_same_bytes(synthetic, tmp_path):
    written = []
    for number in range(2):
        abstracts, _ = selection.select(
            synthetic, tmp_path / "scratch", fields=FIELDS, excluded_ids=[], bad_lines_allowed=0.0
        )
        path = tmp_path / f"{number}.parquet"
        abstracts.write(np.arange(len(abstracts))[::-1], path)
        written.append(path.read_bytes())
    assert written[0] == written[1]
    frame = pd.read_parquet(path)
    assert list(frame) == ["id", "title", "categories", "primary", "year", "abstract"]
    assert frame["id"].tolist() == abstracts.facts["id"].to_pylist()[::-1]
    assert frame["year"].dtype == "int64"
    assert Dataset.from_parquet(str(path), cache_dir=str(tmp_path))["id"][:] == frame["id"].tolist()


@pytest.mark.parametrize("number", [0, 1, 2, 50])
def test_results_come_in_the_order_of_the_tasks(monkeypatch, number):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    assert list(in_parallel(math.factorial, range(number))) == [
        math.factorial(n) for n in range(number)
    ]


def test_tasks_are_taken_only_a_few_ahead(monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    taken = []

    def naps():
        for number in range(50):
            taken.append(number)
            yield 0.01

    ahead = [len(taken) - done for done, _ in enumerate(in_parallel(time.sleep, naps()))]
    assert len(ahead) == 50 and max(ahead) <= 10


def test_an_error_in_another_process_is_raised_here(monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    with pytest.raises(ValueError, match="negative"):
        list(in_parallel(math.factorial, [1, 2, -1, 3]))
    with pytest.raises(UserError, match="was killed, most likely because memory ran out"):
        list(in_parallel(os._exit, [1, 1]))
    assert list(in_parallel(abs, [-1, -2])) == [1, 2], "the next call has new processes"
