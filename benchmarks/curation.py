"""How fast curation is, beside other ways to read a snapshot of arXiv's metadata.

    python benchmarks/curation.py                  # 4.7 GB, as the paper's snapshot
    python benchmarks/curation.py --gigabytes 0.5

Every row is measured in a process of its own. Times leave out imports; memory is the sum of the
resident memory of the process and all its children, at its peak.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import psutil
import pyarrow as pa

LINE_BYTES = 1850  # mean of snapshot v193: 4.7 GB, 2.54 million lines
ABSTRACT_CHARACTERS = (1000, 370)  # mean and deviation, about those of all arXiv
AUTHORS = 9  # mean, such that a line has LINE_BYTES
TEMPLATES = 18_000
ID = "@id@"
KEPT = ("hep-th", "hep-ph", "gr-qc", "q-bio.", "cs.")


# --- the file ---------------------------------------------------------------------------------


def templates(number: int) -> list[bytes]:
    """Lines of stand-in records with abstracts and author lists as long as real ones."""
    from feyntune.data.stand_in import corpus

    random = Random(1)
    records = [record for record, _ in corpus.generate(max(1000, number // 3), seed=1)]
    texts = [" ".join(record["abstract"].split()) for record in records]
    authors = [author for record in records for author in record["authors_parsed"]]
    lines = []
    for i in range(number):
        record, text = dict(records[i % len(records)]), ""
        characters = int(max(50, random.gauss(*ABSTRACT_CHARACTERS)))
        while len(text) < characters:
            text = f"{text} {random.choice(texts)}".strip()
        some = random.choices(authors, k=1 + int(random.expovariate(1 / (AUTHORS - 1))))
        record["id"] = ID
        record["abstract"] = "  " + corpus.wrap(text[:characters].strip(), "\n") + "\n"
        record["authors"] = ", ".join(f"{given} {family}" for family, given, _ in some)
        record["authors_parsed"] = some
        lines.append(json.dumps(record, separators=(",", ":")).encode() + b"\n")
    return lines


def write(path: Path, size: int) -> int:
    """Write the snapshot, its templates over and over under fresh ids; return its lines."""
    lines = templates(min(TEMPLATES, max(1500, size // LINE_BYTES)))
    number = written = 0
    with path.open("wb") as file:
        while written < size:
            month, paper = divmod(number, 100_000)
            fresh = b"%04d.%05d" % (1500 + month, paper)
            # A step that is prime to their number, so that fields take turns.
            line = lines[number * 7919 % len(lines)].replace(ID.encode(), fresh, 1)
            written += file.write(line)
            number += 1
    return number


def tenth_of(path: Path) -> Path:
    """The first tenth of the lines, plain and compressed in three ways."""
    tenth, left = path.with_name("tenth.json"), path.stat().st_size // 10
    with path.open("rb") as file, tenth.open("wb") as some:
        for line in file:
            left -= some.write(line)
            if left < 0:
                break
    with tenth.open("rb") as file, gzip.open(f"{tenth}.gz", "wb", compresslevel=6) as packed:
        shutil.copyfileobj(file, packed)
    with tenth.open("rb") as file, pa.output_stream(f"{tenth}.zst", compression="zstd") as packed:
        shutil.copyfileobj(file, packed)
    with zipfile.ZipFile(f"{tenth}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tenth, tenth.name)
    return tenth


# --- the ways: each imports what it needs, then returns what is to be timed -------------------


def line_scan(path: Path, folder: Path) -> Callable[[], int]:
    def work() -> int:
        with path.open("rb") as file:
            return sum(1 for _ in file)

    return work


def ours(path: Path, folder: Path) -> Callable:
    from feyntune.data import selection
    from feyntune.experiment import load as experiment

    fields = experiment.load("demo").fields
    return lambda: selection.select(
        path, folder / "own", fields=fields, excluded_ids=[], bad_lines_allowed=0.0
    )


def ours_datasets(path: Path, folder: Path) -> Callable[[], None]:
    """What follows selection; its time is not part of it, its memory is."""
    from feyntune.data import corpora, selection
    from feyntune.experiment import load as experiment
    from feyntune.paths import SPLITS

    abstracts, _ = ours(path, folder)()
    large = len(abstracts) > 500_000  # of a smaller file the paper's sample cannot be drawn
    sample = dict.fromkeys(experiment.load("demo").fields) | ({"cs": 200_000} if large else {})
    demo = experiment.with_settings("demo", {"data.sample": sample})

    def work() -> None:
        rows = selection.rows_of_fields(abstracts, demo.fields)
        sources = corpora.split_sources(corpora.sample(rows, demo), demo)
        for name in demo.recipes:
            splits, _ = corpora.mix(name, sources, demo)
            for split in SPLITS:
                target = folder / f"{name}-{split}.parquet"
                abstracts.write(corpora.rows_of(splits[split]), target)

    return work


def released(path: Path, folder: Path) -> Callable:
    """A list of all records, then a frame, as the released notebook reads."""
    import pandas as pd

    def work() -> pd.DataFrame:
        records = []
        with path.open(encoding="utf-8") as file:
            for line in file:
                records.append(json.loads(line))
        frame = pd.DataFrame(records)
        frame = frame[frame["categories"].str.split().str[0].str.startswith(KEPT)]
        gone = frame["comments"].str.contains("withdrawn", case=False).fillna(False).astype(bool)
        frame = frame[~(gone | frame["abstract"].str.contains("[Ww]ithdrawn"))]
        frame["abstract"] = frame["abstract"].map(lambda text: re.sub(r"\n\s*", " ", text).strip())
        return frame

    return work


def hugging_face(path: Path, folder: Path) -> Callable:
    import datasets

    datasets.disable_progress_bars()

    def work():
        rows = datasets.load_dataset(
            "json", data_files=str(path), split="train", cache_dir=str(folder / "cache")
        )
        return rows.filter(
            lambda column: [value.startswith(KEPT) for value in column],
            input_columns="categories",
            batched=True,
        )

    return work


def with_polars(path: Path, folder: Path) -> Callable:
    import polars as pl

    names = ("id", "title", "categories", "comments", "abstract")
    schema = dict.fromkeys(names, pl.String)
    schema["versions"] = pl.List(pl.Struct({"created": pl.String}))
    starts = pl.any_horizontal(*(pl.col("categories").str.starts_with(name) for name in KEPT))
    return lambda: pl.scan_ndjson(path, schema=schema).filter(starts).collect()


def with_duckdb(path: Path, folder: Path) -> Callable:
    import duckdb

    names = ("id", "title", "categories", "comments", "abstract")
    columns = ", ".join(f"{name}: 'VARCHAR'" for name in names)
    columns += ", versions: 'STRUCT(created VARCHAR)[]'"
    starts = " OR ".join(f"starts_with(categories, '{name}')" for name in KEPT)
    query = (
        f"COPY (SELECT * FROM read_ndjson('{path}', columns={{{columns}}}) WHERE {starts}) "
        f"TO '{folder / 'duckdb.parquet'}'"
    )
    return lambda: duckdb.sql(query)


# Title, function, ending of its file, whether it reads a tenth, library that it needs.
ROWS = {
    "scan": ("line scan", line_scan, "", False, None),
    "ours": ("FeynTune: select and clean", ours, "", False, None),
    "datasets": ("FeynTune: ten datasets written after it", ours_datasets, "", False, None),
    "gz": ("FeynTune: select and clean, from .gz", ours, ".gz", True, None),
    "zip": ("FeynTune: select and clean, from .zip", ours, ".zip", True, None),
    "zst": ("FeynTune: select and clean, from .zst", ours, ".zst", True, None),
    "released": ("released way: list of dicts to pandas, select, clean", released, "", True, None),
    "hf": ("`datasets`: load_dataset, select by category", hugging_face, "", False, None),
    "polars": ("polars: scan_ndjson, select by category", with_polars, "", False, "polars"),
    "duckdb": ("DuckDB: read_ndjson, select by category", with_duckdb, "", False, "duckdb"),
}


# --- measuring --------------------------------------------------------------------------------


def measure(row: str, path: Path, folder: Path) -> tuple[float, int]:
    """Seconds and peak memory (bytes) of a row, in a process of its own."""
    command = [sys.executable, __file__, "--row", row, str(path), str(folder)]
    line_scan(path, folder)()  # now the system has the file in memory
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        family = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, resident(family))
            time.sleep(0.2)
        said = process.stdout.read().splitlines()
    if process.returncode:
        raise SystemExit(f"{ROWS[row][0]} failed.")
    return float(said[-1]), peak


def resident(process: psutil.Process) -> int:
    """Resident memory of a process and its children; memory that they share counts for each."""
    total = 0
    try:
        for member in [process, *process.children(recursive=True)]:
            total += member.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


def run_row(row: str, path: Path, folder: Path) -> None:
    """In the process of a row: prepare, then time."""
    work = ROWS[row][1](path, folder)
    start = time.perf_counter()
    work()
    print(time.perf_counter() - start)


def table(path: Path, folder: Path, rows: list[str], repeats: int) -> list[str]:
    """Measure, and describe in Markdown: of several runs the shortest time, the highest peak."""
    lines = ["| way | seconds | of a line scan | peak memory |", "|---|--:|--:|--:|"]
    tenth, scan = None, None
    for row in rows:
        title, _, ending, partly, library = ROWS[row]
        if library and not importlib.util.find_spec(library):
            lines.append(f"| {title} | not installed | | |")
            continue
        if partly and not tenth:
            tenth = tenth_of(path)
        scratch = folder / "scratch"
        scratch.mkdir()
        file = Path(f"{tenth if partly else path}{ending}")
        runs = []
        for _ in range(repeats):
            runs.append(measure(row, file, scratch))
            shutil.rmtree(scratch)
            scratch.mkdir()
        scratch.rmdir()
        seconds, peak = min(seconds for seconds, _ in runs), max(peak for _, peak in runs)
        scan = scan or seconds
        whole = seconds * (10 if partly else 1)
        shown = f"{seconds:.1f}" + (f" for a tenth: {whole:.0f}" if partly else "")
        lines.append(f"| {title} | {shown} | {whole / scan:.1f} x | {peak / 2**20:,.0f} MiB |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=4.7)
    parser.add_argument("--tiny", action="store_true", help="3 MB: only to see that it runs")
    parser.add_argument("--folder", type=Path, help="where there is room for thrice the size")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--repeats", type=int, default=1, help="of each row; the best counts")
    parser.add_argument("--row", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.row:
        row, path, folder = given.row
        run_row(row, Path(path), Path(folder))
        return
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="feyntune-benchmark-") as name:
        path = Path(name) / "snapshot.json"
        lines = write(path, 3_000_000 if given.tiny else int(given.gigabytes * 1e9))
        load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
        print(f"{path.stat().st_size / 1e9:.3f} GB, {lines:,} lines, {os.cpu_count()} cores, "
              f"load before: {load}\n")  # fmt: skip
        # All others are compared with the scan.
        rows = ["scan", *(row for row in given.rows if row != "scan")]
        print("\n" + "\n".join(table(path, Path(name), rows, given.repeats)))


if __name__ == "__main__":
    main()
