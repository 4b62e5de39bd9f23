"""The report: what it says of a run, what it never says, and that it is whole in itself."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import fakes
import nbformat
import pandas as pd
import pytest
import yaml
from smoke_results import SMOKE, run_all

from feyntune import paths
from feyntune.analysis.figures.style import Drawing, save
from feyntune.analysis.report import claims, html
from feyntune.analysis.tables import writing
from feyntune.errors import UserError
from feyntune.experiment import load
from feyntune.paths import NOTEBOOKS
from feyntune.pipeline import notebooks
from feyntune.runs import stages

LABEL = "stand-in corpus and model"
CLAIMS = [
    {
        "claim": "every model is <measured>",
        "source": "abstract & caption",
        "certainty": "stated",
        "figure": "fig-3.3-bootstrap-perplexity",
        "table": "perplexity",
        "column": "mean",
        "rows": 2,
        "interval": ["low", "high"],
        "relation": "below",
        "expected": 40,
    },
    {
        "claim": "base is better",
        "source": "nobody",
        "certainty": "inferred",
        "table": "perplexity",
        "column": "mean",
        "where": {"model": "base"},
        "relation": "below",
        "expected": 10.5,
    },
    {
        "claim": "rated by experts",
        "source": "published ratings",
        "certainty": "computed",
        "not_judged": "nobody rates a stand-in",
    },
    {
        "claim": "SemScore of base",
        "source": "a run of ours",
        "certainty": "reference",
        "table": "semscore",
        "column": "mean",
        "where": {"model": "base"},
        "expected": 1.0,
    },
]


def draw(settings) -> None:
    """A figure, and tables with the texts that are hard to show."""
    save(Drawing(figsize=(2, 1)), settings.paths.figure("fig-3.3-bootstrap-perplexity"))
    save(Drawing(figsize=(2, 1)), settings.paths.figure("fig-unknown"))
    frame = pd.DataFrame(
        {
            "model": ["base", "s1-LoRA-all"],
            "mean": [30.5, 20.25],
            "low": [29, 19.0],
            "high": [32, 21],
        }
    )
    examples = pd.DataFrame(
        {"id": ["0806.1218"], "text": ["<script>alert(1)</script> $a_b|c$ *x*"]}
    )
    for name, table in (("perplexity", frame), ("completions", examples)):
        about = writing.caption(name, settings.statistics)
        writing.write(table, settings.paths.table(name), label=LABEL, **about)


def execute(of, kernel=None) -> None:
    """Fakes for every notebook but the last two; their executed copies are their sources."""
    of.notebook.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(NOTEBOOKS / f"{of.stage.name}.ipynb", of.notebook)
    if of.stage.name == stages.FIGURES:
        draw(of.experiment)
    elif of.stage.name == stages.REPORT:
        html.write(html.gather(of.experiment))
    else:
        fakes.fake(of)


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """The output folder of a run of smoke whose report was written by the real code; its claims."""
    folder, place = (
        tmp_path_factory.mktemp("complete"),
        tmp_path_factory.mktemp("claims") / "c.yaml",
    )
    place.write_text(yaml.safe_dump({"snapshot": None, "claims": CLAIMS}))
    environment = dict(os.environ)
    with pytest.MonkeyPatch.context() as patch:
        fakes.install(patch)
        patch.setattr(notebooks, "execute", execute)
        patch.setattr(paths, "expectations", lambda name: place)
        patch.setattr(stages, "expectations", lambda name: place)
        patch.setenv("FEYNTUNE_OUTPUT", str(folder))
        run_all(SMOKE)
    os.environ.clear()
    os.environ.update(environment)
    return folder, place


@pytest.fixture
def made(complete, tmp_path, monkeypatch):
    """A copy of that run."""
    folder, place = complete
    shutil.copytree(folder, tmp_path / "output")
    monkeypatch.setenv("FEYNTUNE_OUTPUT", str(tmp_path / "output"))
    monkeypatch.setattr(paths, "expectations", lambda name: place)
    monkeypatch.setattr(stages, "expectations", lambda name: place)
    return SMOKE


def record_of(settings, stage: str, subject: str | None = None) -> Path:
    return stages.run(settings, stage, subject).record_file


def again(settings) -> str:
    """The page as it would be now."""
    html.write(html.gather(settings))
    return text(settings)


def text(settings) -> str:
    return settings.paths.page.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Elements of a page, and whether they are well nested."""

    VOID = ("meta", "img", "br", "hr", "link", "input")

    def __init__(self, content: str):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.words = [], [], []
        self.feed(content)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def said(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str, attribute: str) -> list[str]:
        return [
            attrs[attribute] for name, attrs in self.elements if name == tag and attribute in attrs
        ]


# --- what it says -----------------------------------------------------------------------------


def test_the_counts_stand_at_the_top(made):
    said = Page(text(made)).said
    assert said.index("✓ 1 met") < said.index("✗ 1 missed") < said.index("– 2 not run")
    assert said.index("Missed: base is better.") < said.index("What the paper says")


def test_every_claim_has_source_expectation_finding_verdict_and_evidence(made):
    rows = re.findall(r"<tr>.*?</tr>", text(made), re.S)
    row = Page(next(r for r in rows if "every model is" in r))
    assert row.said.startswith("✓ met every model is <measured> abstract & caption stated")
    assert "below 40, each of 2" in row.said
    assert "2 of 2; nearest to the limit: base 30.5 [29, 32]" in row.said
    assert row.all("a", "href") == [
        "#fig-3.3-bootstrap-perplexity",
        "#table-perplexity",
        "notebooks/07_figures_and_tables.html",
    ]


def test_what_is_not_run_says_why_and_is_not_met(made):
    said = Page(text(made)).said
    assert "Not judged: nobody rates a stand-in" in said
    assert "Not run: table semscore is not there" in said
    written = json.loads(made.paths.verdicts.read_text())["claims"]
    assert [each["verdict"] for each in written] == ["met", "missed", "not run", "not run"]
    assert written[3]["why"] == "table semscore is not there"


def test_paper_and_reference_stand_apart(made):
    found = html.gather(made)
    assert [(group[0], len(group[3])) for group in found.groups] == [("paper", 3), ("reference", 1)]


def test_stand_ins_are_told(made):
    said = Page(text(made)).said
    assert "Stand-ins in this run." in said and "nothing about physics" in said
    assert "3,000 synthetic records" in said and "a Llama of 2 layers and width 64" in said


def test_every_figure_and_table_of_a_stand_in_says_so(made):
    content = text(made)
    captions = re.findall("<figcaption>.*?</figcaption>", content)
    bodies = re.findall('<details open id="table-.*?</details>', content, re.S)
    pictures = [alt for alt in Page(content).all("img", "alt") if alt]
    assert captions and bodies and len(pictures) == len(captions)
    assert all(LABEL in each for each in (*captions, *bodies, *pictures))
    page = made.paths.figure("fig-human-evaluation").with_name("fig-human-evaluation.png")
    shutil.copy(next(made.paths.figures.glob("*.png")), page)
    assert html._figure(page, made).label == LABEL
    theirs = load.with_settings("smoke", {"human_evaluation.ratings": ["theirs.csv"]})
    assert html._figure(page, theirs).label is None


def test_a_real_run_has_none():
    assert html.stand_ins(load.load("paper")) == []
    assert html.stand_ins(load.load("published")) == []


def test_surroundings_are_told(made):
    said = Page(text(made)).said
    record = json.loads(record_of(made, stages.CURATION).read_text())
    for told in (record["commit"], record["python"], f"torch {record['packages']['torch']}"):
        assert told in said
    assert f"{record['hardware']['cores']} cores" in said
    assert "02_finetune 2 " in said, "runs of each stage"


@pytest.mark.parametrize(
    ("changes", "said"),
    [(True, "uncommitted changes yes"), (False, "changes none"), (None, "changes unknown")],
)
def test_what_is_not_known_of_the_surroundings_is_not_denied(made, changes, said):
    report = html.gather(made)
    own = {"commit": None, "uncommitted_changes": changes}
    found = [{**r, **own, "hardware": {**r["hardware"], "gpus": None}} for r in report.records]
    html.write(replace(report, records=found))
    found = Page(text(made)).said
    assert said in found and "commit unknown: not in a git clone" in found
    assert "GPU unknown" in found


def test_two_machines_are_both_told(made):
    place = record_of(made, stages.CURATION)
    record = json.loads(place.read_text())
    record["hardware"] = {"system": "Linux", "processor": "Other", "cores": 3, "gpus": ["A GPU"]}
    place.write_text(json.dumps(record))
    found = Page(again(made)).said
    assert f"{os.cpu_count()} cores; Other, 3 cores, A GPU" in found


def test_what_was_accepted_or_taken_over_is_listed(made):
    accepted = {"why": "renamed <x>", "recomputed": "03_perplexity-base", "at": "2026-11-25T01:02"}
    for subject in ("base", "s1-LoRA-all"):
        place = record_of(made, stages.PERPLEXITY, subject)
        more = {"accepted": [accepted], "taken_from": {"experiment": "demo", "subject": subject}}
        place.write_text(json.dumps(json.loads(place.read_text()) | more))
    said = Page(again(made)).said
    assert "Kept after a change of code, 2026-11-25: 2 results, “renamed <x>”." in said
    assert "03_perplexity-base was computed again, with the same bytes." in said
    assert "same settings, inputs and code: 2 from demo." in said


def test_what_is_committed_and_not_computed_here_is_said(made):
    place = record_of(made, stages.PERPLEXITY, "base")
    place.write_text(json.dumps(json.loads(place.read_text()) | {"recorded": True}))
    results = made.paths.results
    committed = results.parents[1] / "experiments" / results.name / place.relative_to(results)
    committed.parent.mkdir(parents=True)
    shutil.copyfile(place, committed)
    assert "1 results are those committed in experiments/" in Page(again(made)).said


def test_what_is_missing_is_named(made):
    record_of(made, stages.PERPLEXITY, "base").unlink()
    said = Page(again(made)).said
    assert "Not complete: 3 of 14 runs have no result that is up to date" in said
    assert "03_perplexity-base missing: not run" in said
    assert "✓ 0 met" in said, "figures and tables are of another state, and count for nothing"


def test_a_figure_goes_by_its_title_or_else_by_its_name(made):
    found = html.gather(made).figures
    assert [figure.name for figure in found] == ["fig-3.3-bootstrap-perplexity", "fig-unknown"]
    assert found[0].title.startswith("Figure 3.3") and found[1].title == "fig-unknown"
    assert (found[0].width, found[0].height) == (400, 200)


def test_a_table_is_typeset_as_its_markdown(made):
    found = {table.name: table for table in html.gather(made).tables}
    assert found["perplexity"].title == "Perplexity per abstract on the s1 test set"
    assert '<td style="text-align:right">20.2 [19.0, 21.0]</td>' in found["perplexity"].body
    assert f"<strong>{LABEL}</strong>" in found["perplexity"].body
    assert ">0806.1218</td>" in found["completions"].body
    assert "$a_b|c$ *x*" in found["completions"].body, "nothing is markup"


# --- what it never says -----------------------------------------------------------------------


def test_texts_are_escaped(made):
    content = text(made)
    assert "<script" not in content and "&lt;script&gt;alert(1)&lt;/script&gt;" in content
    assert "every model is &lt;measured&gt;" in content


def test_it_names_no_place_of_this_machine(made, tmp_path):
    for file in made.paths.report.rglob("*"):
        if file.is_file():
            content = file.read_text(encoding="utf-8")
            assert str(tmp_path) not in content and str(paths.REPOSITORY) not in content, file


def test_a_column_that_does_not_exist_ends_it(made, monkeypatch, tmp_path):
    place = tmp_path / "wrong.yaml"
    wrong = CLAIMS[1] | {"column": "meen"}
    place.write_text(yaml.safe_dump({"snapshot": None, "claims": [wrong]}))
    monkeypatch.setattr(paths, "expectations", lambda name: place)
    before = text(made)
    with pytest.raises(UserError, match="Unknown column 'meen' of table perplexity"):
        html.gather(made)
    assert text(made) == before


# --- one page, whole in itself ----------------------------------------------------------------


def test_the_page_needs_nothing_else(made):
    for file in (made.paths.page, *made.paths.report.glob("notebooks/*.html")):
        content = file.read_text(encoding="utf-8")
        found = Page(content)
        assert found.open == []
        assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in found.elements}
        assert all(source.startswith("data:image/") for source in found.all("img", "src"))
        style = "".join(re.findall(r"<style>(.*?)</style>", content, re.S))
        assert "url(" not in style and "@import" not in style


def test_every_link_leads_somewhere(made):
    found = Page(text(made))
    anchors = {attrs["id"] for _, attrs in found.elements if "id" in attrs}
    assert len(anchors) == len([a for _, a in found.elements if "id" in a]), "each id once"
    for link in found.all("a", "href"):
        if link.startswith("#"):
            assert link[1:] in anchors
        elif "://" not in link:
            assert (made.paths.report / link).is_file()
    outside = {link for link in found.all("a", "href") if "://" in link}
    assert outside == {"https://arxiv.org/abs/2508.03716"}


def test_pictures_have_words(made):
    found = Page(text(made))
    assert len(found.all("img", "alt")) == len(found.all("img", "src")) == 2
    assert all(found.all("img", "alt"))


def test_the_same_results_give_the_same_bytes(made):
    files = {file: file.read_bytes() for file in made.paths.report.rglob("*") if file.is_file()}
    assert {file.name for file in files} >= {"index.html", "claims.json"} and len(files) == 6
    again(made)
    assert {file: file.read_bytes() for file in files} == files


def test_an_experiment_without_claims_has_a_report(made, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "expectations", lambda name: tmp_path / "none.yaml")
    assert "has no file of claims" in again(made)
    assert json.loads(made.paths.verdicts.read_text()) == {"claims": []}


def test_an_executed_notebook_is_shown_with_its_outputs(tmp_path):
    cell = nbformat.v4.new_code_cell("print(1 < 2)")
    cell.outputs = [nbformat.v4.new_output("stream", text="True & <b>bold</b>")]
    place = tmp_path / "a.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), place)
    content = html.notebook_page(place, "01_data_curation")
    assert "True &amp; &lt;b&gt;bold" in content and "01_data_curation" in content
    assert "<script" not in content


# --- small things -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.6, "1 min 00 s"), (3725, "1 h 02 min")],
)
def test_durations(seconds, said):
    assert html.duration(seconds) == said


def test_minus_signs():
    said = html.numbers("s1-LoRA-all -0.5 [-1, 2], 1e-06, 2026-11-23")
    assert said == "s1-LoRA-all −0.5 [−1, 2], 1e-06, 2026-11-23"


def test_totals_in_words():
    assert claims.total(["met", "met", "not run"]) == "2 met, 0 missed, 1 not run"


def test_the_templates_are_where_the_stage_looks():
    names = {path.name for path in Path(paths.TEMPLATES).iterdir()}
    assert names == {"report.html", "notebook.html", "style.css"}
