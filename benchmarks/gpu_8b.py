"""How fast Llama-3.1-8B is trained, evaluated and sampled by this repository on one GPU.

    python benchmarks/gpu_8b.py                      # under 9 minutes on an H200
    python benchmarks/gpu_8b.py --cells nf4 dequantised
    python benchmarks/gpu_8b.py --tiny               # the same code, small, also without a GPU

Nothing is downloaded: weights and token ids are random, lengths are those of real abstracts. What
is measured is what notebooks 02 to 04 call. Every cell of the table is measured in a process of its
own (--tiny: all in one), so that one that fails takes no other along; the table is written anew
after each, to `results/benchmarks/gpu_8b/`, beside what each process said.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from gpu import report

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parent / "results" / "benchmarks" / "gpu_8b"
LOOK = "look"  # not a cell: what the machine is, and whether its kernels work
MODEL, SMALL_MODEL = "Llama-3.1-8B of random weights", "a small model, only to see that it runs"
ENOUGH = 25  # seconds below which a cell is not begun: it takes so long to start


# --- in the process of some cells -------------------------------------------------------------


def work(cells: list[str], tiny: bool, seconds: float, folder: Path) -> None:
    """Measure, and write what each cell found as soon as it is there."""
    begun = time.monotonic()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from gpu import cells as measuring
    from gpu import look
    from gpu.run import Run

    for number, cell in enumerate(cells):
        if cell == LOOK:
            found = look.look(tiny=tiny)
        else:
            # An equal share of what is left, of which some goes into the cell's end.
            left = seconds - (time.monotonic() - begun)
            share = left / (len(cells) - number)
            deadline = time.monotonic() + 0.8 * share
            found = measuring.measure(cell, Run(tiny, deadline))
        _write(folder / f"{cell}.json", json.dumps(found))
        if cell == LOOK and "error" in found:
            return


def _write(path: Path, text: str) -> None:
    """Whole or not at all: the table is read while it is written."""
    partial = path.with_name(f".{path.name}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


# --- in the process that the user starts ------------------------------------------------------


@dataclass
class Table:
    """What was found so far, and where it is written."""

    folder: Path
    budget: float
    tiny: bool
    machine: dict = field(default_factory=dict)
    found: dict[str, dict] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds of the budget."""
        return self.budget - (time.monotonic() - self.begun)

    def rows(self) -> dict[str, dict]:
        return report.completed(self.found, self.machine.get("device", ""))

    def add(self, cell: str, row: dict) -> None:
        """Take a cell's row, write the tables anew, and say so."""
        if cell == LOOK:
            self.machine = row
            print(json.dumps(row), flush=True)
            return
        self.found[cell] = row
        speed = row.get("tokens_per_second")
        said = row.get("error") or (f"{speed:,.0f} tokens/s" if speed else "done")
        print(f"{report.TITLES[cell]}: {said}", flush=True)
        rows = self.rows()
        _write(self.folder / "table.csv", report.comma_separated(rows))
        _write(self.folder / "table.md", self.markdown(rows))

    def markdown(self, rows: dict[str, dict]) -> str:
        machine = ", ".join(f"{key} {value}" for key, value in self.machine.items() if value)
        size = SMALL_MODEL if self.tiny else MODEL
        parts = [f"{date.today()}, {size}: {machine}\n", report.markdown(rows)]
        if not self.tiny:
            parts += ["Goals, set for an H200:\n", report.goals(rows)]
        return "\n".join(parts)


def start(cells: list[str], table: Table, seconds: float) -> None:
    """Measure cells in a process of their own; what it leaves undone is said in their rows."""
    command = [sys.executable, __file__, "--work", *cells, "--budget", str(seconds)]
    command += ["--output", str(table.folder), *(["--tiny"] if table.tiny else [])]
    waiting, log = list(cells), table.folder / f"{cells[0]}.log"
    with (
        log.open("w") as said,
        subprocess.Popen(
            command, stdout=said, stderr=subprocess.STDOUT, env=environment()
        ) as process,
    ):
        end = time.monotonic() + seconds
        running = True
        while running and waiting:
            running = process.poll() is None
            time.sleep(0.2 if running else 0)
            while waiting and (path := table.folder / f"{waiting[0]}.json").exists():
                table.add(waiting.pop(0), json.loads(path.read_text(encoding="utf-8")))
            if time.monotonic() > end:
                process.kill()
        why = "no time left" if time.monotonic() > end else f"its process ended, see {log.name}"
    for cell in waiting if "device" in table.machine else ():
        table.add(cell, {"error": f"not measured: {why}"})


def environment() -> dict[str, str]:
    """For a process that measures: one GPU, and this repository's package."""
    from feyntune.pipeline import gpus as machine

    path = os.pathsep.join(filter(None, (str(HERE.parent), os.environ.get("PYTHONPATH"))))
    own = {**os.environ, "PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false"}
    own["HF_HUB_OFFLINE"] = "1"  # nothing is to be downloaded
    if len(machine.gpus()) > 1:  # TRL refuses to train when a process sees more than one
        own["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    return own


def measure(cells: list[str], table: Table) -> None:
    """All cells, as long as the budget lasts."""
    if table.tiny:
        start([LOOK, *cells], table, table.left)
        return
    start([LOOK], table, table.left)
    for number, cell in enumerate(cells):
        if "error" in table.machine or "device" not in table.machine:
            return
        if table.left < ENOUGH:
            table.add(cell, {"error": "not measured: no time left"})
            continue
        # A cell may take over from those after it, but not all of their time.
        share = table.left / (len(cells) - number)
        start([cell], table, min(1.5 * share, table.left))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = list(report.TITLES)
    parser.add_argument("--cells", nargs="+", choices=known, default=known, metavar="CELL",
                        help=f"of {', '.join(known)}")  # fmt: skip
    parser.add_argument("--budget", type=float, default=520, help="seconds for all (520)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder of the tables")
    parser.add_argument("--tiny", action="store_true", help="a small model, also without a GPU")
    parser.add_argument("--work", nargs="+", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    given = arguments()
    if given.work:
        work(given.work, given.tiny, given.budget, given.output)
        return
    shutil.rmtree(given.output, ignore_errors=True)
    given.output.mkdir(parents=True)
    table = Table(given.output, given.budget, given.tiny)
    measure([cell for cell in report.TITLES if cell in given.cells], table)
    if "device" not in table.machine:
        log = (given.output / f"{LOOK}.log").read_text(encoding="utf-8")
        raise SystemExit(table.machine.get("error") or f"No look at the machine came back.\n{log}")
    print("\n" + (given.output / "table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
