"""Blinded rating sheets: the same prompt continued by many systems, without their names.

A sheet is for one rater. It exists as a page to rate in and as a CSV, both in the columns of the
published ratings, with a code in place of the system's name. A separate file, the key, says whose
completion each code is: see :mod:`feyntune.ratings.returned`.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup

from feyntune.errors import UserError, choose
from feyntune.evaluation.commercial.replies import ANSWERED
from feyntune.experiment.files import writing
from feyntune.experiment.sections import HumanEvaluation
from feyntune.paths import RATING_PAGE
from feyntune.ratings import mathml, means
from feyntune.ratings.means import COMMON, INDIVIDUAL, NAMES, Names

KEY_COLUMNS = ("code", "rater", "paper", "position", "model", "category", "source")
TEXTS = ("prompt", "completion")
KEY = "key.csv"
# Letters only, so that no spreadsheet takes a code for a number; no vowels, so no words.
LETTERS, CODE_LENGTH = "bcdfghjklmnpqrstvwxz", 10
# A spreadsheet takes a cell that begins with one of these for a formula.
FORMULA_SIGNS = ("=", "+", "-", "@")
# Words that may reveal who wrote a text.
REVEALING = re.compile(
    r"chat ?gpt|openai|claude|anthropic|gemini|deepseek|llama|as an ai|language model", re.I
)


def texts_to_rate(
    completions: Mapping[str, pd.DataFrame],
    commercial: Mapping[str, pd.DataFrame],
    apart: Collection[str] = (),
) -> dict[str, pd.DataFrame]:
    """Texts to rate by system: completions of our models, and answers of commercial ones.

    Parameters
    ----------
    completions, commercial
        Results of notebooks 04 and 05 by model and by provider. A provider that is not a system
        of the ratings, such as a stand-in, is left out.
    apart
        Providers whose answers are not set beside our completions.
    """
    answered = {
        name: frame[frame["status"] == ANSWERED]
        for name, frame in commercial.items()
        if name in NAMES and name not in apart
    }
    # Those that are committed with an experiment have no prompts: then there is no sheet, as one
    # without some of the models would mislead.
    ours = completions if all("prompt" in frame for frame in completions.values()) else {}
    return {**ours, **{name: frame for name, frame in answered.items() if len(frame)}}


def make(
    completions: Mapping[str, pd.DataFrame],
    settings: HumanEvaluation,
    papers: Sequence[str] | None = None,
    names: Names = NAMES,
) -> pd.DataFrame:
    """Choose papers and shuffle the completions of each, differently for every rater.

    Parameters
    ----------
    completions
        Of each system: ``id`` (arXiv id), ``prompt``, ``completion``.
    settings
        Raters, systems, numbers of papers, and the seed of every choice.
    papers
        arXiv ids that every rater gets, in this order, instead of drawn papers.
    names
        The systems that there can be: :func:`feyntune.ratings.means.names_with`.

    Returns
    -------
    DataFrame
        A row per completion to rate, in the order of the sheets: ``rater``, ``paper``, ``source``
        (common: of all raters), ``position`` (from 1), ``code``, ``system`` (our name),
        ``prompt``, ``completion``.

    Raises
    ------
    UserError
        If a system has no completions, there are too few papers, or a given one is not there.
    """
    systems = _systems(completions, settings.systems, names)
    texts = _texts(completions, systems)
    rows = []
    for rater, own in _papers(texts, settings, papers).items():
        for paper, source in own:
            order = _drawn(systems, settings.seed, rater, paper)
            for position, system in enumerate(order, start=1):
                prompt, completion = texts[paper][system]
                code = _code(settings.seed, rater, paper, position, prompt, completion)
                rows.append((rater, paper, source, position, code, system, prompt, completion))
    columns = ["rater", "paper", "source", "position", "code", "system", *TEXTS]
    return pd.DataFrame(rows, columns=columns)


def _systems(
    completions: Mapping[str, pd.DataFrame], wanted: list[str] | None, names: Names
) -> list[str]:
    """The systems to rate, in the order of the tables; by default all that there are."""
    for name in wanted or ():
        choose("system", name, names)
        if name not in completions:
            raise UserError(
                f"There are no completions of {name} to rate: notebook 04 writes those of our "
                "models, 05 those of commercial ones, which are not rated beside a stand-in's."
            )
    found = [name for name in names if name in (wanted or completions)]
    if not found:
        raise UserError(
            "There are no completions to rate; run 04_completions first, with --anew where results "
            "are committed: those have no prompts."
        )
    return found


def _texts(
    completions: Mapping[str, pd.DataFrame], systems: Sequence[str]
) -> dict[str, dict[str, tuple[str, str]]]:
    """Prompt and completion by paper and system, of the papers that every system completed."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for system in systems:
        for row in completions[system].itertuples():
            found.setdefault(row.id, {})[system] = (row.prompt, row.completion)
    texts = {paper: of for paper, of in found.items() if len(of) == len(systems)}
    for paper, of in texts.items():
        if len({prompt for prompt, _ in of.values()}) > 1:
            raise UserError(f"Systems completed different prompts of {paper}: complete it again.")
    return texts


def _papers(
    texts: Mapping[str, object], settings: HumanEvaluation, given: Sequence[str] | None
) -> dict[str, list[tuple[str, str]]]:
    """The papers of every rater: first those of all, then the rater's own."""
    absent = [paper for paper in given or () if paper not in texts]
    if absent:
        raise UserError(f"{absent[0]} is not an abstract that every system has completed.")
    rest = _drawn([paper for paper in texts if paper not in (given or ())], settings.seed)
    drawn = 0 if given else settings.shared_papers
    needed = drawn + settings.own_papers * len(settings.raters)
    if needed > len(rest):
        raise UserError(
            f"{needed} papers are to be drawn, {drawn} for all raters and {settings.own_papers} "
            f"for each of {len(settings.raters)}; only {len(rest)} are there: ask for fewer."
        )
    shared = [(paper, COMMON) for paper in given or rest[:drawn]]
    return {
        rater: shared
        + [(paper, INDIVIDUAL) for paper in rest[drawn:needed][at :: len(settings.raters)]]
        for at, rater in enumerate(settings.raters)
    }


def _drawn(items: Sequence[str], *seed: object) -> list[str]:
    """The items in a random order that depends on the seed only, not on machine or version."""
    return sorted(items, key=lambda item: _digest(*seed, item))


def _code(*parts: object) -> str:
    """A code made of what the rater sees anyway, so it does not reveal who wrote the completion."""
    number, letters = int(_digest(*parts), 16), ""
    for _ in range(CODE_LENGTH):
        number, digit = divmod(number, len(LETTERS))
        letters += LETTERS[digit]
    return letters


def _digest(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()


def revealing(items: pd.DataFrame) -> pd.DataFrame:
    """Completions with a word that may reveal the system: ``code``, ``system``, ``word``."""
    words = items["completion"].str.extract(f"({REVEALING.pattern})", flags=re.I)[0]
    found = items[["code", "system"]].assign(word=words).dropna(subset="word")
    return found.reset_index(drop=True)


def write(
    items: pd.DataFrame, folder: Path, label: str | None = None, names: Names = NAMES
) -> list[Path]:
    """Write the key and, for each rater, the page and the CSV.

    Parameters
    ----------
    items
        From :func:`make`.
    label
        What in the experiment is a stand-in; shown on the pages.
    names
        As for :func:`make`.

    Returns
    -------
    list of Path
        ``key.csv``, then ``sheets/<rater>.html`` and ``sheets/<rater>.csv`` of every rater.

    Raises
    ------
    UserError
        If the folder has a key already: without it, sheets given out earlier could not be read.
    """
    if (folder / KEY).exists():
        raise UserError(
            f"{folder} holds rating sheets and their key; write these to another folder."
        )
    named = [names[system] for system in items["system"]]
    key = items.assign(model=[name for name, _ in named], category=[kind for _, kind in named])
    written = [_csv(key[list(KEY_COLUMNS)], folder / KEY)]
    for rater, sheet in items.groupby("rater", sort=False):
        target = folder / "sheets" / f"{rater}.html"
        with writing(target) as partial:
            partial.write_text(page(sheet, label), encoding="utf-8", newline="\n")
        written += [target, _csv(_blinded(sheet), target.with_suffix(".csv"))]
    return written


def _blinded(sheet: pd.DataFrame) -> pd.DataFrame:
    """The columns of the published ratings, scores to be filled in, and the texts."""
    filled = sheet.assign(model=sheet["code"], score="", category="")
    for text in TEXTS:
        filled[text] = [f" {t}" if t.startswith(FORMULA_SIGNS) else t for t in filled[text]]
    return filled[[*means.COLUMNS, *TEXTS]]


def _csv(frame: pd.DataFrame, path: Path) -> Path:
    with writing(path) as partial:
        # With a byte order mark, without which Excel does not read UTF-8.
        frame.to_csv(partial, index=False, encoding="utf-8-sig", quoting=csv.QUOTE_MINIMAL)
    return path


def page(sheet: pd.DataFrame, label: str | None = None) -> str:
    """The sheet of one rater as one self-contained HTML page.

    Its content security policy allows only its own script, and loads nothing.
    """
    parts = {name: (RATING_PAGE / name).read_text("utf-8") for name in ("style.css", "script.js")}
    digest = hashlib.sha256(parts["script.js"].encode()).digest()
    papers = [
        {
            "id": paper,
            "source": own["source"].iloc[0],
            "prompt": Markup(mathml.render(own["prompt"].iloc[0])),
            "completions": [
                {"code": row.code, "text": Markup(mathml.render(row.completion.strip()))}
                for row in own.itertuples()
            ],
        }
        for paper, own in sheet.groupby("paper", sort=False)
    ]
    loader = jinja2.FileSystemLoader(RATING_PAGE)
    template = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True)
    return template.get_template("page.html").render(
        rater=sheet["rater"].iloc[0],
        label=label,
        sheet=_digest(*sheet["code"])[:16],
        papers=papers,
        count=len(sheet),
        style=Markup(parts["style.css"]),
        script=Markup(parts["script.js"]),
        script_hash=base64.b64encode(digest).decode(),
    )
