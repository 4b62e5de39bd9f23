"""The stand-in snapshot: synthetic arXiv metadata whose abstracts have a known likelihood.

Records have the 14 fields and the quirks of the Kaggle data set `Cornell-University/arxiv`: ids of
both styles in the file's order, hard-wrapped abstracts, cross-lists, withdrawn papers, version
histories. Text comes from the grammar in `grammar.yaml`; names, journals and DOIs are invented (the
DOI prefix 10.5555 is Crossref's for tests), so no record can be taken for a real paper's.
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from feyntune.data.stand_in.language import Grammar, Likelihood, Source
from feyntune.experiment.files import writing
from feyntune.experiment.schema import Experiment
from feyntune.paths import GRAMMAR
from feyntune.runs.records import note

# The loader in C, where PyYAML has it, takes a tenth of the time.
TABLES = yaml.load(
    GRAMMAR.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)
)
ENGLISH = Grammar(*(TABLES[name] for name in ("lexica", "fields", "rules", "phrases", "moves")))

LAST_INSTANT = datetime(2024, 8, 22)  # snapshot v193
FIRST_UPDATE = datetime(2007, 5, 23)  # no record of arXiv carries an earlier `update_date`
# The papers that the published curation leaves out.
EXCLUDED_IDS = ("1804.08625", "1404.0016", "1205.2086", "1209.5915", "1802.05268")
# More papers of the last months than arXiv has, so that even a test set of a few dozen abstracts
# has some that are younger than what a language model has read.
RECENT, RECENT_SHARE = datetime(2024, 1, 1), 0.12
WITHDRAWN_COMMENTS, WITHDRAWN_ABSTRACTS = 0.003, 0.001  # shares of records with a notice there

NUMBERS = dict.fromkeys(("loglik", "loglik_end"), "double")
COLUMNS = pa.schema({"id": "str", "primary": "str", "sentences": "int64"} | NUMBERS)


class Paper(NamedTuple):
    """What is settled before any text is drawn; sorts in the order of the snapshot."""

    id: str
    primary: str
    created: datetime


def lookup(table: dict[str, Any], category: str) -> Any:
    """Find a category in a table, or else its archive."""
    return table[category] if category in table else table[category.split(".")[0]]


@cache
def source(category: str) -> Source:
    """The distribution that the abstracts of a primary category are drawn from."""
    if category in TABLES["sources"]:
        return Source(ENGLISH, TABLES["sources"][category])
    return source(category.split(".")[0])


def primaries(records: int) -> list[str]:
    """Share out the records among primary categories in arXiv's proportions."""
    total, seen, out = sum(TABLES["categories"].values()), 0, []
    for category, count in TABLES["categories"].items():
        seen += count
        out += [category] * (round(records * seen / total) - len(out))
    return out


def plan_papers(records: int, rng: Random) -> list[Paper]:
    """Give every paper its category, first date and id, in the order of the snapshot."""
    pinned = EXCLUDED_IDS if records >= 1000 else ()
    papers = {
        number: Paper(number, "hep-th", datetime.strptime(number[:4], "%y%m") + timedelta(days=14))
        for number in pinned
    }
    for primary in primaries(records)[len(pinned) :]:  # hep-th comes first there
        created = draw_date(primary, rng)
        paper = next(p for p in candidates(primary, created) if p.id not in papers)
        papers[paper.id] = paper
    return sorted(papers.values())


def draw_date(category: str, rng: Random) -> datetime:
    """Draw a moment of the category's era; submissions grow as a power of time, then jump."""
    year, month, growth = lookup(TABLES["eras"], category)
    start = datetime(year, month, 1)
    if rng.random() < RECENT_SHARE:
        start, growth = RECENT, 1
    return start + (LAST_INSTANT - start) * rng.random() ** (1 / growth)


def candidates(primary: str, created: datetime) -> Iterator[Paper]:
    """Yield the ids a paper may bear, nearest to its place in the month first."""
    month = f"{created:%y%m}"
    prefix, digits, size = month + ".", 5, 20_000
    if created < datetime(2007, 4, 1):
        prefix, digits, size = f"{primary.split('.')[0]}/{month}", 3, 999
    elif created < datetime(2015, 1, 1):
        digits, size = 4, 9_000
    first = int(size * (created.day - 1 + created.hour / 24) / 31)
    for i in range(size):
        number = (first + i) % size + 1
        yield Paper(f"{prefix}{number:0{digits}d}", primary, created)
    raise ValueError(f"no free arXiv id is left in {month}: generate fewer records")


def record(paper: Paper, rng: Random) -> tuple[dict, Likelihood]:
    """Make one record (fields in the snapshot's order) and the likelihood of its abstract."""
    text, likelihood = source(paper.primary).draw(rng)
    comments = draw_comments(rng)
    notice = rng.choice(TABLES["withdrawals"]).format(n=rng.randint(2, 9))
    fate = rng.random()
    if fate < WITHDRAWN_ABSTRACTS:
        text, likelihood = notice, Likelihood(1, None, None)
    elif fate < WITHDRAWN_ABSTRACTS + WITHDRAWN_COMMENTS:
        comments = rng.choice((notice, notice.upper(), notice.lower()))
    authors = [draw_author(rng) for _ in range(rng.choices((1, 2, 3, 4, 6), (3, 4, 3, 2, 1))[0])]
    names = [f"{given} {family}" for family, given, _ in authors]
    old = paper.created < FIRST_UPDATE
    versions = draw_versions(paper.created, rng)
    published, year = rng.random() < 0.5, paper.created.year
    volume, page = rng.randint(1, 120), rng.randint(1, 999)
    return {
        "id": paper.id,
        "submitter": names[0] if rng.random() < 0.98 else None,
        "authors": ", ".join(names).translate(str.maketrans(TABLES["tex_accents"]) if old else {}),
        "title": wrap(source(paper.primary).title(rng), "\n  "),
        "comments": comments,
        "journal-ref": f"Stand-in J. {volume} ({year}) {page}" if published else None,
        "doi": f"10.5555/standin.{year}.{volume}.{page}" if published and not old else None,
        "report-no": f"SI-{year % 100:02d}/{page}" if rng.random() < 0.1 else None,
        "categories": " ".join([paper.primary, *draw_cross_lists(paper, rng)]),
        "license": None if old else rng.choices(TABLES["licenses"], (8, 3, 1))[0],
        "abstract": "  " + wrap(text, "\n" if rng.random() < 0.85 else "\n  ") + "\n",
        "versions": [{"version": f"v{i}", "created": gmt(v)} for i, v in enumerate(versions, 1)],
        "update_date": f"{max(versions[-1], FIRST_UPDATE):%Y-%m-%d}",
        "authors_parsed": authors,
    }, likelihood


def wrap(text: str, line_break: str) -> str:
    """Break lines at blanks, at 78 columns; replacing `\\n\\s*` by a blank undoes it."""
    return line_break.join(re.findall(r"(\S.{0,77})(?: |$)", text))


def draw_comments(rng: Random) -> str | None:
    """Draw the authors' comments: a third of the papers has none."""
    if rng.random() < 0.33:
        return None
    parts = [f"{rng.randint(4, 60)} pages"]
    if rng.random() < 0.5:
        parts.append(f"{rng.randint(1, 15)} figures")
    if rng.random() < 0.2:
        parts.append(rng.choice(("LaTeX", "RevTeX4", "v2: references added", "typos corrected")))
    return ", ".join(parts)


def draw_author(rng: Random) -> list[str]:
    """Draw an author as family name, given name or initials, suffix."""
    given = rng.choice(TABLES["given_names"])[: rng.choice((1, None))]
    given += "." if len(given) == 1 else ""
    return [rng.choice(TABLES["family_names"]), given, "Jr" if rng.random() < 0.005 else ""]


def draw_cross_lists(paper: Paper, rng: Random) -> list[str]:
    """Draw up to two further categories among the neighbours of the paper's archive."""
    near = lookup(TABLES["cross_lists"], paper.primary)
    drawn = {rng.choice(near) for _ in range(rng.choices((0, 1, 2), (5, 3, 2))[0])}
    return sorted(drawn - {paper.primary})


def draw_versions(created: datetime, rng: Random) -> list[datetime]:
    """Draw the dates of all versions; most papers have one or two."""
    versions = [created]
    while len(versions) < 9 and rng.random() < 0.38:
        later = versions[-1] + timedelta(seconds=int(rng.expovariate(1 / 8e6)) + 3600)
        if later > LAST_INSTANT:
            break
        versions.append(later)
    return versions


def gmt(moment: datetime) -> str:
    """Spell a date as arXiv does, whatever the locale: `Mon, 2 Apr 2007 19:18:42 GMT`."""
    return format_datetime(moment.replace(tzinfo=UTC), usegmt=True).replace(", 0", ", ")


def generate(records: int, seed: int) -> Iterator[tuple[dict, Likelihood]]:
    """Draw the snapshot, record by record, in the order of the file.

    Parameters
    ----------
    records : int
        Number of records, a few hundred thousand at most (identifiers run out).
    seed : int
        The same seed and number give the same records, on any machine.

    Yields
    ------
    record : dict
        The 14 fields of the Kaggle snapshot. The primary category is the first of `categories`.
    likelihood : Likelihood
        In nats, exact, of the abstract as it is cleaned (`\\n\\s*` to a blank, then strip).

    Raises
    ------
    ValueError
        If there is no record to make, or no identifier left in some month.
    """
    if records < 1:
        raise ValueError(f"records must be at least 1, not {records}")
    rng = Random(seed)
    for paper in plan_papers(records, rng):
        yield record(paper, rng)


def make(experiment: Experiment) -> None:
    """Write an experiment's stand-in snapshot: the stage before curation."""
    settings, paths = experiment.data.stand_in, experiment.paths
    write(paths.snapshot, paths.likelihood, records=settings.records, seed=settings.seed)
    note(records=settings.records)


def write(snapshot: Path, likelihood: Path, *, records: int, seed: int) -> None:
    """Write the snapshot as JSON lines and the likelihood of its abstracts as parquet.

    Parameters
    ----------
    snapshot, likelihood : Path
        Where to write; folders are made. Each appears only when whole. The parquet holds `id`,
        `primary`, `sentences`, `loglik` and `loglik_end` (nats; null for withdrawn abstracts),
        one row per line of the snapshot.
    records, seed : int
        As for `generate`, errors included.
    """
    rows = []
    with writing(snapshot) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        for fields, known in generate(records, seed):
            # Escaped and without blanks, as the lines of the Kaggle file are.
            file.write(json.dumps(fields, separators=(",", ":")) + "\n")
            primary = fields["categories"].split()[0]
            rows.append({"id": fields["id"], "primary": primary, **known._asdict()})
    with writing(likelihood) as partial:
        pq.write_table(pa.Table.from_pylist(rows, COLUMNS), partial)
