"""What all figures have in common: the label, nothing cut off, the same bytes on every run."""

import os
import subprocess
import sys
from pathlib import Path

import drawn_figures
import pytest
from drawn_figures import LABEL, texts

from feyntune.analysis.figures import style
from feyntune.paths import REPOSITORY

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def figures() -> dict:
    return drawn_figures.all_figures()


def test_label_is_part_of_every_figure_and_only_of_stand_ins(figures):
    assert all(figure.get_suptitle() == LABEL for figure in figures.values())
    for figure in drawn_figures.all_figures(None).values():
        assert "stand-in" not in texts(figure)


def test_nothing_is_cut_off_or_lies_over_the_label(figures):
    for figure in figures.values():
        label, legends = figure._suptitle.get_window_extent(), figure.legends
        assert all(legend.get_window_extent().x1 < label.x0 for legend in legends)
        for axes in figure.axes:
            tight = axes.get_tightbbox()
            assert tight.x0 >= 0 and tight.y0 >= 0 and tight.x1 <= figure.bbox.x1 + 1
            assert tight.y1 <= label.y0


def test_saved_bytes_do_not_change(tmp_path, figures):
    for round_ in ("first", "second"):
        for name, figure in figures.items():
            style.save(figure, tmp_path / round_ / name)
    # Another process, with other string hashes and another user's taste.
    script = (
        "import matplotlib; from pathlib import Path\n"
        "matplotlib.rcParams['font.size'] = 20\n"
        "from drawn_figures import all_figures; from feyntune.analysis.figures.style import save\n"
        f"[save(f, Path({str(tmp_path)!r}) / 'third' / n) for n, f in all_figures().items()]"
    )
    found = os.pathsep.join([str(REPOSITORY), str(Path(drawn_figures.__file__).parent)])
    environment = os.environ | {"PYTHONHASHSEED": "123", "PYTHONPATH": found}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    written = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert written == [f"{name}.{ending}" for name in figures for ending in ("pdf", "png")]
    for name in written:
        first = (tmp_path / "first" / name).read_bytes()
        assert first == (tmp_path / "second" / name).read_bytes(), name
        assert first == (tmp_path / "third" / name).read_bytes(), name
        assert b"CreationDate" not in first


def test_jupyter_shows_a_picture_without_pyplot(figures):
    assert figures["fig-3.1"]._repr_png_().startswith(PNG)
