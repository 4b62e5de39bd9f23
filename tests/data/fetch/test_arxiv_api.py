"""Abstracts by id from arXiv's API: asked in pieces, resumed, and whole or not at all."""

import time

import arxiv
import fake_arxiv
import pytest

from feyntune.data.fetch import arxiv_api, origins
from feyntune.errors import UserError

IDS = [f"2501.{number:05}" for number in range(250)]
TEXTS = {each: f"  We study {each},\n  where a < b & c.\n" for each in IDS}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with fake_arxiv.serving(TEXTS) as fake:
        monkeypatch.setattr(arxiv.Client, "query_url_format", fake.url + "/api/query?{}")
        yield fake


@pytest.fixture
def kept(tmp_path):
    return tmp_path / "kept" / "answers.jsonl"


def refused(kept, ids=IDS):
    with pytest.raises(UserError) as error:
        arxiv_api.papers("abstracts", ids, kept)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("abstracts: ")
    return message


def test_papers_are_as_a_snapshot_has_them(server, kept):
    found = arxiv_api.papers("abstracts", IDS, kept)
    assert list(found) == IDS
    paper = found[IDS[7]]
    assert paper.title == f"On the number {IDS[7]}"
    assert paper.categories == "hep-th math.AG"  # the primary one first
    assert paper.comments == "12 pages"
    assert paper.abstract == TEXTS[IDS[7]]
    assert paper.versions[0].created == "Thu, 01 May 2025 09:30:00 GMT"
    assert [len(ids) for ids in server.asked] == [100, 100, 50]


def test_the_clients_pauses_are_kept(server, kept, monkeypatch):
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    arxiv_api.papers("abstracts", IDS, kept)
    assert len(pauses) == 2
    assert all(2 < pause <= 3 for pause in pauses)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("cut", "an answer of arXiv's API is not whole: run the same command again"),
        ("broken", "the connection broke while arXiv's API was downloaded"),
        ("silent", "stopped answering"),
        ("other", "answered with '2501.99999', which was not asked for"),
        (503, "in trouble (status 503)"),
        (429, "asks to wait"),
    ],
)
def test_a_fetch_goes_on_where_it_stopped(server, kept, monkeypatch, fault, words):
    monkeypatch.setattr(origins, "TIMEOUT", (1, 0.2))
    server.good, server.fault = 1, fault
    assert words in refused(kept)
    assert len(kept.read_bytes().splitlines()) == 100
    with kept.open("ab") as file:
        file.write(b'{"id": "2501.00100", "title": "torn')
    server.good = None
    server.asked.clear()
    assert set(arxiv_api.papers("abstracts", IDS, kept)) == set(IDS)
    assert server.asked == [IDS[100:200], IDS[200:]]


def test_no_network(kept, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(arxiv.Client, "query_url_format", "http://127.0.0.1:9/?{}")
    message = refused(kept)
    assert "no connection to the server of arXiv's API" in message
    assert "--mirror" in message


def test_what_is_not_answered_is_asked_for_again_and_then_gone(server, kept):
    del server.abstracts[IDS[3]]
    server.abstracts[IDS[4]] = " \n"
    found = arxiv_api.papers("abstracts", IDS, kept)
    assert set(IDS) - set(found) == {IDS[3], IDS[4]}
    assert server.asked[3:] == [[IDS[3], IDS[4]]]


def test_none_of_the_ids_is_known(server, kept):
    server.abstracts.clear()
    assert "knows none of the 250 listed ids" in refused(kept)
