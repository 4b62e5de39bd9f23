"""Committed figures and tables hold what a second run would give again: no time, date, machine."""

import csv
import platform
import re
import subprocess

import pytest

from feyntune.paths import REPOSITORY

# Of a table's columns, of a picture's and a page's metadata.
TIMED = re.compile("second|minute|hour|duration|tokens_per|peak|date|started|host|machine")
DATES = re.compile(
    rb"/(?:CreationDate|ModDate|Author)|(?:tIME|eXIf)|Creation Time|xmp:|20\d\d-\d\d-\d\dT\d\d:"
)


def tracked() -> list:
    command = ["git", "ls-files", "-z", "figures", "tables"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    files = [REPOSITORY / name for name in listed.stdout.split("\0") if name]
    files = [path for path in files if path.is_file()]
    if not files:
        pytest.skip("this is no git checkout")
    return files


def test_no_table_of_times_is_committed():
    tables = [path for path in tracked() if path.suffix == ".csv"]
    assert tables
    for path in tables:
        with path.open(encoding="utf-8", newline="") as file:
            columns = next(csv.reader(file))
        assert not list(filter(TIMED.search, columns)), path


def test_no_file_holds_a_date_or_a_machine():
    here = [name.encode() for name in (platform.node(), str(REPOSITORY)) if len(name) > 4]
    for path in tracked():
        content = path.read_bytes()
        assert not DATES.search(content), path
        assert not [name for name in here if name in content], path
