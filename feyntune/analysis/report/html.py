"""The report: gathered from fresh results alone, claim by claim, and written as a folder.

The folder holds one page, the verdicts for scripts, and the executed notebooks that the page links
to. Every page is complete: no script, style, font or picture comes from elsewhere. The same
results give the same bytes.
"""

from __future__ import annotations

import base64
import json
import operator
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markdown_it import MarkdownIt
from markupsafe import Markup

from feyntune.analysis.report import claims
from feyntune.analysis.report.claims import Verdict
from feyntune.analysis.report.expectations import MET, MISSED, NOT_RUN, REFERENCE, UNDECIDED
from feyntune.analysis.tables.writing import captions
from feyntune.errors import UserError
from feyntune.experiment.files import writing
from feyntune.experiment.recipes import BASE
from feyntune.experiment.schema import Experiment
from feyntune.paths import NOTEBOOKS, TEMPLATES
from feyntune.runs.freshness import Freshness
from feyntune.runs.stages import REPORT, STAGES, Run, plan, run

GROUPS = (
    ("paper", "What the paper says", "from its text, and from what its authors released"),
    ("reference", "What our own run gave", "recorded values: does this machine reproduce them?"),
)
# The figure of experts' ratings, which may be of other models than the experiment's.
RATINGS = "fig-human-evaluation"
# A mark for each verdict that is read without its colour.
MARKS = {MET: "✓", MISSED: "✗", UNDECIDED: "?", NOT_RUN: "–"}
HYPHEN = re.compile(r"(?<![\w.-])-(?=[\d.])")


@dataclass(frozen=True)
class Figure:
    """A picture as the page shows it: ``source`` is the whole PNG as a data URI.

    ``label`` is what is a stand-in, or ``None``; the picture shows it, too.
    """

    name: str
    title: str
    caption: str
    label: str | None
    source: str
    width: int
    height: int


@dataclass(frozen=True)
class Table:
    """A table as the page shows it: ``body`` holds it and its notes as HTML."""

    name: str
    title: str
    body: Markup


@dataclass(frozen=True)
class Report:
    """Everything that the page shows.

    Attributes
    ----------
    groups
        Claims with their verdicts: anchor, title, subtitle, verdicts.
    links
        By executed notebook of a run, where the page finds it.
    records
        Run records of every fresh stage, in order.
    absent
        Planned runs without a fresh result, each with why.
    stand_ins
        What in this run is not the real thing, a sentence each.
    recorded
        How many results were not computed here but committed, a sentence; empty if none.
    """

    experiment: Experiment
    groups: list[tuple[str, str, str, list[Verdict]]]
    figures: list[Figure]
    tables: list[Table]
    links: dict[Run, str]
    records: list[dict[str, Any]]
    absent: list[tuple[str, str]]
    stand_ins: list[str]
    recorded: list[str]

    @property
    def verdicts(self) -> list[Verdict]:
        return [verdict for *_, verdicts in self.groups for verdict in verdicts]

    @property
    def counts(self) -> dict[str, int]:
        """How many claims were met, missed and not run."""
        return claims.count(verdict.verdict for verdict in self.verdicts)

    @property
    def stages(self) -> list[dict[str, Any]]:
        """Runs and seconds of every stage."""
        return [
            {"stage": name, "runs": len(of), "seconds": sum(record["seconds"] for record in of)}
            for name in STAGES
            if (of := [record for record in self.records if record["stage"] == name])
        ]

    @property
    def stage_links(self) -> dict[str, str]:
        """Where the page finds the notebook of a stage of the whole experiment."""
        return {each.stage.name: link for each, link in self.links.items() if not each.subject}

    @property
    def taken_over(self) -> list[str]:
        """Per experiment that results were taken over from, how many."""
        donors = [r["taken_from"]["experiment"] for r in self.records if "taken_from" in r]
        return [f"{donors.count(name)} from {name}" for name in sorted(set(donors))]

    @property
    def accepted(self) -> list[dict[str, Any]]:
        """Results kept after a change of code, each acceptance once, with the runs it covers."""
        found: dict[tuple, dict[str, Any]] = {}
        for record in self.records:
            for each in record.get("accepted", []):
                entry = found.setdefault((each["at"], each["recomputed"]), {**each, "runs": 0})
                entry["runs"] += 1
        return list(found.values())

    @property
    def span(self) -> tuple[datetime, datetime]:
        """Start of the first and end of the last run, in UTC."""
        starts = [datetime.fromisoformat(record["started"]) for record in self.records]
        lengths = [timedelta(seconds=record["seconds"]) for record in self.records]
        return min(starts), max(map(operator.add, starts, lengths))

    def distinct(self, *keys: str) -> list[Any]:
        """The values that a field of the run records has, each once, in the order of the runs."""
        found = []
        for record in self.records:
            value = record
            for key in keys:
                value = value.get(key) if isinstance(value, Mapping) else None
            if value not in found:
                found.append(value)
        return found

    @property
    def uncommitted(self) -> str:
        """Whether any run was of code that differs from its commit."""
        said = self.distinct("uncommitted_changes")
        return "yes" if True in said else "unknown" if None in said else "none"

    @property
    def packages(self) -> dict[str, str]:
        """Versions by package; where runs differ, all of them."""
        names = sorted({name for record in self.records for name in record["packages"]})
        return {name: " and ".join(map(str, self.distinct("packages", name))) for name in names}


def gather(experiment: Experiment) -> Report:
    """Read what there is of an experiment.

    Raises
    ------
    UserError
        If the claims are not well-formed, or name a table or column that does not exist.
    """
    freshness, paths = Freshness(experiment), experiment.paths
    fresh = freshness.before(run(experiment, REPORT))
    if not fresh:
        raise UserError(
            f"Nothing of experiment {experiment.name} has been run: "
            f"./run_all.sh --experiment {experiment.name} makes what the report is about."
        )
    verdicts, files = claims.judge(experiment), claims.fresh_files(experiment)
    absent = [e for e in plan(experiment) if e.stage.name != REPORT and e not in fresh]
    pictures = _of(files, paths.figures, ".png", captions()["figures"])
    tables = _of(files, paths.tables, ".md", captions()["tables"])
    return Report(
        experiment=experiment,
        groups=_grouped(verdicts),
        figures=[_figure(path, experiment) for path in pictures],
        tables=[_table(path) for path in tables],
        links=_links(fresh, verdicts),
        records=[each.record for each in fresh],
        absent=[(str(each), ": ".join(freshness.status(each))) for each in absent],
        stand_ins=stand_ins(experiment),
        recorded=freshness.taken(fresh).lines(experiment),
    )


def write(report: Report) -> None:
    """Write the folder of the report in one step."""
    paths = report.experiment.paths
    with writing(paths.report) as folder:
        for made_by, place in report.links.items():
            target = folder / place
            target.parent.mkdir(parents=True, exist_ok=True)
            page = notebook_page(made_by.notebook, str(made_by))
            target.write_text(page, encoding="utf-8")
        verdicts = [verdict.as_dict() for verdict in report.verdicts]
        text = json.dumps({"claims": verdicts}, indent=1, ensure_ascii=False)
        (folder / paths.verdicts.name).write_text(text + "\n", encoding="utf-8")
        page = _templates().get_template("report.html").render(report=report)
        (folder / paths.page.name).write_text(page, encoding="utf-8")


def stand_ins(experiment: Experiment) -> list[str]:
    """What in an experiment is not the real thing, a sentence each."""
    data, base, found = experiment.data, experiment.base, []
    if experiment.scores == "computed" and not data.snapshot:
        found.append(
            f"Corpus: {data.stand_in.records:,} synthetic records drawn from a seeded grammar, in "
            "the format of arXiv's metadata snapshot, in place of 2.5 million real ones."
        )
    if experiment.scores == "computed" and not base.model:
        found.append(
            f"Base model: a Llama of {base.stand_in.layers} layers and width "
            f"{base.stand_in.hidden_size}, trained within the run, in place of Llama-3.1-8B."
        )
    if experiment.scores == "computed" and experiment.completions.embedder == BASE:
        found.append(
            "Embedder of SemScore and pairwise cosine: the base model's own hidden states, in "
            "place of all-mpnet-base-v2."
        )
    asked = experiment.commercial.present if experiment.commercial else {}
    if served := [name for name, provider in asked.items() if provider.base_url is None]:
        found.append(
            f"Commercial model {', '.join(served)}: the base model, served on this machine, in "
            "place of ChatGPT, Claude, Gemini and DeepSeek."
        )
    return found


def notebook_page(path: Path, title: str) -> str:
    """An executed notebook as a page: code, text and outputs."""
    from nbconvert import HTMLExporter  # takes two seconds
    from pygments.formatters import HtmlFormatter

    body, _ = HTMLExporter(template_name="basic").from_filename(str(path))
    colours = {
        scheme: Markup(HtmlFormatter(style=name).get_style_defs(".highlight"))
        for scheme, name in (("light", "xcode"), ("dark", "github-dark"))
    }
    template = _templates().get_template("notebook.html")
    return template.render(title=title, body=Markup(body), colours=colours)


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "numbers": numbers}
    style = Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))
    environment.globals |= {"style": style, "marks": MARKS}
    return environment


def numbers(text: str) -> str:
    """A text with minus signs where it has hyphens before numbers."""
    return HYPHEN.sub("−", text)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _grouped(verdicts: list[Verdict]) -> list[tuple[str, str, str, list[Verdict]]]:
    """The paper's claims, then the values of a run of ours."""
    ours = [verdict for verdict in verdicts if verdict.claim.certainty == REFERENCE]
    theirs = [verdict for verdict in verdicts if verdict.claim.certainty != REFERENCE]
    return [(*group, some) for group, some in zip(GROUPS, (theirs, ours), strict=True) if some]


def _of(files: Iterable[Path], folder: Path, ending: str, order: Iterable[str]) -> list[Path]:
    """The files of a folder: those with a caption first, in the order of the captions."""
    place = {name: number for number, name in enumerate(order)}
    found = [path for path in files if path.parent == folder and path.suffix == ending]
    return sorted(found, key=lambda path: (place.get(path.stem, len(place)), path.name))


def _figure(path: Path, experiment: Experiment) -> Figure:
    content = path.read_bytes()
    width, height = struct.unpack(">II", content[16:24])  # PNG's header
    about = captions()["figures"].get(path.stem, {"title": path.stem, "caption": ""})
    source = f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"
    theirs = path.stem == RATINGS and experiment.ratings_of_others
    label = None if theirs else experiment.stand_in
    return Figure(path.stem, **about, label=label, source=source, width=width, height=height)


def _table(path: Path) -> Table:
    """Read a table as it was written in Markdown: heading, body and notes."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(path.read_text(encoding="utf-8"))
    [title] = markdown.parseInline(tokens[1].content)[0].children
    # The first three tokens are the heading.
    body = Markup(markdown.renderer.render(tokens[3:], markdown.options, {}))
    return Table(path.stem, title.content, body)


def _links(fresh: list[Run], verdicts: list[Verdict]) -> dict[Run, str]:
    """The executed notebooks that a claim rests on, and those of the whole experiment."""
    rests_on = {verdict.made_by for verdict in verdicts}
    return {
        each: f"notebooks/{each}.html"
        for each in fresh
        if (each.subject is None or each in rests_on)
        and (NOTEBOOKS / f"{each.stage.name}.ipynb").is_file()
        and each.notebook.is_file()
    }
