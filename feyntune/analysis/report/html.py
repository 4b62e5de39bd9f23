"""What the report says: gathered from fresh results alone, claim by claim, and written as a folder.

The folder holds one page that needs nothing else, the verdicts for scripts, and beside them the
executed notebooks that the page links to. It has no time of its own: the same results give the
same bytes.
"""

from __future__ import annotations

import base64
import json
import operator
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from feyntune.analysis.report import claims, page
from feyntune.analysis.report.expectations import REFERENCE
from feyntune.analysis.report.verdicts import STATES, Verdict
from feyntune.analysis.tables import captions
from feyntune.errors import UserError
from feyntune.experiment.files import writing
from feyntune.experiment.recipes import BASE
from feyntune.experiment.schema import Experiment
from feyntune.paths import NOTEBOOKS
from feyntune.runs.freshness import Freshness
from feyntune.runs.stages import REPORT, STAGES, Run, plan, run

GROUPS = (
    ("paper", "What the paper says", "from its text, and from what its authors released"),
    ("reference", "What our own run gave", "recorded values: does this machine reproduce them?"),
)


# Columns from which on a table is printed across the page.
WIDE = 16


@dataclass(frozen=True)
class Figure:
    """A picture as the page shows it: ``source`` is the whole PNG as a data URI."""

    name: str
    title: str
    caption: str
    source: str
    width: int
    height: int


@dataclass(frozen=True)
class Table:
    """A table as the page shows it; ``html`` holds its body and notes, escaped."""

    name: str
    title: str
    html: str
    wide: bool


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
    """

    experiment: Experiment
    groups: list[tuple[str, str, str, list[Verdict]]]
    figures: list[Figure]
    tables: list[Table]
    links: dict[Run, str]
    records: list[dict[str, Any]]
    absent: list[tuple[str, str]]
    stand_ins: list[str]

    @property
    def verdicts(self) -> list[Verdict]:
        return [verdict for *_, verdicts in self.groups for verdict in verdicts]

    @property
    def counts(self) -> dict[str, int]:
        """How many claims were met, missed and not run."""
        found = [verdict.verdict for verdict in self.verdicts]
        return {state: found.count(state) for state in STATES}

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
            f"./run_all.sh --experiment {experiment.name} makes what a report tells of."
        )
    verdicts = claims.judge(experiment)
    vouched = claims.vouched(experiment)
    absent = [e for e in plan(experiment) if e.stage.name != REPORT and e not in fresh]
    return Report(
        experiment=experiment,
        groups=_grouped(verdicts),
        figures=[_figure(path) for path in _of(vouched, paths.figures, "png", captions.FIGURES)],
        tables=[_table(path) for path in _of(vouched, paths.tables, "md", captions.LOOKS)],
        links=_links(fresh, verdicts),
        records=[each.record for each in fresh],
        absent=[(str(each), ": ".join(freshness.status(each))) for each in absent],
        stand_ins=stand_ins(experiment),
    )


def write(report: Report) -> None:
    """Write the folder of the report in one step."""
    paths = report.experiment.paths
    with writing(paths.report) as folder:
        for made_by, place in report.links.items():
            target = folder / place
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(page.notebook(made_by.notebook, str(made_by)), encoding="utf-8")
        verdicts = [verdict.plain() for verdict in report.verdicts]
        text = json.dumps({"claims": verdicts}, indent=1, ensure_ascii=False)
        (folder / paths.verdicts.name).write_text(text + "\n", encoding="utf-8")
        (folder / paths.page.name).write_text(page.report(report), encoding="utf-8")


def stand_ins(experiment: Experiment) -> list[str]:
    """What in an experiment is not the real thing, a sentence each."""
    data, base = experiment.data, experiment.base
    found = []
    if experiment.scores == "computed" and not data.snapshot:
        found.append(
            f"Corpus: {data.stand_in.records:,} synthetic records drawn from a seeded grammar, in "
            "the format of arXiv's metadata snapshot, in place of 2.5 million real ones."
        )
    if experiment.scores == "computed" and not base.model:
        tiny = base.stand_in
        found.append(
            f"Base model: a Llama of {tiny.layers} layers and width {tiny.hidden_size}, trained "
            "within the run, in place of Llama-3.1-8B."
        )
    if experiment.scores == "computed" and experiment.completions.embedder == BASE:
        found.append(
            "Embedder of SemScore and pairwise cosine: the base model's own hidden states, in "
            "place of all-mpnet-base-v2."
        )
    asked = experiment.commercial.present if experiment.commercial else {}
    served = [name for name, provider in asked.items() if provider.base_url is None]
    if served:
        found.append(
            f"Commercial model {', '.join(served)}: the base model, served on this machine, in "
            "place of ChatGPT, Claude, Gemini and DeepSeek."
        )
    return found


def _grouped(verdicts: Sequence[Verdict]) -> list[tuple[str, str, str, list[Verdict]]]:
    ours = [verdict for verdict in verdicts if verdict.claim.certainty == REFERENCE]
    theirs = [verdict for verdict in verdicts if verdict.claim.certainty != REFERENCE]
    groups = zip(GROUPS, (theirs, ours), strict=True)
    return [(*group, members) for group, members in groups if members]


def _of(vouched: Iterable[Path], folder: Path, ending: str, order: Iterable[str]) -> list[Path]:
    """The files of a folder that are vouched for: known names first, in their order."""
    known = list(order)
    files = [path for path in vouched if path.parent == folder and path.suffix == f".{ending}"]
    place = {path: known.index(path.stem) if path.stem in known else len(known) for path in files}
    return sorted(files, key=lambda path: (place[path], path.name))


def _figure(path: Path) -> Figure:
    content = path.read_bytes()
    width, height = struct.unpack(">II", content[16:24])  # PNG's header
    title, caption = captions.FIGURES.get(path.stem, (path.stem, ""))
    source = f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"
    return Figure(path.stem, title, caption, source, width, height)


def _table(path: Path) -> Table:
    title, columns, html = page.table(path.read_text(encoding="utf-8"))
    return Table(path.stem, title, html, wide=columns > WIDE)


def _links(fresh: Sequence[Run], verdicts: Iterable[Verdict]) -> dict[Run, str]:
    """The executed notebooks that a claim rests on, and those of the whole experiment."""
    rests_on = {verdict.made_by for verdict in verdicts}
    return {
        each: f"notebooks/{each}.html"
        for each in fresh
        if (each.subject is None or each in rests_on)
        and (NOTEBOOKS / f"{each.stage.name}.ipynb").is_file()
        and each.notebook.is_file()
    }
