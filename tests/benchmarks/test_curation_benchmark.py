"""The benchmark of curation runs on a tiny file."""

import os
import subprocess
import sys

from feyntune.paths import REPOSITORY


def test_the_benchmark_runs(tmp_path):
    """With the packages of this environment; those of others are measured where installed."""
    rows = ["scan", "ours", "datasets", "gz", "zip", "zst", "released", "hf"]
    script = REPOSITORY / "benchmarks" / "curation.py"
    command = [sys.executable, script, "--tiny", "--folder", tmp_path, "--rows", *rows]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}
    )
    assert done.returncode == 0, done.stderr
    table = done.stdout.strip().split("\n\n")[-1].splitlines()
    assert len(table) == 2 + len(rows)
    assert all(line.count("|") == 5 for line in table)
    assert list(tmp_path.iterdir()) == []
