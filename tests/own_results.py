"""A pytest plugin for notebooks: each process of ``-n`` has results of its own.

A notebook writes its results anew, and one that reads them may not run beside it.
"""

import os
import shutil
from pathlib import Path


def pytest_configure() -> None:
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        given = Path(os.environ["FEYNTUNE_OUTPUT"])
        others = shutil.ignore_patterns("copies", ".snakemake")
        copy = shutil.copytree(given, given / "copies" / worker, symlinks=True, ignore=others)
        os.environ["FEYNTUNE_OUTPUT"] = str(copy)
