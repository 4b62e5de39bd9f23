"""A large text file, plain or compressed, in blocks of whole lines."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pyarrow as pa

from feyntune.errors import UserError

# Large enough that handing a block to another process costs nothing beside the work on it.
BLOCK = 16 * 2**20
# Small enough that a line is still in the processor's cache when it is parsed: twice as fast.
BUFFER = 2**18
# The longest line of the snapshot is below 1 MB. One array of all records would be one line.
LONGEST_LINE = 4 * BLOCK
COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",  # of no files
}


class Stretch(NamedTuple):
    """Bytes of a plain file, which whoever works on them reads."""

    path: Path
    start: int
    end: int


Block = bytes | Stretch


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

    Of a plain file these are places in it; what is compressed (gzip, zstd, or a zip archive of one
    file, known by their first bytes) is decompressed on the way and never as a whole.

    Raises
    ------
    UserError
        If the file is missing or a folder, is compressed and cut short or damaged, or has a
        line too long to be a record.
    """
    if path.is_dir():
        raise UserError(f"The snapshot {path} is a folder; give a file of JSON lines.")
    if not path.is_file():
        raise UserError(f"The snapshot {path} does not exist.")
    with path.open("rb") as file:
        beginning = file.read(4)
    kind = next((kind for magic, kind in COMPRESSED.items() if beginning.startswith(magic)), None)
    return _decompressed(path, kind) if kind else _stretches(path)


def _stretches(path: Path) -> Iterator[Stretch]:
    start, size = 0, path.stat().st_size
    with path.open("rb") as file:
        while start < size:
            file.seek(min(start + BLOCK, size))
            if len(file.readline(LONGEST_LINE)) == LONGEST_LINE:
                raise _endless(path)
            yield Stretch(path, start, file.tell())
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
            if len(rest) >= LONGEST_LINE:
                raise _endless(path)
    if rest:
        yield rest


@contextmanager
def _opened(path: Path, kind: str) -> Iterator[BinaryIO]:
    """The contents of a compressed file, whose faults become errors of the user's."""
    try:
        if kind == "zip":
            with zipfile.ZipFile(path) as archive, archive.open(_only_file(path, archive)) as file:
                yield file
        else:
            with pa.input_stream(str(path), compression=kind) as file:
                yield file
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:
        # A zip archive has its list of files at the end, so what is cut short is none.
        early = isinstance(error, EOFError) or "Truncated" in str(error)
        if early or (kind == "zip" and not zipfile.is_zipfile(path)):
            said = f"ends early: the {kind} file is not whole. Copy or download it again."
        else:
            said = f"cannot be decompressed ({error}). Copy or download it again."
        raise UserError(f"The snapshot {path} {said}") from None


def _only_file(path: Path, archive: zipfile.ZipFile) -> str:
    """The one file of a zip archive, as Kaggle gives it."""
    names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    if len(names) != 1:
        raise UserError(
            f"The snapshot {path} is a zip archive of {len(names)} files; give one of a single "
            "file of JSON lines."
        )
    return names[0]


def _endless(path: Path) -> UserError:
    return UserError(
        f"The snapshot {path} has a line of more than {LONGEST_LINE >> 20} MiB; give a file of "
        "JSON lines, one record on each."
    )
