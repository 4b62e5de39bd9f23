"""The benchmark of the bootstrap, small: that it runs, and that it would notice other intervals."""

import os
import subprocess
import sys

import pytest

from feyntune.paths import REPOSITORY

FOLDER = REPOSITORY / "benchmarks"


@pytest.fixture
def bootstrap(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import bootstrap

    return bootstrap


def test_the_benchmark_runs():
    done = subprocess.run(
        [sys.executable, FOLDER / "bootstrap.py", "--quick"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert [row[1] for row in rows] == ["21", "51", "51", "21", "51"]
    # The default call was timed once, and said so.
    assert ["for 1:" in row[2] for row in rows] == [False, False, False, True, False]
    for row in rows:
        assert float(row[-1].rstrip(" |")) <= 1e-12


@pytest.mark.parametrize("seed", [1, 2])
def test_intervals_of_another_stream_are_noticed(bootstrap, monkeypatch, seed):
    values = bootstrap.scores(60)
    expected = bootstrap.scipy(values, 99)()
    monkeypatch.setattr(bootstrap, "SEED", seed)
    off = bootstrap.largest_difference(bootstrap.ours(values, 99)(), expected)
    assert (off <= bootstrap.TOLERANCE) == (seed == 1)


def test_every_comparison_is_among_the_intervals(bootstrap):
    """Twenty variants beside base and ten pairs of flavours, as the tables have them."""
    values = bootstrap.scores(40)
    found = bootstrap.ours_with_differences(values, 99)()
    tested = bootstrap.ours_with_tests(values, 99)()
    assert len(found) == 51 and set(found) == set(tested)
    assert all(found[name] == pytest.approx(tested[name], rel=1e-12) for name in found)


def test_rows_without_a_common_interval_are_an_error(bootstrap):
    with pytest.raises(SystemExit, match="no interval in common"):
        bootstrap.largest_difference({"a": [0.0, 1.0]}, {"b": [0.0, 1.0]})
