"""Files of tables that scripts, Markdown and LaTeX can read, and their captions."""

import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from drawn_figures import of

from feyntune.analysis.tables import scores, setup, typesetting, writing
from feyntune.experiment.sections import Statistics

SETTINGS = Statistics(resamples=199, confidence=0.95, seed=1)
LABEL = "stand-in corpus and model"
WANTED = ["base", "s1-LoRA-all"]
ABSENT = "not run"


def test_every_table_and_figure_has_its_words():
    words = writing.captions()
    for name in words["tables"]:
        look = writing.caption(name, SETTINGS)
        assert look["title"], name
        assert not any("{" in note for note in look["notes"]), name
    assert all(set(look) == {"title", "caption"} for look in words["figures"].values())
    titles = [look["title"] for kind in words.values() for look in kind.values() if "title" in look]
    assert len(titles) == len(set(titles))
    assert writing.caption("perplexity", SETTINGS)["notes"][1] == (
        "low, high: 95% percentile bootstrap interval, 199 resamples."
    )


@pytest.fixture
def written(tmp_path):
    frame = pd.DataFrame(
        {
            "model": ["base", r"50% of a_b & $x$ \y{z} #1 ~^", "a | b <c>"],
            "bits_per_byte": [1 / 3, 1e-7, np.nan],
            "rows": pd.array([73_768, None, 3], dtype="Int64"),
        }
    )

    def write(label):
        writing.write(
            frame,
            tmp_path / "t",
            title="A & B",
            label=label,
            notes=["100% of x_y"],
            decimals={"bits_per_byte": 2},
        )
        return {end: (tmp_path / f"t.{end}").read_bytes().decode() for end in ("csv", "md", "tex")}

    return write


def test_csv_is_plain(written, tmp_path):
    lines = written(LABEL)["csv"].split("\n")
    assert lines[0] == "model,bits_per_byte,rows,label"
    assert lines[1] == f"base,0.333333,73768,{LABEL}"
    assert lines[3] == f"a | b <c>,,3,{LABEL}"
    written(None)
    assert pd.read_csv(tmp_path / "t.csv")["label"].isna().all()


def test_markdown(written):
    text = written(LABEL)["md"]
    assert text.startswith(f"# A & B\n\n***{LABEL}***\n\n| model")
    assert "bits per byte" in text and "73,768" in text and "0.33" in text
    assert "1e-07" in text  # not rounded to a zero that it is not
    assert r"a \| b \<c\>" in text
    assert text.endswith("100% of x_y\n")
    assert LABEL not in written(None)["md"]


def test_latex_is_escaped_and_labelled(written):
    text = written(LABEL)["tex"]
    escaped = (
        r"50\% of a\_b \& \$x\$ \textbackslash{}y\{z\} \#1 \textasciitilde{}\textasciicircum{}"
    )
    assert escaped in text
    assert rf"\caption{{A \& B. \textbf{{\emph{{{LABEL}}}}}.}}" in text
    assert r"\toprule" in text and r"\bottomrule" in text
    assert r"100\% of x\_y" in text
    assert LABEL not in written(None)["tex"]


def test_rewriting_changes_no_byte(written, tmp_path):
    assert written(LABEL) == written(LABEL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.csv", "t.md", "t.tex"]


def test_tables_of_nothing_can_be_written(tmp_path):
    empty = [
        scores.perplexity({}, of(WANTED), SETTINGS, absent=ABSENT),
        scores.perplexity_differences({}, of(WANTED), SETTINGS, absent=ABSENT),
        scores.semscore({}, WANTED, SETTINGS, absent=ABSENT),
        scores.pairwise_cosine({}, WANTED, absent=ABSENT),
        scores.completions({}, WANTED, absent=ABSENT, quoted=True),
        setup.compute([], [], absent=ABSENT),
    ]
    for number, table in enumerate(empty):
        writing.write(table, tmp_path / str(number), title="x", label=None)
        assert set(table["note"]) <= {"not run"}


# --- intervals, wide tables and LaTeX -----------------------------------------------------------


def drawn_up(tmp_path, frame, **about) -> dict[str, str]:
    writing.write(frame, tmp_path / "t", title="T", label=LABEL, **about)
    return {end: (tmp_path / f"t.{end}").read_text() for end in ("csv", "md", "tex")}


def measured(models: int = 3) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "model": [f"s{number}-LoRA-all" for number in range(models)],
            "mean": 40.84 + np.arange(models),
            "low": 37.21 + np.arange(models),
            "high": 44.48 + np.arange(models),
            "std": 9.876,
        }
    )


def test_an_interval_stands_beside_its_value(tmp_path):
    frame = measured()
    frame.loc[2, ["low", "high"]] = np.nan
    about = {"intervals": {"mean": ["low", "high"]}, "decimals": {"std": "mean"}}
    found = drawn_up(tmp_path, frame, **about)
    for end in ("md", "tex"):
        assert "40.8 [37.2, 44.5]" in found[end] and "[low, high]" in found[end].replace("{[}", "[")
        assert "9.9" in found[end]
        assert re.search(r"42\.8 +[|&]", found[end])  # no interval, no brackets
    assert found["csv"].splitlines()[:2] == [
        "model,mean,low,high,std,label",
        f"s0-LoRA-all,40.84,37.21,44.48,9.876,{LABEL}",
    ]


@pytest.mark.parametrize(
    ("half", "decimals"), [(25, 0), (3.6, 1), (0.36, 2), (0.036, 3), (1e-9, 6), (0, 3)]
)
def test_decimals_show_two_digits_of_half_an_interval(half, decimals):
    assert writing.digits(pd.DataFrame({"low": [-half, np.nan], "high": [half, 1]})) == decimals


def test_what_rounds_to_nothing_has_no_sign(tmp_path):
    frame = pd.DataFrame({"model": ["a"], "difference": [-0.01], "low": [-3.0], "high": [4.0]})
    found = drawn_up(tmp_path, frame, intervals={"difference": ["low", "high"]})
    assert "0.0 [-3.0, 4.0]" in found["md"] and "-0.0" not in found["md"]
    assert "0.0 [$-$3.0, 4.0]" in found["tex"]


@pytest.mark.parametrize(
    ("low", "said"), [(-0.0033, "[-0.003, 3.0]"), (0.0012, "[0.001, 3.0]"), (0.0, "[0.0, 3.0]")]
)
def test_an_interval_tells_on_which_side_of_zero_it_ends(tmp_path, low, said):
    frame = pd.DataFrame({"model": ["a"], "step": [1.5], "low": [low], "high": [3.0]})
    assert f"1.5 {said}" in drawn_up(tmp_path, frame, intervals={"step": ["low", "high"]})["md"]


def wide(models: int = 21, rows: int = 30) -> pd.DataFrame:
    """As by year: a column per model."""
    years = pd.DataFrame({"year": map(str, range(1995, 1995 + rows)), "abstracts": 12})
    columns = {f"s{number}-LoRA-QKV": 71.234 for number in range(models)}
    return years.assign(**columns)


def parts_of(markdown: str) -> list[list[str]]:
    return [block.split("\n") for block in markdown.strip().split("\n\n") if block[0] == "|"]


def test_a_wide_table_is_broken_into_parts_that_name_their_rows(tmp_path):
    tables = parts_of(drawn_up(tmp_path, wide(), keys=2)["md"])
    assert len(tables) > 1
    headings = [[cell.strip() for cell in lines[0].strip("|").split("|")] for lines in tables]
    assert all(heading[:2] == ["year", "abstracts"] for heading in headings)
    assert [name for heading in headings for name in heading[2:]] == list(wide())[2:]
    assert all(len(lines) == 32 for lines in tables)
    for lines in tables:
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[::2]]
        widths = [max(map(len, column)) + writing.GAP for column in zip(*cells, strict=True)]
        assert sum(widths) <= writing.PAGE


def test_columns_of_empty_notes_are_not_typeset(tmp_path):
    found = drawn_up(tmp_path, measured().assign(note=""))
    assert "note" in found["csv"] and "note" not in found["md"] + found["tex"]


LONG_TEXT = "We study $N=4$ & α-vacua of " + "X" * 60 + " in 10^{-3} [sic]; *this* " * 8
TEX_TABLES = {
    "narrow": (measured(), {"intervals": {"mean": ["low", "high"]}}),
    "many rows": (measured(90), {"intervals": {"mean": ["low", "high"]}}),
    "many columns": (wide(), {"keys": 2}),
    "few rows, two parts": (wide(9, 5), {"keys": 2}),
    "texts": (pd.DataFrame({"example": [1, 2], "[id]": ["*a", "[b]"], "text": LONG_TEXT}), {}),
    "two texts": (measured().assign(one=LONG_TEXT[:80], other=LONG_TEXT[:50]), {}),
    "no rows": (measured()[:0], {"intervals": {"mean": ["low", "high"]}}),
}


@pytest.fixture(params=TEX_TABLES)
def tex(request, tmp_path) -> str:
    frame, about = TEX_TABLES[request.param]
    return drawn_up(tmp_path, frame, notes=["100% of what there is, ± α."], **about)["tex"]


def test_latex_keeps_to_what_compiles(tex):
    """What compiling showed to matter, for where there is no LaTeX."""
    packages = set(re.match("% Packages: (.*)[.]\n", tex)[1].split(", "))
    needs = {"booktabs": r"\toprule", "longtable": r"{longtable}", "array": r"\raggedright"}
    assert all((mark in tex) <= (name in packages) for name, mark in needs.items())
    assert packages <= set(needs)
    size = float(re.search(r"\\fontsize{(.*?)}", tex)[1])
    assert size >= 7 and "adjustbox" not in tex and "resizebox" not in tex
    for kind in ("table", "tabular", "longtable"):
        assert tex.count(rf"\begin{{{kind}}}") == tex.count(rf"\end{{{kind}}}")
    assert tex.count(r"\caption") == tex.count(r"\label") == 1
    assert all(typesetting.KNOWN.search(line) is None for line in tex.splitlines())
    for columns, body in re.findall(
        r"\\begin{(?:tabular|longtable)}{@{}(.*?)@{}}\n(.*?)\\end{(?:tabular|longtable)}", tex, re.S
    ):
        widths = [float(width) for width in re.findall(r"p{(\d+)pt}", columns)]
        count = len(re.sub(r">{.*?arraybackslash}p{\d+pt}", "p", columns))
        rows = [line for line in body.splitlines() if " & " in line]
        assert rows and all(len(re.findall(r"(?<!\\)&", row)) == count - 1 for row in rows)
        assert not any(row.lstrip().startswith(("[", "*")) for row in rows)
        assert sum(widths) < typesetting.TEXT_WIDTH


def test_a_table_longer_than_a_page_is_a_longtable(tmp_path):
    def kind(rows):
        return "{longtable}" in drawn_up(tmp_path, measured(rows))["tex"]

    assert not kind(30) and kind(60)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no LaTeX here")
def test_latex_compiles_within_the_page(tex, tmp_path):
    packages = re.match("% Packages: (.*)[.]\n", tex)[1]
    page = rf"\documentclass[a4paper]{{article}}\usepackage{{{packages}}}\begin{{document}}"
    (tmp_path / "page.tex").write_text(f"{page}\n{tex}\\end{{document}}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    for _ in range(2):  # longtable learns its widths from the run before
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    log = (tmp_path / "page.log").read_text(errors="replace")
    assert "Overfull" not in log and "too large" not in log
