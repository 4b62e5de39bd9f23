"""Reading an arXiv metadata snapshot: its records, its bad lines, and the file block by block.

The rules are those of the released notebook ``get-arxiv-metadata``: the primary category is the
first token of ``categories``, a paper is withdrawn if its comments say so in any case or its
abstract in one of two, and line breaks with what follows them become a space.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, BinaryIO, NamedTuple

import msgspec
import pyarrow as pa

from feyntune.errors import UserError

Text = Annotated[str, msgspec.Meta(min_length=1)]
LINE_BREAK, BLANK_AFTER_BREAK = re.compile(r"\n\s*"), re.compile(r"\n\s")
# After so many lines a file that is mostly unusable is read no further; the allowed share of bad
# lines is checked at the end, where alone it is known.
ENOUGH_LINES, HOPELESS = 1000, 0.5
EXAMPLES = 10
# Large enough that handing a block to another process costs little compared with the work on it.
BLOCK = 16 * 2**20
# Small enough that a line is still in the processor's cache when it is parsed: twice as fast.
BUFFER = 2**18
# The longest line of the snapshot is below 1 MB. One array of all records would be one line.
LONGEST_LINE = 4 * BLOCK
COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bz2",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",  # without files
}
# Other first bytes, and what the file must become.
OTHERWISE = {
    b"\xff\xfe": "is UTF-16: save it as UTF-8",
    b"\xfe\xff": "is UTF-16: save it as UTF-8",
    b"\xfd7zX": "is compressed by xz: decompress it",
    b"7z\xbc\xaf": "is a 7-Zip archive: unpack it",
}
# Some editors begin a UTF-8 file with it.
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Four digits after the point until 2014, five since; without a version. Who takes ids for numbers
# drops their outer zeros, and then they are no paper's, or another's.
ARXIV_ID = re.compile(
    r"(0[7-9]|1[0-4])\d\d\.\d{4}|(1[5-9]|[2-9]\d)\d\d\.\d{5}|[a-z-]+(\.[A-Z]{2})?/\d{7}"
)


class OddId(ValueError):
    """An id that is not written as arXiv writes it."""


def check_id(identifier: str) -> None:
    """Raise an error for an id that would match no other list of ids.

    A plain number or word is let pass: it is no arXiv id, but no damaged one either.
    """
    if not (identifier.isalnum() or ARXIV_ID.fullmatch(identifier)):
        raise OddId(f"the id {identifier!r} is no arXiv id; where ids are numbers, zeros are lost")


class Version(msgspec.Struct, gc=False):
    """One version of a paper."""

    created: str


class Paper(msgspec.Struct, gc=False):
    """What curation reads of a record of Kaggle's ``Cornell-University/arxiv``.

    A line whose fields are missing, or of other types than these, cannot be used.
    """

    # In the order of the file, in which they are found faster.
    id: Text
    title: Text
    comments: str | None
    categories: Text
    abstract: str
    versions: list[Version]

    @property
    def withdrawn(self) -> bool:
        """The released rule, in its two parts with their two treatments of case."""
        if self.comments and "withdrawn" in self.comments.lower():
            return True
        abstract = self.abstract
        # One search instead of two where there is no such word.
        return "ithdrawn" in abstract and ("Withdrawn" in abstract or "withdrawn" in abstract)


def clean(text: str) -> str:
    """Line breaks and the blanks after them become one space; the ends are stripped."""
    indented = BLANK_AFTER_BREAK.search(text)  # rare; without it a plain replacement is the same
    return (LINE_BREAK.sub(" ", text) if indented else text.replace("\n", " ")).strip()


@dataclass
class Reading:
    """The lines read so far.

    Attributes
    ----------
    lines, bad
        Lines read, and lines that could not be used.
    blank
        Lines with nothing in them, which are in neither.
    examples
        Line number and reason of the first bad lines.
    """

    lines: int = 0
    bad: int = 0
    blank: int = 0
    examples: list[tuple[int, str]] = field(default_factory=list)

    @property
    def hopeless(self) -> bool:
        """Whether the first lines show that this is another kind of file."""
        return self.lines == ENOUGH_LINES and self.bad > HOPELESS * ENOUGH_LINES

    def reject(self, reason: str) -> None:
        """Count the line just read as bad."""
        self.bad += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append((self.lines + self.blank, reason))

    def add(self, further: Reading) -> None:
        """Append what was found in the lines that follow."""
        before = self.lines + self.blank
        moved = [(before + number, reason) for number, reason in further.examples]
        self.examples = [*self.examples, *moved][:EXAMPLES]
        self.lines += further.lines
        self.bad += further.bad
        self.blank += further.blank

    def check(self, path: Path, bad_lines_allowed: float) -> None:
        """Raise a UserError for a file that is empty or has too many bad lines."""
        if self.lines == 0:
            raise UserError(f"The snapshot {path} is empty.")
        if self.bad > bad_lines_allowed * self.lines:
            shown = "; ".join(f"line {number}: {reason}" for number, reason in self.examples)
            raise UserError(
                f"The snapshot {path} is not whole: {self.bad} of {self.lines} lines cannot be "
                f"used ({shown}), more than the {bad_lines_allowed:.2%} that "
                "data.bad_lines_allowed allows."
            )


def parse(
    lines: Iterable[bytes], reading: Reading, *, from_start: bool
) -> Iterator[tuple[Paper, str, int]]:
    """Yield the usable papers among lines; count the others with their reasons.

    Parameters
    ----------
    lines
        With their ends; only the last one of a file can be without.
    from_start
        Whether ``reading`` counts from the start of the file, whose first lines may show that the
        rest is not worth reading.

    Yields
    ------
    paper, primary, year
        A paper, its primary category, and the year of its first version.
    """
    decode, well_formed = msgspec.json.Decoder(Paper).decode, ARXIV_ID.fullmatch
    for line in lines:
        if from_start and reading.lines + reading.blank == 0:
            line = line.removeprefix(BYTE_ORDER_MARK)
        if line.isspace():
            reading.blank += 1
            continue
        reading.lines += 1
        try:
            paper = decode(line)
            if not well_formed(paper.id):
                check_id(paper.id)
            primary = paper.categories.split(None, 1)[0]
            # Of "Mon, 2 Apr 2007 19:18:42 GMT".
            year = int(paper.versions[0].created.split(None, 4)[3])
        except (ValueError, IndexError) as error:
            if isinstance(error, msgspec.ValidationError | OddId):
                reason = str(error)
            elif b": NaN" in line or b":NaN" in line:
                reason = "NaN, which is not JSON; pandas writes it for what is missing"
            elif isinstance(error, msgspec.DecodeError | UnicodeDecodeError):
                reason = f"not JSON ({error})"
            else:
                reason = f"no {'date in versions' if paper.categories.strip() else 'category'}"
            end = "" if line.endswith(b"\n") else "; the file ends in the middle of it"
            reading.reject(f"{reason}{end}")
        else:
            yield paper, primary, year
        if from_start and reading.hopeless:
            return


def papers(
    path: Path, reading: Reading, *, bad_lines_allowed: float
) -> Iterator[tuple[Paper, str, int]]:
    """Yield the usable papers of a snapshot as :func:`parse` does, few of them in memory.

    Parameters
    ----------
    path
        JSON lines in the format of Kaggle's ``Cornell-University/arxiv``, plain or compressed.
    reading
        Filled in while reading.
    bad_lines_allowed
        Share of lines that may be unusable; they are skipped and counted.

    Raises
    ------
    UserError
        If the file cannot be read (see `blocks`), is empty, or too many lines are unusable.
    """
    for block in blocks(path):
        yield from parse(lines(block), reading, from_start=True)
        if reading.hopeless:
            break
    reading.check(path, bad_lines_allowed)


class FileRange(NamedTuple):
    """Bytes of a plain file; the process that works on them reads them."""

    path: Path
    start: int
    end: int


Block = bytes | FileRange


def lines(block: Block) -> Iterator[bytes]:
    """The lines of a block with their ends, few of them in memory at once."""
    if isinstance(block, bytes):
        yield from io.BytesIO(block)
        return
    with block.path.open("rb", buffering=BUFFER) as file:
        file.seek(block.start)
        left = block.end - block.start
        for line in file:
            yield line
            left -= len(line)
            if not left:
                break


def blocks(path: Path) -> Iterator[Block]:
    """Cut a file at ends of lines, into blocks of about 16 MiB.

    A plain file is cut into ranges. A compressed one (gzip, zstd, bzip2, or a zip archive of one
    file, known by their first bytes) is decompressed on the way, never as a whole.

    Raises
    ------
    UserError
        If the file is missing or a folder, is UTF-16 or compressed in another way, is cut short
        or damaged, or has a line too long to be a record.
    """
    if path.is_dir():
        raise UserError(f"The snapshot {path} is a folder; give a file of JSON lines.")
    if not path.is_file():
        raise UserError(f"The snapshot {path} does not exist.")
    with path.open("rb") as file:
        beginning = file.read(4)
    kind, otherwise = (
        next((what for magic, what in known.items() if beginning.startswith(magic)), None)
        for known in (COMPRESSED, OTHERWISE)
    )
    if otherwise:
        raise UserError(f"The snapshot {path} {otherwise}.")
    return _decompressed(path, kind) if kind else _ranges(path)


def _ranges(path: Path) -> Iterator[FileRange]:
    start, size = 0, path.stat().st_size
    with path.open("rb") as file:
        while start < size:
            file.seek(min(start + BLOCK, size))
            _check_length(path, len(file.readline(LONGEST_LINE)))
            yield FileRange(path, start, file.tell())
            start = file.tell()


def _decompressed(path: Path, kind: str) -> Iterator[bytes]:
    rest = b""
    with _opened(path, kind) as stream:
        while chunk := stream.read(BLOCK):
            end = chunk.rfind(b"\n") + 1
            if end:
                yield rest + chunk[:end]
                rest = b""
            rest += chunk[end:]
            _check_length(path, len(rest))
    if rest:
        yield rest


@contextmanager
def _opened(path: Path, kind: str) -> Iterator[BinaryIO]:
    """The contents of a compressed file; if they cannot be read, a UserError says why."""
    try:
        if kind == "zip":
            with zipfile.ZipFile(path) as archive, archive.open(_zipped(path, archive)) as file:
                yield file
        else:
            with pa.input_stream(str(path), compression=kind) as file:
                yield file
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:
        # A zip archive has its list of files at the end, which is missing if it was cut short.
        early = isinstance(error, EOFError) or "Truncated" in str(error)
        if early or (kind == "zip" and not zipfile.is_zipfile(path)):
            said = f"ends early: the {kind} file is not whole. Copy or download it again."
        else:
            said = f"cannot be decompressed ({error}). Copy or download it again."
        raise UserError(f"The snapshot {path} {said}") from None


def _zipped(path: Path, archive: zipfile.ZipFile) -> str:
    """The one file of a zip archive, as Kaggle gives it; a Mac adds notes of its own."""
    names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    names = [name for name in names if not name.startswith("__MACOSX/")]
    if len(names) != 1:
        raise UserError(
            f"The snapshot {path} is a zip archive of {len(names)} files; give one of a single "
            "file of JSON lines."
        )
    return names[0]


def _check_length(path: Path, read: int) -> None:
    """Raise a UserError if so many bytes were read without the end of a line."""
    if read >= LONGEST_LINE:
        raise UserError(
            f"The snapshot {path} has a line of more than {LONGEST_LINE >> 20} MiB; give a file of "
            "JSON lines, one record on each."
        )
