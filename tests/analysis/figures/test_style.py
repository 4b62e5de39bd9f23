"""What all figures have in common: the label, nothing cut off, the same bytes on every run."""

import os
import subprocess
import sys
from pathlib import Path

import drawn_figures
import pytest
from drawn_figures import LABEL, MIXED, colliding, of, texts

from feyntune.analysis.figures import style
from feyntune.paths import REPOSITORY

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def figures() -> dict:
    return drawn_figures.all_figures()


@pytest.fixture(scope="module", params=["the paper's", "mixed", "one"])
def any_figures(request, figures) -> list:
    """Of the paper's models, of three flavours and a user's names, of one variant."""
    models = {"mixed": MIXED, "one": of(["s2-LoRA-QKV"])}.get(request.param)
    return list((drawn_figures.all_figures(models=models) if models else figures).values())


def test_label_is_part_of_every_figure_and_only_of_stand_ins(figures):
    assert all(figure.get_suptitle() == LABEL for figure in figures.values())
    for figure in drawn_figures.all_figures(None).values():
        assert "stand-in" not in texts(figure)


def test_nothing_is_cut_off_or_lies_over_the_label(any_figures):
    for figure in any_figures:
        label, legends = figure._suptitle.get_window_extent(), figure.legends
        assert all(legend.get_window_extent().x1 < label.x0 for legend in legends)
        for axes in figure.axes:
            tight = axes.get_tightbbox()
            assert tight.x0 >= 0 and tight.y0 >= 0 and tight.x1 <= figure.bbox.x1 + 1
            assert tight.y1 <= label.y0


def test_no_text_lies_on_a_mark_or_another_text(any_figures):
    for figure in any_figures:
        assert [colliding(axes) for axes in figure.axes] == [[]] * len(figure.axes)


def test_panels_are_lettered_where_there_are_several(any_figures):
    for figure in any_figures:
        titles = [axes.get_title(loc="left") for axes in figure.axes]
        lettered = [title for title in titles if title[:1] == "("]
        assert [title[:3] for title in lettered] == ["(a)", "(b)", "(c)", "(d)"][: len(lettered)]
        # Below the curves by year stands a panel that belongs to them.
        assert len(figure.axes) == 1 or len(lettered) >= len(figure.axes) - 1


def test_saved_bytes_do_not_change(tmp_path, figures):
    for name, figure in figures.items():
        style.save(figure, tmp_path / "first" / name)
    # Shown before, in another process, with other string hashes and another user's taste.
    script = (
        "import matplotlib; from pathlib import Path\n"
        "matplotlib.rcParams['font.size'] = 20\n"
        "from drawn_figures import all_figures; from feyntune.analysis.figures.style import save\n"
        "for name, figure in all_figures().items():\n"
        "    figure._repr_png_()\n"
        f"    save(figure, Path({str(tmp_path)!r}) / 'second' / name)\n"
    )
    found = os.pathsep.join([str(REPOSITORY), str(Path(drawn_figures.__file__).parent)])
    environment = os.environ | {"PYTHONHASHSEED": "123", "PYTHONPATH": found}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    written = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert written == [f"{name}.{ending}" for name in figures for ending in ("pdf", "png")]
    for name in written:
        first = (tmp_path / "first" / name).read_bytes()
        assert first == (tmp_path / "second" / name).read_bytes(), name
        assert b"CreationDate" not in first


def test_jupyter_shows_a_picture_without_pyplot(figures):
    assert figures["fig-3.1"]._repr_png_().startswith(PNG)
