"""Committed figures and tables hold what a second run would give again: no time, date, machine.

What is of a stand-in says so, and nothing else does.
"""

import csv
import platform
import re
import subprocess
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from feyntune.analysis.figures import style
from feyntune.experiment import load
from feyntune.paths import REPOSITORY

# Of a table's columns, of a picture's and a page's metadata.
TIMED = re.compile("second|minute|hour|duration|tokens_per|peak|date|started|host|machine")
DATES = re.compile(
    rb"/(?:CreationDate|ModDate|Author)|(?:tIME|eXIf)|Creation Time|xmp:|20\d\d-\d\d-\d\dT\d\d:"
)

# What Experiment.stand_in can be, and the dots per inch of style.save.
LABELS = ("stand-in corpus", "stand-in model", "stand-in corpus and model")
DPI = 200


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


def label_of(path: Path) -> str | None:
    """What is a stand-in in the experiment that a committed file is of, from its folder."""
    name = path.parent.relative_to(REPOSITORY).parts[1]
    return load.load(name).stand_in


def shown_in_table(path: Path) -> set[str]:
    """The labels of a table: of every row, below the title, in the caption."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        return {row["label"] for row in csv.DictReader(text.splitlines(keepends=True))}
    if path.suffix == ".md":
        return set(re.findall(r"\A# .+\n\n\*\*\*(.+)\*\*\*\n", text)) or {""}
    captions = re.findall(r"\\caption\{(.*)\}\\label\{", text)
    assert len(captions) == 1, path
    return set(re.findall(r"\\textbf\{\\emph\{(.+)\}\}\.$", captions[0])) or {""}


def texts_of_pdf(content: bytes) -> list[str]:
    """The lines of text of a PDF of matplotlib's: arrays of characters and the gaps between."""
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL)
    pages = [zlib.decompress(each) for each in streams if each[:1] == b"x"]
    lines = [line for page in pages for line in re.findall(rb"\[ (\(.*?\)) \]\s+TJ", page, re.S)]
    shown = (b"".join(re.findall(rb"\((.*?)\)", line, re.DOTALL)) for line in lines)
    return [line.replace(b"\0", b"").decode("latin-1") for line in shown]


def shown_in_picture(path: Path) -> set[str]:
    """The labels that a picture shows, by the pixels of each where it would stand."""
    pixels = imread(path)[..., :3]
    return {label for label in LABELS if np.mean(np.abs(_label_less(pixels, label))) < 0.01}


def _label_less(pixels: np.ndarray, label: str) -> np.ndarray:
    """A picture where its label would stand, less the label as it is drawn there."""
    with style.styled():
        figure, _ = style.panels([""], label, height=len(pixels) / DPI)
        figure.savefig(buffer := BytesIO(), format="png", dpi=DPI)
        figure.set_dpi(DPI)
        box = figure._suptitle.get_window_extent()
    buffer.seek(0)
    drawn = imread(buffer)[..., :3]
    left, right = int(box.x0), int(box.x1)
    low, high = len(drawn) - int(box.y1), len(drawn) - int(box.y0)
    return (pixels - drawn)[low:high, left:right]


def of(*endings: str) -> list[Path]:
    found = [path for path in tracked() if path.suffix in endings]
    assert found
    return found


def test_every_table_says_what_of_it_is_a_stand_in():
    for path in of(".csv", ".md", ".tex"):
        assert shown_in_table(path) == {label_of(path) or ""}, path


def test_every_figure_says_what_of_it_is_a_stand_in():
    for path in of(".pdf"):
        labels = [each for each in texts_of_pdf(path.read_bytes()) if each.startswith("stand-in ")]
        assert labels == list(filter(None, [label_of(path)])), path


def test_every_picture_shows_what_of_it_is_a_stand_in():
    for path in of(".png"):
        assert shown_in_picture(path) == set(filter(None, [label_of(path)])), path
