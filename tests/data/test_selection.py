"""Selecting abstracts: the rule, the count of every line, and several processes."""

import json
import re
import subprocess
import sys
from collections import Counter

import joblib
import psutil
import pytest
from snapshots import FIELDS, assert_adds_up, paper, select

from feyntune.data import selection, snapshot
from feyntune.errors import UserError
from feyntune.experiment import load


def field_of_line(record: dict) -> str | None:
    line = json.dumps(record).encode()
    ((_, primary, _),) = snapshot.parse([line], snapshot.Reading(), from_start=True)
    return selection.FieldOf(FIELDS)[primary]


@pytest.mark.parametrize(
    ("categories", "field"),
    [
        ("hep-th", "hep-th"),
        ("hep-th gr-qc", "hep-th"),
        ("gr-qc hep-th", "gr-qc"),
        ("hep-ph", "hep-ph"),
        ("q-bio.NC cs.LG", "q-bio"),
        ("cs.LG stat.ML", "cs"),
        # `physics.` ends in `cs.`; the released notebook had to mend that.
        ("physics.optics", None),
        ("physics.hist-ph hep-th", None),
        ("math.CS", None),
        ("hep-lat hep-th", None),
        ("hep-ex", None),
        ("astro-ph.CO gr-qc", None),
        ("hep-theory", None),
    ],
)
def test_primary_category_decides(categories, field):
    assert field_of_line(paper("1", categories)) == field


def test_selection_by_hand(file):
    lines = [
        paper("hep-th/9201001", "hep-th gr-qc", "  Two\n  lines.\n"),
        paper("0704.0001", "physics.optics"),
        paper("0704.0002", "hep-ph hep-th", title="A\n  title"),
        paper("1404.0016", "hep-th"),
        paper("0704.0003", "hep-th", comments="withdrawn"),
        paper("0704.0004", "hep-th", " \n "),
        paper("0704.0005", "hep-th", "Last."),
        paper("0704.0006", "cs.CL"),
        paper("0704.0007", "q-bio.QM", comments="Withdrawn", abstract="   "),
    ]
    rows, counts = select(file(*lines), excluded_ids=["1404.0016", "1802.05268"])
    assert rows["hep-th"] == [
        {
            "id": "hep-th/9201001",
            "title": "Title of hep-th/9201001",
            "categories": "hep-th gr-qc",
            "primary": "hep-th",
            "year": 2007,
            "abstract": "Two lines.",
        },
        {
            "id": "0704.0005",
            "title": "Title of 0704.0005",
            "categories": "hep-th",
            "primary": "hep-th",
            "year": 2007,
            "abstract": "Last.",
        },
    ]
    assert [row["title"] for row in rows["hep-ph"]] == ["A title"]
    assert counts == {
        "lines": 9,
        "bad_lines": 0,
        "bad_line_examples": [],
        "excluded_ids": ["1404.0016"],
        "other_categories": 1,
        "unknown_categories": {},
        "duplicate_examples": [],
        "fields": {
            "hep-th": {"selected": 4, "withdrawn": 1, "empty": 1, "duplicate": 0, "kept": 2},
            "hep-ph": {"selected": 1, "withdrawn": 0, "empty": 0, "duplicate": 0, "kept": 1},
            "gr-qc": {"selected": 0, "withdrawn": 0, "empty": 0, "duplicate": 0, "kept": 0},
            "q-bio": {"selected": 1, "withdrawn": 1, "empty": 0, "duplicate": 0, "kept": 0},
            "cs": {"selected": 1, "withdrawn": 0, "empty": 0, "duplicate": 0, "kept": 1},
        },
    }
    assert_adds_up(rows, counts)


def test_synthetic_snapshot_against_a_plain_reading(synthetic):
    """The same selection, spelled out on the whole file in memory."""
    papers = [json.loads(line) for line in synthetic.read_text().splitlines()]
    excluded = [papers[3]["id"], papers[700]["id"], "no such id"]
    rows, counts = select(synthetic, excluded)
    assert counts["lines"] == len(papers) == 1500
    assert counts["excluded_ids"] == sorted(excluded[:2])
    assert_adds_up(rows, counts)

    starts = {
        "hep-th": "hep-th",
        "hep-ph": "hep-ph",
        "gr-qc": "gr-qc",
        "q-bio": "q-bio.",
        "cs": "cs.",
    }
    for field, start in starts.items():
        mine = [p for p in papers if p["categories"].startswith(start) and p["id"] not in excluded]
        gone = [
            p
            for p in mine
            if "withdrawn" in (p["comments"] or "").lower()
            or re.search("[Ww]ithdrawn", p["abstract"])
        ]
        assert counts["fields"][field]["withdrawn"] == len(gone)
        kept = [p for p in mine if p not in gone]
        assert [r["id"] for r in rows[field]] == [p["id"] for p in kept], "in the file's order"
        expected = [re.sub(r"\n\s*", " ", p["abstract"]).strip() for p in kept]
        assert [r["abstract"] for r in rows[field]] == expected
    assert sum(counts["fields"][f]["withdrawn"] for f in FIELDS) > 0, "else nothing was tested"
    archives = Counter(p["categories"].split(".")[0] for p in papers)
    assert archives["physics"] > 0, "else the trap was not set"


def test_excluded_ids_are_counted_each_time(file):
    path = file(paper("1404.0016"), paper("1404.0016"), paper("2"))
    rows, counts = select(path, excluded_ids=["1404.0016"])
    assert counts["excluded_ids"] == ["1404.0016", "1404.0016"]
    assert_adds_up(rows, counts)


def test_of_several_papers_with_one_id_the_first_is_kept(file):
    lines = [
        paper("1", abstract="First."),
        paper("2", "cs.CL"),
        paper("1", abstract="Second."),
        paper("1", "cs.CL", abstract="Third."),  # of another field
        paper("3", "math.AG"),
        paper("3"),  # its first one was not selected
        paper("4", comments="withdrawn"),
        paper("4"),  # nor was this one's kept
        paper("2", "cs.LG"),
    ]
    rows, counts = select(file(*lines))
    assert [(row["id"], row["abstract"]) for row in rows["hep-th"]] == [
        ("1", "First."),
        ("3", "We study."),
        ("4", "We study."),
    ]
    assert [row["primary"] for row in rows["cs"]] == ["cs.CL"]
    assert counts["fields"]["hep-th"]["duplicate"] == 1
    assert counts["fields"]["cs"]["duplicate"] == 2
    assert counts["duplicate_examples"] == ["1", "1", "2"]
    assert_adds_up(rows, counts)


def test_ten_duplicates_are_named(file):
    counts = select(file(*(paper(str(i % 20)) for i in range(60))))[1]
    assert counts["fields"]["hep-th"]["duplicate"] == 40
    assert counts["duplicate_examples"] == [str(i) for i in range(10)]


def test_categories_of_no_archive_are_counted_by_name(file):
    known = ["acc-phys", "supr-con", "cmp-lg", "math.CS", "q-bio", "physics.optics", "astro-ph"]
    strange = ["hep-theory", "cs", "unknown.XX", "unknown.XX", "HEP-TH", "csCL", "hepth.x"]
    lines = [paper(f"{i}", name) for i, name in enumerate([*known, *strange, "hep-th"])]
    rows, counts = select(file(*lines))
    assert counts["unknown_categories"] == {
        "HEP-TH": 1, "csCL": 1, "hep-theory": 1, "hepth.x": 1, "unknown.XX": 2,
    }  # fmt: skip
    assert counts["other_categories"] == len(known) + len(strange)
    assert_adds_up(rows, counts)


def test_abstracts_without_text_are_counted(file):
    rows, counts = select(file(paper("1", abstract=""), paper("2", abstract=" \n\t"), paper("3")))
    assert counts["fields"]["hep-th"]["empty"] == 2
    assert_adds_up(rows, counts)


@pytest.fixture
def two_processes(monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)


def test_result_does_not_depend_on_blocks_and_processes(synthetic, monkeypatch, two_processes):
    processes, parallel = [], joblib.Parallel
    monkeypatch.setattr(
        joblib,
        "Parallel",
        lambda number, **more: processes.append(number) or parallel(number, **more),
    )
    expected = select(synthetic)
    assert processes == [1], "a small file is read in this process"
    monkeypatch.setattr(snapshot, "BLOCK", 200_000)
    assert len(list(snapshot.blocks(synthetic))) > 5
    assert select(synthetic) == expected
    assert processes == [1, 2]


def test_bad_lines_are_numbered_through_all_blocks(file, monkeypatch, two_processes):
    monkeypatch.setattr(snapshot, "BLOCK", 5000)
    lines = [paper(str(i)) for i in range(400)]
    for number in (1, 99, 250, 400):
        lines[number - 1] = b"{\n"
    path = file(*lines)
    assert len(list(snapshot.blocks(path))) > 5
    rows, counts = select(path, bad_lines_allowed=0.5)
    assert [number for number, _ in counts["bad_line_examples"]] == [1, 99, 250, 400]
    assert_adds_up(rows, counts)


def test_a_killed_run_leaves_what_the_next_one_removes(synthetic, tmp_path):
    """And no process."""
    script = (
        "import sys, time; from pathlib import Path\n"
        "import joblib; from feyntune.data import selection, snapshot\n"
        "snapshot.BLOCK = 20_000; joblib.cpu_count = lambda: 2\n"
        "def slow(*a, calls=[]):\n"
        "    calls.append(a)\n"
        "    if len(calls) == 2: print('going', flush=True); time.sleep(60)\n"
        "selection.Selection.add = slow\n"
        "file, scratch = map(Path, sys.argv[1:])\n"
        "selection.select(file, scratch, fields={'hep-th': ['hep-th']}, "
        "excluded_ids=[], bad_lines_allowed=0)"
    )
    scratch = tmp_path / "data" / ".partial-abstracts"
    command = [sys.executable, "-c", script, str(synthetic), str(scratch)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"going\n"
        others = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    assert len(others) >= 2
    assert psutil.wait_procs(others, timeout=20)[1] == []
    assert scratch.exists()
    selection.select(synthetic, scratch, fields=FIELDS, excluded_ids=[], bad_lines_allowed=0.0)
    assert not scratch.exists()


# --- counts of a known snapshot ---------------------------------------------------------------

COUNTS = {"lines": 2_542_615, "fields": {"hep-th": {"selected": 105_617, "kept": 105_384}}}


def test_the_claimed_version_of_a_snapshot_must_have_its_counts():
    settings = load.load("paper")
    assert selection.check_counts(settings, COUNTS) == []
    other = {**COUNTS, "lines": 2_542_616}
    with pytest.raises(UserError, match=r"2,542,616, expected 2,542,615") as caught:
        selection.check_counts(settings, other)
    assert "version 193" in str(caught.value)
    assert "hep-th" not in str(caught.value), "what agrees is not listed"


def test_another_snapshot_is_told_what_differs_and_goes_on():
    given = load.with_settings("paper", {"data.snapshot": "/data/arxiv.json"})
    newer = load.with_settings("paper", {"fetch.snapshot.version": 240})
    for settings in (given, newer):
        differ = selection.check_counts(settings, {**COUNTS, "lines": 3_000_000})
        assert len(differ) == 1 and "3,000,000" in differ[0]


def test_experiments_without_claims_have_nothing_to_hold(monkeypatch, tmp_path):
    monkeypatch.setattr(selection, "expectations", lambda name: tmp_path / name)
    assert selection.check_counts(load.load("smoke"), {"lines": 3}) == []


def test_an_experiment_that_extends_the_paper_is_held_to_its_counts():
    # `published` extends `paper`, and has no claims about a snapshot of its own.
    differ = selection.check_counts(
        load.with_settings("published", {"data.snapshot": "/data/x.json"}), {"lines": 3}
    )
    assert any("records in the snapshot" in line for line in differ)
