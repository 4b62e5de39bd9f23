"""Progress a person can follow: a Snakemake logger plugin.

On a terminal a bar and the jobs at work; elsewhere one line for every run that ends. A job runs a
stage for several variants or models and says in its log when each has ended. Snakemake finds the
plugin by its name on the module path; its own full log goes to ``.snakemake/log``.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

# How `feyntune run` says that a run has ended.
ENDED = re.compile(r"^(?P<run>\S+): (?P<what>done|taken over|up to date) \((?P<seconds>\d+) s\)$")


class LogHandler(LogHandlerBase):
    """Follows the jobs of a run by Snakemake's own events."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = True
    has_formatter = True
    needs_rulegraph = False

    def __post_init__(self) -> None:
        # No wrapping: a line of a log must stay one line.
        self.console = Console(stderr=True, soft_wrap=True, highlight=False)
        self.titles: dict[int, str] = {}
        self.logs: dict[int, list[str]] = {}
        self.started: dict[int, float] = {}
        self.rows: dict[int, int] = {}
        # Runs, of which a job may have several.
        self.done, self.total = 0, int(os.environ.get("FEYNTUNE_RUNS", 0))
        self.ended: set[str] = set()
        self.read_to: dict[str, int] = {}
        self.watching = threading.Lock()
        # What Snakemake says when a job failed repeats what the stage said in one line; without
        # a failed job it is about Snakemake itself, and shown at the end.
        self.errors: list[str] = []
        self.failed = False
        self.bar: Progress | None = None
        self.handlers = {
            LogEvent.RUN_INFO: self._run_info,
            LogEvent.JOB_INFO: self._job_info,
            LogEvent.JOB_STARTED: self._job_started,
            LogEvent.JOB_FINISHED: self._job_finished,
            LogEvent.JOB_ERROR: self._job_error,
        }

    def emit(self, record: logging.LogRecord) -> None:
        try:
            event = getattr(record, "event", None)
            if event in self.handlers:
                self.handlers[event](record)
            elif record.levelno >= logging.ERROR and event in (None, LogEvent.ERROR):
                self.errors.append(record.getMessage())
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
        if not self.failed:
            for error in self.errors:
                self.console.print(error, style="red", markup=False)
        self.errors.clear()
        super().close()

    def _run_info(self, record: logging.LogRecord) -> None:
        if self.console.is_terminal and self.bar is None:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=self.console,
            )
            self.whole = self.bar.add_task("stages", total=self.total)
            self.bar.start()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        """Look once a second which runs have ended, until the process does."""
        while True:
            time.sleep(1)
            self._look()

    def _look(self) -> None:
        with self.watching:
            for job in list(self.started):
                for log in self.logs.get(job, []):
                    self._read_on(log)

    def _read_on(self, log: str) -> None:
        """What a job has said since the last look."""
        try:
            with open(log, encoding="utf-8", errors="replace") as file:
                # A job that is tried again, or put back into a queue, writes its log anew.
                size = file.seek(0, os.SEEK_END)
                if size < self.read_to.get(log, 0):
                    self.read_to[log] = 0
                file.seek(self.read_to.get(log, 0))
                lines = file.readlines()
        except OSError:
            return
        for line in lines:
            if not line.endswith("\n"):
                break
            self.read_to[log] = self.read_to.get(log, 0) + len(line.encode())
            ended = ENDED.match(line.rstrip())
            if ended and ended["run"] not in self.ended:
                self.ended.add(ended["run"])
                self.done += 1
                said = "" if ended["what"] == "done" else f"  {ended['what']}"
                mark = rf"\[{self.done}/{self.total}]"
                self.console.print(f"{mark} {ended['run']}  {ended['seconds']} s{said}")
                if self.bar is not None:
                    self.bar.advance(self.whole)

    def _job_info(self, record: logging.LogRecord) -> None:
        if record.rule_name == "all":
            return
        job = " ".join((record.wildcards or {}).values())
        self.titles[record.jobid] = job
        self.logs[record.jobid] = list(record.log or [])
        self._show(record.jobid)

    def _job_started(self, record: logging.LogRecord) -> None:
        for job in record.jobs:
            self.started[job] = time.monotonic()
            self._show(job)

    def _show(self, job: int) -> None:
        """Add a row for a job at work, once both its title and its start are known."""
        if self.bar is not None and job in self.titles and job in self.started:
            self.rows[job] = self.bar.add_task(f"  {self.titles[job]}", total=None)

    def _job_finished(self, record: logging.LogRecord) -> None:
        if record.job_id in self.titles:
            self._look()
            self._hide(record.job_id)

    def _job_error(self, record: logging.LogRecord) -> None:
        self.failed = True
        self._look()
        seconds = time.monotonic() - self.started.get(record.jobid, time.monotonic())
        title = self.titles.get(record.jobid, record.jobid)
        self.console.print(f"[red]FAILED[/red] {title}  {seconds:.0f} s")
        for log in self.logs.get(record.jobid, []):
            self.console.print(f"  {_last_line(Path(log))}", markup=False)
        self._hide(record.jobid)

    def _hide(self, job: int) -> None:
        self.started.pop(job, None)
        if self.bar is not None and job in self.rows:
            self.bar.remove_task(self.rows.pop(job))


def _last_line(log: Path) -> str:
    """What a stage said last: for a user's error, the one line that explains it."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"see {log}"
    return next((line for line in reversed(lines) if line.strip()), f"see {log}")
