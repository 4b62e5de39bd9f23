"""The stand-in snapshot: its format, its quirks, its text, and the same bytes on every run."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from random import Random

import pyarrow.parquet as pq
import pytest

from feyntune.data.stand_in import corpus, language
from feyntune.paths import REPOSITORY

FIELDS = [
    "id", "submitter", "authors", "title", "comments", "journal-ref", "doi",
    "report-no", "categories", "license", "abstract", "versions", "update_date", "authors_parsed",
]  # fmt: skip
RECORDS = 3000


@pytest.fixture(scope="module")
def drawn() -> list[tuple[dict, language.Likelihood]]:
    return list(corpus.generate(RECORDS, seed=5))


def clean(text: str) -> str:
    return re.sub(r"\n\s*", " ", text).strip()


def test_sentences_can_be_told_apart(drawn):
    lengths = Counter()
    for record, known in drawn:
        sentences = re.split(r"(?<=[.!?])\s+", clean(record["abstract"]))
        assert len(sentences) == known.sentences
        for sentence in sentences:
            assert re.fullmatch(r"[A-Z][^.?!]*[.?]", sentence)
            assert not re.search(r"\b(\w+) \1\b|  |\ba [aeio]", sentence)
        lengths[known.sentences] += 1
    assert 0.005 < lengths[1] / RECORDS < 0.04
    assert sum(n for k, n in lengths.items() if 3 <= k <= 9) > 0.8 * RECORDS


def test_nearer_categories_share_more_words_with_hep_th():
    def words(category: str) -> Counter:
        rng = Random(1)
        texts = (corpus.source(category).draw(rng)[0] for _ in range(300))
        return Counter(w for text in texts for w in text.split())

    home = words("hep-th")

    def overlap(category: str) -> float:
        other = words(category)
        return sum(min(home[w] / home.total(), n / other.total()) for w, n in other.items())

    near, far = min(overlap("hep-ph"), overlap("gr-qc")), max(overlap("q-bio"), overlap("cs.CL"))
    assert near > far + 0.05


def test_records_have_the_fields_and_quirks_of_the_kaggle_file(drawn):
    ids = [record["id"] for record, _ in drawn]
    assert ids == sorted(set(ids)) and len(ids) == RECORDS
    assert set(corpus.EXCLUDED_IDS) <= set(ids)
    for record, _ in drawn:
        assert list(record) == FIELDS
        assert re.fullmatch(r"  \S[^\n]*(\n(  )?\S[^\n]*)*\n", record["abstract"])
        assert max(map(len, record["abstract"].split("\n"))) <= 80
        first = record["versions"][0]
        assert first["version"] == "v1"
        month = re.match(r"(?:[a-z-]+/)?(\d{4})", record["id"])[1]
        stamp = re.fullmatch(
            r"\w{3}, [1-9]\d? (\w{3}) (\d{4}) \d\d:\d\d:\d\d GMT", first["created"]
        )
        assert month[:2] == stamp[2][2:]
        assert month[2:] == f"{'JanFebMarAprMayJunJulAugSepOctNovDec'.index(stamp[1]) // 3 + 1:02d}"
        digits = "/" if "/" in record["id"] else len(record["id"].split(".")[1])
        date = int(stamp[2]) * 100 + int(month[2:])
        assert digits == ("/" if date < 200704 else 4 if date < 201501 else 5)
        assert "2007-05-23" <= record["update_date"] <= "2024-08-22"
        primary, *others = record["categories"].split()
        assert primary not in others
        if "/" in record["id"]:
            assert record["id"].startswith(primary.split(".")[0] + "/")
    column = {name: [record[name] for record, _ in drawn] for name in FIELDS}
    for name in ("comments", "journal-ref", "doi", "report-no", "license", "submitter"):
        assert 0 < column[name].count(None) < RECORDS
    assert any(len(v) > 2 for v in column["versions"])
    assert any("\n" in title for title in column["title"])
    assert any("$" in title for title in column["title"])
    assert any(not json.dumps(a, ensure_ascii=False).isascii() for a in column["authors_parsed"])
    assert any(" physics." in " " + c for c in column["categories"])


def test_primary_categories_come_in_arxivs_proportions(drawn):
    primaries = Counter(record["categories"].split()[0] for record, _ in drawn)
    for category, count in {"hep-th": 105_617, "hep-ph": 132_678, "gr-qc": 63_776}.items():
        assert abs(primaries[category] - RECORDS * count / 2_542_615) <= 1
    cs = sum(n for c, n in primaries.items() if c.startswith("cs."))
    assert cs / RECORDS == pytest.approx(534_243 / 2_542_615, rel=0.02)


def test_withdrawn_papers_have_no_likelihood_only_if_their_abstract_is_a_notice():
    notices = comments = 0
    for record, known in corpus.generate(6000, seed=1):
        notice = "withdrawn" in record["abstract"].lower()
        assert (known.loglik is None) == (known.loglik_end is None) == notice
        notices += notice
        comments += "withdrawn" in (record["comments"] or "").lower()
    assert 1 <= notices <= 15 and 6 <= comments <= 36


def test_files_are_whole_aligned_and_the_same_on_every_run(tmp_path):
    code = (
        "import sys; from pathlib import Path; from feyntune.data.stand_in import corpus; "
        "corpus.write(*map(Path, sys.argv[1:]), records=1200, seed=8)"
    )
    files, again = (
        [tmp_path / run / "snapshot.jsonl", tmp_path / run / "known.parquet"]
        for run in ("here", "elsewhere")
    )
    corpus.write(*files, records=1200, seed=8)
    environment = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", code, *again], check=True, env=environment)
    assert [f.read_bytes() for f in again] == [f.read_bytes() for f in files]
    names = sorted(p.name for p in files[0].parent.iterdir())
    assert names == ["known.parquet", "snapshot.jsonl"]
    records = [json.loads(line) for line in files[0].read_text(encoding="utf-8").splitlines()]
    expected = [record for record, _ in corpus.generate(1200, seed=8)]
    assert records == expected
    table = pq.read_table(files[1]).to_pydict()
    assert list(table) == ["id", "primary", "sentences", "loglik", "loglik_end"]
    assert table["id"] == [r["id"] for r in records]
    assert table["primary"] == [r["categories"].split()[0] for r in records]


def test_an_interrupted_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def broken(records, seed):
        yield next(corpus_generate(records, seed))
        raise KeyboardInterrupt

    corpus_generate = corpus.generate
    monkeypatch.setattr(corpus, "generate", broken)
    with pytest.raises(KeyboardInterrupt):
        corpus.write(tmp_path / "s.jsonl", tmp_path / "l.parquet", records=10, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_cleaning_gives_back_the_text_that_was_drawn():
    rng = Random(2)
    for _ in range(300):
        text, _ = corpus.source("hep-th").draw(rng)
        for line_break in ("\n", "\n  "):
            assert clean("  " + corpus.wrap(text, line_break) + "\n") == text


def test_too_few_records_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        list(corpus.generate(0, seed=0))
