"""Abstracts by id from arXiv's API, through its maintained client, which keeps arXiv's pauses.

Answers are appended to a file as they arrive, so that an interrupted fetch asks only for the rest.
The client sets no timeout, and it mends an answer that was cut off; here both end the fetch.
"""

from __future__ import annotations

import re
from email.utils import format_datetime
from pathlib import Path

import arxiv
import msgspec
import requests
from lxml import etree
from tqdm import tqdm

from feyntune.data.fetch import origins
from feyntune.data.snapshot import Paper, Version
from feyntune.errors import UserError

# Ids in one request, and how often an id that was not answered is asked for.
PIECE, ROUNDS = 100, 2
DESCRIBED = "arXiv's API"
PAGE = "https://info.arxiv.org/help/api/"
_VERSION = re.compile(r"v\d+$")


class _Session(requests.Session):
    """Waits only so long, and takes no answer that is not whole."""

    def get(self, url: str, **options) -> requests.Response:
        answer = super().get(url, timeout=origins.TIMEOUT, **options)
        if answer.ok:
            # The client's own parser closes open elements and keeps half an abstract.
            etree.fromstring(answer.content, etree.XMLParser(resolve_entities=False))
        return answer


class _Client(arxiv.Client):
    """The client with a session of ours."""

    def __init__(self):
        super().__init__(page_size=PIECE)
        self._session = _Session()


def papers(name: str, ids: list[str], kept: Path) -> dict[str, Paper]:
    """Ask arXiv for papers, in the form that a snapshot has them.

    Parameters
    ----------
    name
        Of the source, for messages.
    kept
        A file of answers: those that it has are not asked for again, new ones are appended.

    Returns
    -------
    dict
        By id; without those that arXiv did not give though asked twice.

    Raises
    ------
    UserError
        If the API cannot be reached, or what it answers is not whole or not what was asked.
    """
    found = {paper.id: paper for paper in _read(kept) if paper.id in set(ids)}
    client = _Client()
    kept.parent.mkdir(parents=True, exist_ok=True)
    with (
        kept.open("ab") as file,
        tqdm(desc=name, total=len(ids), initial=len(found), disable=None, leave=False) as bar,
    ):
        for _ in range(ROUNDS):
            left = [each for each in ids if each not in found]
            for start in range(0, len(left), PIECE):
                answered = _ask(name, client, left[start : start + PIECE])
                file.writelines(msgspec.json.encode(paper) + b"\n" for paper in answered)
                file.flush()
                found |= {paper.id: paper for paper in answered}
                bar.update(len(answered))
    if not found:
        raise UserError(
            f"{name}: {DESCRIBED} knows none of the {len(ids):,} listed ids: check them, or try "
            "again later."
        )
    return found


def _read(kept: Path) -> list[Paper]:
    """The answers of an interrupted fetch; what was being written when it ended is dropped."""
    if not kept.is_file():
        return []
    content = kept.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        kept.write_bytes(whole)
    return [msgspec.json.decode(line, type=Paper) for line in whole.splitlines()]


def _ask(name: str, client: arxiv.Client, ids: list[str]) -> list[Paper]:
    """The papers of one request that have an abstract."""
    described = origins.Description(name, DESCRIBED, PAGE)
    try:
        with origins.explained(described):
            results = list(client.results(arxiv.Search(id_list=ids, max_results=len(ids))))
    except etree.XMLSyntaxError:
        raise UserError(
            f"{name}: an answer of {DESCRIBED} is not whole: run the same command again, what is "
            "whole is kept."
        ) from None
    except arxiv.UnexpectedEmptyPageError:
        raise UserError(f"{name}: {DESCRIBED} answered with less than it announced.") from None
    answered = list(map(_as_paper, results))
    strange = [paper.id for paper in answered if paper.id not in ids]
    if strange:
        raise UserError(
            f"{name}: {DESCRIBED} answered with {strange[0]!r}, which was not asked for: try again "
            "later."
        )
    return [paper for paper in answered if paper.abstract.strip()]


def _as_paper(result: arxiv.Result) -> Paper:
    """A result in the form of Kaggle's snapshot: the primary category comes first."""
    others = [each for each in result.categories if each != result.primary_category]
    return Paper(
        id=_VERSION.sub("", result.get_short_id()),
        title=result.title,
        comments=result.comment,
        categories=" ".join([result.primary_category, *others]),
        abstract=result.summary,
        versions=[Version(created=format_datetime(result.published, usegmt=True))],
    )
