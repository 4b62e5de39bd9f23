"""Copies of executed notebooks for GitHub: what is left out, what is changed, what is refused."""

import base64
import io
import subprocess
import sys
from pathlib import Path

import fakes
import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image
from smoke_results import ALL, SMOKE, at, run_all

from feyntune.errors import UserError
from feyntune.experiment import load
from feyntune.paths import NOTEBOOKS, REPOSITORY
from feyntune.pipeline import notebooks
from feyntune.runs.stages import CURATION, FIGURES, FINETUNE, PERPLEXITY, REPORT, STAGES

TABLE = "# What it cost\n\n| seconds |\n|---|\n| 12.3 |\n"


@pytest.fixture
def keep_executed(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "workflow"))
    import keep_executed

    yield keep_executed
    for name in ("keep_executed", "quotations"):
        sys.modules.pop(name)


def picture() -> str:
    noise = np.random.default_rng(1).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


def stream(text: str):
    return new_output("stream", name="stdout", text=text)


def shown(kind: str, content: str):
    return new_output("display_data", data={kind: content})


def executed(stage: str, *cells) -> nbformat.NotebookNode:
    """A notebook as papermill leaves it."""
    subject = {} if STAGES[stage].per == "experiment" else {STAGES[stage].per: ALL}
    given = {"experiment": "smoke", **subject}
    names = "\n".join(f'{name} = "other"  # what it is' for name in given)
    timed = {"papermill": {"start_time": "2026-01-01T00:00:00", "duration": 1.5}}
    links = f"# Title\n\n[next](03_perplexity.ipynb) · [copy](executed/demo/{stage}.ipynb)"
    first = [
        new_markdown_cell(links.replace("demo", "smoke"), metadata=timed),
        new_code_cell(names, metadata={"tags": ["parameters"]}, execution_count=31),
        new_code_cell("# Parameters", metadata={"tags": ["injected-parameters"]}),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"papermill": {"parameters": given, **timed}, "kernelspec": kernel}
    return new_notebook(cells=[*first, *cells], metadata=metadata)


@pytest.fixture
def copies(output, tmp_path, keep_executed, monkeypatch):
    """Copies of a run, by stage, with these cells in the notebook of one."""

    def draw(of, *_):
        fakes.fake(of)
        if of.stage.name == FIGURES:
            SMOKE.paths.table("compute").with_suffix(".md").write_text(TABLE)

    monkeypatch.setattr(notebooks, "execute", draw)
    at((FIGURES, None)).record_file.unlink()
    run_all(SMOKE)

    def make(stage: str = CURATION, *cells):
        for each in STAGES.values():
            if each.maker is None:
                of = at((each.name, None if each.per == "experiment" else ALL))
                of.notebook.parent.mkdir(parents=True, exist_ok=True)
                notebook = executed(each.name, *(cells if each.name == stage else ()))
                nbformat.write(notebook, of.notebook)
        paths = keep_executed.keep("smoke", tmp_path / "kept")
        return {path.stem: nbformat.read(path, as_version=4) for path in paths}

    return make


def test_a_copy_for_each_stage_without_times_and_with_its_parameters(copies):
    made = copies()
    assert list(made) == [stage.name for stage in STAGES.values() if stage.maker is None]
    copy = made[FINETUNE]
    assert set(copy.metadata) == {"kernelspec", "language_info"}
    assert [set(cell.metadata) for cell in copy.cells] == [set(), {"tags"}]
    source = copy.cells[1].source.splitlines()
    assert source == ['experiment = "smoke"  # what it is', f'variant = "{ALL}"  # what it is']
    assert copy.cells[1].execution_count == 1


def test_copies_of_committed_results_stay_as_they_are(copies, keep_executed, monkeypatch, tmp_path):
    """Those that were computed elsewhere have no notebook here."""
    theirs = tmp_path / "kept" / f"{PERPLEXITY}.ipynb"
    copies()
    before = theirs.read_bytes()
    theirs.with_name("gone.ipynb").touch()
    monkeypatch.setattr(keep_executed, "is_recorded", lambda record: record["stage"] == PERPLEXITY)
    made = copies(PERPLEXITY, new_code_cell("other"))
    assert PERPLEXITY not in made and FINETUNE in made
    assert theirs.read_bytes() == before
    assert {path.stem for path in theirs.parent.iterdir()} == {PERPLEXITY, *made}


def test_links_lead_from_where_the_copy_is(copies):
    page = SMOKE.paths.page
    of = at((REPORT, None))
    report = shown("text/markdown", "[The report](../report/index.html)")
    assert (of.notebook.parent / "../report/index.html").resolve() == page
    made = copies(
        REPORT,
        new_code_cell("page", outputs=[report]),
        new_markdown_cell("[all](../README.md), [web](https://arxiv.org), [next](explore.ipynb)"),
    )
    assert made[REPORT].cells[0].source.splitlines()[-1] == (
        "[next](03_perplexity.ipynb) · with the results of `smoke` "
        "([the notebook itself](../../08_reproduction_report.ipynb))"
    )
    output = made[REPORT].cells[2].outputs[0]
    assert output.data["text/markdown"] == "The report: `results/smoke/report/index.html`"
    assert made[REPORT].cells[3].source == (
        "[all](../../../README.md), [web](https://arxiv.org), [next](../../explore.ipynb)"
    )
    assert (NOTEBOOKS / "executed" / "smoke" / "../../../README.md").resolve().is_file()


def test_what_differs_from_run_to_run_is_left_out(copies, keep_executed):
    made = copies(
        FIGURES,
        new_code_cell("clock", metadata={"tags": ["varies"]}, outputs=[stream("3 s")]),
        new_code_cell("tables", outputs=[shown("text/markdown", f"##{TABLE}")]),
    )
    clock, tables = made[FIGURES].cells[2:]
    assert clock.outputs[0].text == f"{keep_executed.LEFT_OUT}\n"
    said = tables.outputs[0].data["text/markdown"]
    assert said == f"### What it cost\n\n{keep_executed.LEFT_OUT}"


def test_pictures_are_made_small_and_long_lines_are_broken(copies):
    given = picture()
    line = "a word " * 30
    cell = new_code_cell("figure", outputs=[shown("image/png", given), stream(f"short\n{line}\n")])
    figure, text = copies(CURATION, cell)[CURATION].cells[2].outputs
    kept = Image.open(io.BytesIO(base64.b64decode(figure.data["image/png"])))
    assert kept.size == (80, 60) and len(figure.data["image/png"]) < len(given)
    assert max(map(len, text.text.splitlines())) <= 110
    assert text.text.split() == ["short", *line.split()]


def test_a_copy_that_names_this_machine_or_is_too_large_is_refused(copies, output, keep_executed):
    with pytest.raises(UserError, match="The copy of 01_data_curation names"):
        copies(CURATION, new_code_cell("where", outputs=[stream(f"in {output}/results")]))
    with pytest.raises(UserError, match="02_finetune is larger than 1 MB"):
        copies(FINETUNE, new_code_cell("all", outputs=[stream("x\n" * 600_000)]))


def test_only_fresh_results_are_kept(copies):
    SMOKE.paths.log(ALL).unlink()
    with pytest.raises(UserError, match=f"02_finetune-{ALL} is stale"):
        copies()


OF_THE_GRAMMAR = ("feyntune/data/stand_in/", "notebooks/executed/demo/", "tables/demo/")
ABSTRACTS = {
    "2501.00001": "We show that a black hole evaporates, slowly and\nwithout any loss of\nall.",
    "2501.00002": "Short and to the point.",
}


def test_words_of_real_abstracts_are_left_out_of_what_is_printed(keep_executed):
    quoted = keep_executed.Quotations(ABSTRACTS)
    link = "(the authors' text, not kept here: https://arxiv.org/abs/2501.00001)"
    whole = ABSTRACTS["2501.00001"]
    assert quoted.left_out(f"3 rows\n{whole}\n\nmean 2\n") == f"3 rows\n{link}\n\nmean 2\n"
    line = whole.replace("\n", " ")
    said = quoted.left_out(f"PROMPT   {line}\nMODEL    that a black hole\nAUTHORS  {line}")
    assert said.splitlines() == [
        f"PROMPT   {link}",
        "MODEL    that a black hole",
        f"AUTHORS  {link}",
    ]
    ours = "Seven of its words: evaporates slowly and without any loss of nothing.\n"
    assert quoted.left_out(ours) == ours


def test_words_of_real_abstracts_elsewhere_refuse_the_copy(keep_executed):
    quoted = keep_executed.Quotations(ABSTRACTS)
    line = ABSTRACTS["2501.00001"].replace("\n", " ")
    printed = new_code_cell("print", outputs=[stream(f"PROMPT {line}\n")])
    copies = {CURATION: new_notebook(cells=[printed, new_markdown_cell("of 2501.00001")])}
    keep_executed._leave_out_abstracts(copies, quoted)
    assert "slowly" not in nbformat.writes(copies[CURATION])
    table = shown("text/html", f"<td>{ABSTRACTS['2501.00001']}</td>")
    copies[CURATION].cells.append(new_code_cell("table", outputs=[table]))
    with pytest.raises(UserError, match=r"01_data_curation holds words of 2501\.00001 outside"):
        keep_executed._leave_out_abstracts(copies, quoted)


def test_without_the_abstracts_no_copy_is_kept(keep_executed, output):
    with pytest.raises(UserError, match="No abstract of published is here"):
        keep_executed.quotations.of_experiment(load.load("published"))


def test_no_tracked_file_has_words_of_an_abstract_that_was_fetched(keep_executed):
    """Of whatever real abstracts are here: those of `small`, once they were fetched.

    What our own grammar wrote may share a phrase of the field with them. A completion is our
    model's, also where it repeats words of its prompt.
    """
    try:
        quoted = keep_executed.quotations.of_experiment(load.load("small"))
    except UserError:
        pytest.skip(
            "the abstracts of small are not here: feyntune run 01 --experiment small --anew"
        )
    listed = subprocess.run(
        ["git", "-C", REPOSITORY, "ls-files", "-z"], capture_output=True, text=True, check=True
    )
    names = filter(None, listed.stdout.split("\0"))
    for name in (name for name in names if not name.startswith(OF_THE_GRAMMAR)):
        assert quoted.papers(text_of(REPOSITORY / name)) == [], name


def text_of(file: Path) -> str:
    """What a file holds as text; of a table without the completions."""
    if file.suffix == ".parquet":
        return pd.read_parquet(file).drop(columns="completion", errors="ignore").to_csv()
    return file.read_bytes().decode("utf-8", "replace").replace("\\n", " ")
