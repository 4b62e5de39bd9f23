"""Reading a snapshot: the rules for a record, bad lines, bad and compressed files, blocks."""

import bz2
import gzip
import io
import json
import lzma
import re
import zipfile
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from snapshots import assert_adds_up, paper, refusal, select

from feyntune.data import snapshot


def as_paper(**record) -> snapshot.Paper:
    return msgspec.convert(paper("1", **record), snapshot.Paper)


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("  We study strings.\n", "We study strings."),
        ("  We study\nstrings.\n", "We study strings."),
        ("  First.\n  Second\n\t third.\n", "First. Second third."),
        ("One\n\n\nTwo", "One Two"),
        # What does not follow a line break stays: two blanks, tabs, a blank before the break.
        ("a  b\tc", "a  b\tc"),
        ("a \nb", "a  b"),
        (r"TeX $\nu$ and \newline", r"TeX $\nu$ and \newline"),
        ("PACS: 11.25\n", "PACS: 11.25"),
        (" \n \n", ""),
    ],
)
def test_cleaning_is_the_published_rule(raw, cleaned):
    assert snapshot.clean(raw) == cleaned
    assert re.sub(r"\n\s*", " ", raw).strip() == cleaned, "and so says the released notebook"


@pytest.mark.parametrize(
    ("comments", "abstract", "gone"),
    [
        (None, "We study.", False),
        ("12 pages", "We study.", False),
        ("This paper has been withdrawn", "We study.", True),
        ("WITHDRAWN by the author", "We study.", True),
        ("wItHdRaWn", "We study.", True),
        (None, "This paper has been withdrawn by the author.", True),
        (None, "Withdrawn.", True),
        # The rule for abstracts knows two spellings only.
        (None, "WITHDRAWN", False),
        ("not with-drawn", "We withdraw nothing.", False),
    ],
)
def test_withdrawn_is_the_published_rule(comments, abstract, gone):
    assert as_paper(comments=comments, abstract=abstract).withdrawn is gone


def test_year_is_of_the_first_version(file):
    dates = ["Thu, 31 Dec 1992 23:59:59 GMT", "Fri, 1 Jan 1993 00:00:01 GMT"]
    versions = [{"version": f"v{i}", "created": date} for i, date in enumerate(dates, 1)]
    rows, _ = select(file(paper("1", versions=versions)))
    assert rows["hep-th"][0]["year"] == 1992


def test_other_fields_and_characters_pass_unchanged(file):
    text = "Schrödinger’s α–β, 量子 🙂 \\'etale"
    path = file(paper("1", abstract=text, doi=None, submitter="x"), paper("2", abstract=text))
    assert [row["abstract"] for row in select(path)[0]["hep-th"]] == [text, text]
    # Escaped, as Kaggle's file is, or not: the same text.
    path.write_text(json.dumps(paper("1", abstract=text), ensure_ascii=False) + "\n", "utf-8")
    assert select(path)[0]["hep-th"][0]["abstract"] == text


def test_no_line_break_at_the_end_is_no_error(file):
    path = file(paper("1"), json.dumps(paper("2")).encode())
    assert [row["id"] for row in select(path)[0]["hep-th"]] == ["1", "2"]


def test_windows_line_ends_are_read(file):
    path = file(json.dumps(paper("1")).encode() + b"\r\n", json.dumps(paper("2")).encode())
    assert [row["id"] for row in select(path)[0]["hep-th"]] == ["1", "2"]


@pytest.mark.parametrize("identifier", ["0704.0799", "1412.1230", "1501.00010", "2507.00001",
                                        "hep-th/9901001", "math.GT/0309136"])  # fmt: skip
def test_ids_as_arxiv_writes_them_are_read(file, identifier):
    assert [row["id"] for row in select(file(paper(identifier)))[0]["hep-th"]] == [identifier]


def test_a_byte_order_mark_costs_no_record(file):
    path = file(paper("1"), paper("2"))
    plain = path.read_bytes()
    for content in (plain, gzip.compress(b"\xef\xbb\xbf" + plain), b"\xef\xbb\xbf" + plain):
        path.write_bytes(content)
        rows, counts = select(path)
        assert [row["id"] for row in rows["hep-th"]] == ["1", "2"]
        assert (counts["lines"], counts["bad_lines"]) == (2, 0)


def test_blank_lines_are_no_records(file):
    """At the end of a file, and where several were put together; numbers are those of lines."""
    path = file(paper("1"), b"\n", b" \r\n", b"{\n", paper("2"), b"\n")
    rows, counts = select(path, bad_lines_allowed=0.4)
    assert [row["id"] for row in rows["hep-th"]] == ["1", "2"]
    assert (counts["lines"], counts["bad_lines"]) == (3, 1)
    assert counts["bad_line_examples"][0][0] == 4
    assert refusal(file(b"\n", b"\n")).endswith("is empty.")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (json.dumps(paper("1")).encode("utf-16"), "is UTF-16: save it as UTF-8"),
        (lzma.compress(b"{}\n"), "is compressed by xz: decompress it"),
    ],
)
def test_another_encoding_is_named(file, content, said):
    assert said in refusal(file(content), bad_lines_allowed=1.0)


def test_missing_file(tmp_path):
    assert refusal(tmp_path / "none.json").endswith("does not exist.")


def test_folder(tmp_path):
    assert "is a folder; give a file" in refusal(tmp_path)


def test_empty_file(file):
    assert refusal(file()).endswith("is empty.")


def test_csv(file):
    path = file(b"id,title,abstract\n", *(b"1,A title,We study.\n" for _ in range(40)))
    message = refusal(path, bad_lines_allowed=0.001)
    assert "41 of 41 lines cannot be used" in message
    assert "line 1: not JSON" in message
    assert "line 10: Expected `object`, got `int`" in message
    assert "line 11" not in message, "ten examples are enough"


def test_one_array_instead_of_lines(file):
    path = file(json.dumps([paper("1"), paper("2")]).encode())
    assert "line 1: Expected `object`, got `array`" in refusal(path)


def test_an_endless_line(file, monkeypatch):
    """An array of all records, without a line break, is not read into memory."""
    monkeypatch.setattr(snapshot, "LONGEST_LINE", 3000)
    monkeypatch.setattr(snapshot, "BLOCK", 1000)
    path = file(json.dumps([paper(str(i)) for i in range(100)]).encode())
    assert "has a line of more than" in refusal(path)
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert "has a line of more than" in refusal(path)


WHOLE = json.dumps(paper("9", abstract="We study strings."))
NO_TEXT = "Expected `str` of length >= 1 - at `$."
BAD_LINES = [
    (WHOLE[: len(WHOLE) // 2].encode() + b"\n", "not JSON (JSON is malformed"),
    (WHOLE.encode().replace(b"strings", b"str\xff\xfengs") + b"\n", "not JSON ('utf-8' codec"),
    (b"{'id': '1'}\n", "not JSON (JSON is malformed"),
    (WHOLE.encode() * 2 + b"\n", "not JSON (JSON is malformed: trailing"),
    (paper("704.0799"), "the id '704.0799' is no arXiv id; where ids are numbers, zeros are lost"),
    (paper("1501.1234"), "the id '1501.1234' is no arXiv id"),
    (paper("1205.2080v2"), "the id '1205.2080v2' is no arXiv id"),
    (paper("arXiv:1205.2080"), "the id 'arXiv:1205.2080' is no arXiv id"),
    (paper("1205.2080 "), "the id '1205.2080 ' is no arXiv id"),
    (paper("9", doi=float("nan")), "NaN, which is not JSON; pandas writes it"),
    (b"null\n", "Expected `object`, got `null`"),
    ({"id": "9", "title": "t"}, "Object missing required field `comments`"),
    ({k: v for k, v in paper("9").items() if k != "comments"}, "Object missing required field"),
    (paper("9", abstract=None), "Expected `str`, got `null` - at `$.abstract`"),
    (paper("9", title=None), "Expected `str`, got `null` - at `$.title`"),
    (paper("9", categories=""), NO_TEXT + "categories`"),
    (paper("9", categories="  "), "no category"),
    (paper(""), NO_TEXT + "id`"),
    (paper("9", title=""), NO_TEXT + "title`"),
    # What another tool made of the file: numbers for ids, lists for categories.
    (paper(704.0001), "Expected `str`, got `float` - at `$.id`"),
    (paper("9", categories=["hep-th"]), "Expected `str`, got `array` - at `$.categories`"),
    (paper("9", title=5), "Expected `str`, got `int` - at `$.title`"),
    (paper("9", comments=5), "Expected `str | null`, got `int` - at `$.comments`"),
    (paper("9", versions=None), "Expected `array`, got `null` - at `$.versions`"),
    (paper("9", versions=[]), "no date in versions"),
    (paper("9", versions=[{"created": "2007-04-02"}]), "no date in versions"),
    (paper("9", versions=[{"created": None}]), "Expected `str`, got `null` - at `$.versions[0]."),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES, ids=range(len(BAD_LINES)))
def test_bad_line_is_skipped_counted_and_reported(file, line, reason):
    path = file(paper("1"), paper("2"), line, paper("3"))
    rows, counts = select(path, bad_lines_allowed=0.25)
    assert [row["id"] for row in rows["hep-th"]] == ["1", "2", "3"]
    assert counts["bad_lines"] == 1
    ((number, said),) = counts["bad_line_examples"]
    assert number == 3
    assert said.startswith(reason)
    assert "\n" not in said
    assert_adds_up(rows, counts)
    # One bad line in four is more than a fifth, and then nothing is returned.
    message = refusal(path, bad_lines_allowed=0.2)
    assert f"1 of 4 lines cannot be used (line 3: {reason}" in message
    assert "more than the 20.00% that data.bad_lines_allowed allows" in message


def test_file_cut_off_in_its_last_line(synthetic, tmp_path):
    whole = synthetic.read_bytes()
    path = tmp_path / "cut.json"
    path.write_bytes(whole[: whole.rstrip(b"\n").rfind(b"\n") + 100])
    rows, counts = select(path, bad_lines_allowed=0.001)
    assert counts["lines"] == 1500
    assert counts["bad_lines"] == 1
    assert counts["bad_line_examples"][0][0] == 1500
    assert_adds_up(rows, counts)
    message = refusal(path, bad_lines_allowed=0.0)
    assert "line 1500: not JSON" in message and "the file ends in the middle of it" in message


def test_early_bad_lines_of_a_long_file_do_not_refuse_it(file):
    """Two of the first thousand are more than 0.1 %, two of three thousand are not."""
    bad = [b"{\n"] * 2
    path = file(*bad, *(paper(str(i)) for i in range(2998)))
    rows, counts = select(path, bad_lines_allowed=0.001)
    assert (counts["lines"], counts["bad_lines"], len(rows["hep-th"])) == (3000, 2, 2998)


def test_a_long_file_of_another_kind_is_given_up_early(file):
    path = file(*[b"id,title\n"] * 5000)
    assert "1000 of 1000 lines cannot be used" in refusal(path)


def test_share_is_of_the_whole_file_and_not_of_its_first_lines(file):
    bad = [b"{\n"] * 2
    rows, counts = select(file(*bad, *(paper(str(i)) for i in range(98))), bad_lines_allowed=0.02)
    assert len(rows["hep-th"]) == 98
    assert counts["bad_lines"] == 2
    too_few = file(*bad, *(paper(str(i)) for i in range(97)))
    assert "2 of 99 lines" in refusal(too_few, bad_lines_allowed=0.02)


def test_a_large_bad_file_is_given_up_early(file, monkeypatch):
    """A wrong file of gigabytes is not read to its end."""
    monkeypatch.setattr(snapshot, "ENOUGH_LINES", 50)
    message = refusal(file(*(b"not json\n" for _ in range(5000))), bad_lines_allowed=0.001)
    assert "50 of 50 lines cannot be used" in message


def zipped(path: Path, *files: bytes, compression=zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.mkdir("folder")
        for number, content in enumerate(files):
            archive.writestr(f"folder/{number}.json", content)
    return path


def compressed(kind: str, content: bytes) -> bytes:
    if kind == "zip":
        with io.BytesIO() as buffer:
            zipped(buffer, content)
            return buffer.getvalue()
    by = {"gzip": gzip.compress, "bz2": bz2.compress}
    return by[kind](content) if kind in by else pa.compress(content, kind).to_pybytes()


COMPRESSED = ("gzip", "zstd", "bz2", "zip")


@pytest.mark.parametrize("kind", COMPRESSED)
def test_compressed_snapshot_gives_the_same(synthetic, tmp_path, monkeypatch, kind):
    """Whatever its name says, and wherever blocks end."""
    path = tmp_path / "snapshot.json"
    path.write_bytes(compressed(kind, synthetic.read_bytes()))
    expected = select(synthetic)
    assert select(path) == expected
    monkeypatch.setattr(snapshot, "BLOCK", 50_000)
    assert select(path) == expected


def test_several_gzip_files_in_one(file, tmp_path):
    path = tmp_path / "parts.gz"
    whole = file(paper("1"), paper("2")).read_bytes()
    path.write_bytes(gzip.compress(whole[:100]) + gzip.compress(whole[100:]))
    assert [row["id"] for row in select(path)[0]["hep-th"]] == ["1", "2"]


@pytest.mark.parametrize("left", [0.1, 0.5, 0.999])
@pytest.mark.parametrize("kind", COMPRESSED)
def test_compressed_file_cut_short(synthetic, tmp_path, kind, left):
    path = tmp_path / "cut"
    whole = compressed(kind, synthetic.read_bytes())
    path.write_bytes(whole[: int(left * len(whole))])
    message = refusal(path, bad_lines_allowed=0.5)
    assert f"ends early: the {kind} file is not whole" in message


@pytest.mark.parametrize("kind", COMPRESSED)
def test_compressed_file_with_wrong_bytes(synthetic, tmp_path, kind):
    path = tmp_path / "wrong"
    whole = bytearray(compressed(kind, synthetic.read_bytes()))
    middle = len(whole) // 2
    whole[middle : middle + 50] = bytes(50)
    path.write_bytes(whole)
    assert "cannot be" in refusal(path, bad_lines_allowed=0.0)


@pytest.mark.parametrize("kind", COMPRESSED)
def test_compressed_empty_file(tmp_path, kind):
    path = tmp_path / "empty"
    path.write_bytes(compressed(kind, b""))
    assert refusal(path).endswith("is empty.")


def test_a_zip_archive_of_a_mac_is_read(file):
    path = file(paper("1"))
    content = path.read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("snapshot.json", content)
        archive.writestr("__MACOSX/._snapshot.json", b"\0\5\x16\7Mac OS X")
    assert len(select(path)[0]["hep-th"]) == 1


@pytest.mark.parametrize("files", [0, 2])
def test_zip_archive_must_have_one_file(tmp_path, files):
    path = zipped(tmp_path / "snapshot.zip", *[json.dumps(paper("1")).encode()] * files)
    assert f"is a zip archive of {files} files; give one of a single file" in refusal(path)


@pytest.mark.parametrize("length", range(1, 12))
def test_every_line_is_in_one_block(tmp_path, monkeypatch, length):
    monkeypatch.setattr(snapshot, "BLOCK", length)
    path = tmp_path / "lines"
    whole = b"a\n\nbcd\nefghijkl\n\nm"
    path.write_bytes(whole)
    cut = [b"".join(snapshot.lines(block)) for block in snapshot.blocks(path)]
    assert b"".join(cut) == whole
    assert all(block.endswith(b"\n") for block in cut[:-1])
