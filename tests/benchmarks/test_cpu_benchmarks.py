"""The benchmarks of perplexity, completions and bootstrap, small: that they run and would notice.

The process that measures a row is replaced by a call in this one, with the row's own command line:
a minute of imports less.
"""

import importlib
import io
import json
import os
import sys
from contextlib import redirect_stdout
from subprocess import CompletedProcess
from types import SimpleNamespace

import pytest

from feyntune.paths import REPOSITORY

PROMPTS = ["We study", "The", "Black holes have been", "In this paper we show", "It is known"]


@pytest.fixture
def benchmark(monkeypatch):
    """Import a benchmark by name; its rows run in this process."""
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    monkeypatch.setattr(os, "environ", os.environ.copy())

    def load(name: str):
        module = importlib.import_module(name)

        def run(command, **_):
            with redirect_stdout(io.StringIO()) as out:
                main(module, *command[2:])
            return CompletedProcess(command, 0, out.getvalue(), "")

        monkeypatch.setattr(module, "subprocess", SimpleNamespace(run=run))
        return module

    def main(module, *arguments) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [module.__file__, *map(str, arguments)])
            module.main()

    load.main = main
    return load


def test_perplexity(benchmark, capsys):
    """With the packages of this environment; those of others are measured where installed."""
    rows = ["reference", "ours", "released"]
    benchmark.main(benchmark("perplexity"), "--tiny", "--rows", *rows)
    tables = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(tables) == 2 * (1 + len(rows))
    assert all(line.count("|") == 9 for line in tables)


def test_completions(benchmark, stand_in, tmp_path):
    script = benchmark("generation")
    script.prepare(tmp_path, None, stand_in.experiment.paths.base)
    (tmp_path / "prompts.json").write_text(json.dumps(PROMPTS))
    found = script.best(tmp_path, longest=6, rounds=2)
    lines = script.table(found)
    assert len(lines) == 2 + len(script.ROWS) + 2
    assert all(line.count("|") == 9 for line in lines[:-2])
    assert lines[-1].endswith("5 of 5 are equal.")
    for result in found.values():
        assert all(1 <= len(ids) <= 6 for ids in result["completions"])
    found["reference"]["completions"] = [[1]] * 5
    with pytest.raises(SystemExit, match="Only 0 of 5"):
        script.table(found)


# --- the bootstrap ------------------------------------------------------------------------------


@pytest.fixture
def bootstrap(benchmark):
    return benchmark("bootstrap")


def test_bootstrap(benchmark, bootstrap, capsys):
    benchmark.main(bootstrap, "--quick")
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith("| ")][1:]
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
