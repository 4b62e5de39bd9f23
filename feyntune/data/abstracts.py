"""The abstracts that curation kept: on disk in the snapshot's order, addressed by row number.

What follows selection (sampling, splitting, mixing) only needs to know how many there are, so it
handles row numbers; texts are read to be compared or written, one split at a time. What is done in
several processes goes through `in_parallel`.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import joblib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feyntune.errors import UserError

Task, Result = TypeVar("Task"), TypeVar("Result")
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "title": pa.string(),
        "categories": pa.string(),
        "primary": pa.string(),
        "year": pa.int64(),
        "abstract": pa.string(),
    }
)
# A few dozen bytes per row, kept in memory.
FACTS = ("id", "primary", "year")
ROWS_SPILT_AT_ONCE, ROWS_WRITTEN_AT_ONCE = 1_000, 20_000
# More processes would wait for the disk, and each takes memory.
MOST_PROCESSES = 4


def in_parallel(function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
    """Apply a function to tasks on all cores, up to four.

    A single task, or any on a single core, is done in this process.

    Parameters
    ----------
    function
        Importable by name, as are the functions inside a :class:`functools.partial`.
    tasks
        Taken a few ahead of the one that is worked on, so they need not fit in memory; the results
        that were not yet asked for must.

    Yields
    ------
    result
        In the order of the tasks. What a task raises is raised here.

    Raises
    ------
    UserError
        If a process was killed.
    """
    tasks = iter(tasks)
    first = list(islice(tasks, 2))
    processes = min(joblib.cpu_count(), MOST_PROCESSES) if len(first) > 1 else 1
    run = joblib.Parallel(
        processes,
        return_as="generator",
        batch_size=1,
        initializer=_end_with,
        initargs=(os.getpid(),),
    )
    try:
        yield from run(joblib.delayed(function)(task) for task in chain(first, tasks))
    except BrokenProcessPool:
        raise UserError(
            "A process that reads abstracts was killed, most likely because memory ran out: end "
            "other programs and run again."
        ) from None


def _end_with(parent: int) -> None:
    """In a process of `in_parallel`: end when its parent does, even if that is killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Piece(NamedTuple):
    """Consecutive rows on disk: an Arrow stream between two places of a file."""

    file: str
    start: int
    end: int
    facts: pa.Table


def spill(rows: Iterable[tuple], folder: Path) -> Piece:
    """Append rows of :data:`SCHEMA`, given one by one, to this process's file in a folder."""
    rows, facts = iter(rows), [SCHEMA.empty_table().select(FACTS)]
    path = folder / str(os.getpid())
    with path.open("ab") as file:
        start = file.tell()
        with pa.ipc.new_stream(file, SCHEMA) as stream:
            while some := list(islice(rows, ROWS_SPILT_AT_ONCE)):
                columns = zip(SCHEMA.types, zip(*some, strict=True), strict=True)
                batch = pa.record_batch([pa.array(c, kind) for kind, c in columns], schema=SCHEMA)
                stream.write_batch(batch)
                facts.append(pa.table(batch.select(FACTS)))
        end = file.tell()
    return Piece(path.name, start, end, pa.concat_tables(facts))


class Abstracts:
    """Rows of :data:`SCHEMA` in files that vanish with the process, however it ends.

    Attributes
    ----------
    facts
        Id, primary category and year of every row, in memory.
    """

    def __init__(self, folder: Path, pieces: Sequence[Piece]):
        """Take over the files of a folder, which is removed."""
        self._pieces = pieces
        self._files = {piece.file: (folder / piece.file).open("rb") for piece in pieces}
        # An open file outlives its name. On a network disk a trace of it may stay in the folder
        # until it is closed; the next run removes the folder.
        shutil.rmtree(folder, ignore_errors=True)
        facts = [SCHEMA.empty_table().select(FACTS), *(piece.facts for piece in pieces)]
        self.facts = pa.concat_tables(facts).combine_chunks()

    def __len__(self) -> int:
        return len(self.facts)

    def first_of_id(self) -> np.ndarray:
        """Boolean of every row: whether no row before it has its id."""
        codes = _encoded(self.facts["id"]).indices.to_numpy()
        # Codes are given in the order in which ids first appear, so a new id is a new maximum.
        return np.diff(np.maximum.accumulate(codes), prepend=-1) > 0

    def grouped(self, group: Callable[[str], str | None]) -> np.ndarray:
        """What a function of the primary category says of every row."""
        codes = _encoded(self.facts["primary"])
        names = np.array([group(name) for name in codes.dictionary.to_pylist()], dtype=object)
        return names[codes.indices.to_numpy()]

    def pieces(self) -> Iterator[tuple[int, pa.Table]]:
        """Yield some thousand rows at a time, with the number of the first of them."""
        starts = accumulate((len(piece.facts) for piece in self._pieces), initial=0)
        for piece, start in zip(self._pieces, starts, strict=False):
            file = self._files[piece.file]
            file.seek(piece.start)
            with pa.ipc.open_stream(file.read(piece.end - piece.start)) as stream:
                yield start, stream.read_all()

    def gather(self, rows: np.ndarray, columns: Sequence[str] = SCHEMA.names) -> pa.Table:
        """The given rows, in the order given."""
        table, places = self._gathered(rows, columns)
        return table.take(places)

    def write(self, rows: np.ndarray, path: Path) -> None:
        """Write rows as parquet: the same bytes for the same rows in the same order."""
        table, places = self._gathered(rows, SCHEMA.names)
        # Ids, titles and abstracts do not repeat: a dictionary of them would save nothing.
        repeating = ["categories", "primary", "year"]
        with pq.ParquetWriter(path, SCHEMA, use_dictionary=repeating) as writer:
            for start in range(0, len(rows), ROWS_WRITTEN_AT_ONCE):
                some = places[start : start + ROWS_WRITTEN_AT_ONCE]
                writer.write_table(table.take(some))

    def _gathered(self, rows: np.ndarray, columns: Sequence[str]) -> tuple[pa.Table, np.ndarray]:
        """The given rows in the files' order, and the place in it of each row given."""
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        found = [pa.schema([SCHEMA.field(name) for name in columns]).empty_table()]
        for start, table in self.pieces():
            first, end = np.searchsorted(ascending, (start, start + len(table)))
            if end > first:
                found.append(table.select(columns).take(ascending[first:end] - start))
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
        return pa.concat_tables(found).combine_chunks(), places


def _encoded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    return column.combine_chunks().dictionary_encode()
