"""Files of tables that scripts, Markdown and LaTeX can read, and their captions."""

import numpy as np
import pandas as pd
import pytest

from feyntune.analysis.tables import scores, setup, writing
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
        scores.perplexity({}, WANTED, SETTINGS, absent=ABSENT),
        scores.perplexity_differences({}, WANTED, SETTINGS, absent=ABSENT),
        scores.semscore({}, WANTED, SETTINGS, absent=ABSENT),
        scores.pairwise_cosine({}, WANTED, absent=ABSENT),
        scores.completions({}, WANTED, absent=ABSENT),
        setup.compute([], [], absent=ABSENT),
    ]
    for number, table in enumerate(empty):
        writing.write(table, tmp_path / str(number), title="x", label=None)
        assert set(table["note"]) <= {"not run"}
