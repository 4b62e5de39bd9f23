"""Progress a person can follow: a Snakemake logger plugin.

On a terminal a bar and the stages at work; elsewhere one line for every stage that ends. Snakemake
finds it by its name on the module path; its own full log goes to ``.snakemake/log``.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent


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
        self.done = self.total = 0
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
        # The gathering rule `all` is a job for Snakemake, but none for a reader.
        self.total = sum(n for rule, n in record.stats.items() if rule not in ("all", "total"))
        if self.console.is_terminal and not self.common_settings.dryrun:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=self.console,
            )
            self.whole = self.bar.add_task("stages", total=self.total)
            self.bar.start()

    def _job_info(self, record: logging.LogRecord) -> None:
        if record.rule_name == "all":
            return
        subject = " ".join((record.wildcards or {}).values())
        self.titles[record.jobid] = f"{record.rule_name} {subject}".strip()
        self.logs[record.jobid] = list(record.log or [])
        self._show(record.jobid)
        if self.common_settings.dryrun:
            self.console.print(f"would run {self.titles[record.jobid]}")

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
            self.done += 1
            self._ended(record.job_id, f"[{self.done}/{self.total}]")

    def _job_error(self, record: logging.LogRecord) -> None:
        self.failed = True
        self._ended(record.jobid, "[red]FAILED[/red]")
        for log in self.logs.get(record.jobid, []):
            self.console.print(f"  {_last_line(Path(log))}", markup=False)

    def _ended(self, job: int, mark: str) -> None:
        seconds = time.monotonic() - self.started.get(job, time.monotonic())
        mark = mark if mark.startswith("[red]") else mark.replace("[", r"\[")
        self.console.print(f"{mark} {self.titles.get(job, job)}  {seconds:.0f} s")
        if self.bar is not None:
            self.bar.advance(self.whole)
            if job in self.rows:
                self.bar.remove_task(self.rows.pop(job))


def _last_line(log: Path) -> str:
    """What a stage said last: for a user's error, the one line that explains it."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"see {log}"
    return next((line for line in reversed(lines) if line.strip()), f"see {log}")
