"""A server on loopback that answers as arXiv's API does to a list of ids, and the faults it has."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

import loopback

ENTRY = """
<entry>
  <id>http://arxiv.org/abs/{id}v2</id>
  <updated>2025-06-03T10:00:00Z</updated>
  <published>2025-05-01T09:30:00Z</published>
  <title>On the
  number {id}</title>
  <summary>{abstract}</summary>
  <author><name>A. Nobody</name></author>
  <arxiv:comment>12 pages</arxiv:comment>
  <category term="math.AG" scheme="http://arxiv.org/schemas/atom"/>
  <category term="hep-th" scheme="http://arxiv.org/schemas/atom"/>
  <arxiv:primary_category term="hep-th"/>
</entry>"""
FEED = """<?xml version="1.0" encoding="UTF-8"?>
<feed xmlns="http://www.w3.org/2005/Atom" xmlns:arxiv="http://arxiv.org/schemas/atom"
  xmlns:opensearch="http://a9.com/-/spec/opensearch/1.1/">
<opensearch:totalResults>{count}</opensearch:totalResults>
<opensearch:itemsPerPage>100</opensearch:itemsPerPage>
<opensearch:startIndex>0</opensearch:startIndex>{entries}
</feed>"""


@dataclass
class FakeArxiv:
    """What the server knows, and what is wrong with it.

    Attributes
    ----------
    abstracts
        By id. An id that it lacks is left out of the answer, as arXiv does.
    good
        After so many answers the fault begins; ``None`` for no fault.
    fault
        ``cut`` (half an answer, said to be whole), ``broken`` (the connection ends half-way),
        ``silent``, ``other`` (a paper that was not asked for), or a status.
    asked
        The ids of every request.
    """

    abstracts: dict[str, str]
    url: str = ""
    good: int | None = None
    fault: str | int = "cut"
    asked: list[list[str]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def feed(self, ids: list[str]) -> bytes:
        known = [each for each in ids if each in self.abstracts]
        entries = [ENTRY.format(id=e, abstract=escape(self.abstracts[e])) for e in known]
        return FEED.format(count=len(known), entries="".join(entries)).encode()


class Handler(BaseHTTPRequestHandler):
    fake: FakeArxiv

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        fake = self.fake
        query = parse_qs(urlsplit(self.path).query)
        ids = query["id_list"][0].split(",")
        fake.asked.append(ids)
        faulty = fake.good is not None and len(fake.asked) > fake.good
        if faulty and isinstance(fake.fault, int):
            return self._send(b"", status=fake.fault)
        if faulty and fake.fault == "other":
            fake.abstracts["2501.99999"] = "Another."
            ids = ["2501.99999"]
        body = fake.feed(ids)
        if not faulty or fake.fault == "other":
            return self._send(body)
        if fake.fault == "cut":
            return self._send(body[: body.rindex(b"</summary>") - 10])
        return self._send(body[: len(body) // 2], length=len(body))

    def _send(self, body: bytes, status: int = 200, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/atom+xml")
        self.send_header("Content-Length", str(length or len(body)))
        self.end_headers()
        self.wfile.write(body)
        if length and self.fake.fault == "silent":
            self.wfile.flush()
            self.fake.ended.wait()
        self.close_connection = True


def serving(abstracts: dict[str, str]) -> AbstractContextManager[FakeArxiv]:
    """A server on a free port of loopback, as long as the block lasts."""
    return loopback.served(FakeArxiv(dict(abstracts)), Handler)
