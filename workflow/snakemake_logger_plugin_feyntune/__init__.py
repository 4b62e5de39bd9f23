"""Progress a person can follow: a Snakemake logger plugin.

On a terminal a line with the runs at work; everywhere one line for every run that ends. A job makes
several runs and says in its log when each has ended, and how far a training is. Snakemake finds the
plugin by its name on the module path; its own full log goes to ``.snakemake/log``.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.text import Text
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from snakemake_logger_plugin_feyntune.estimate import Estimate, about

# How `feyntune run` says that a run has ended, and how far a training is.
ENDED = re.compile(r"^(?P<run>\S+): (?P<what>done|taken over|up to date) \((?P<seconds>\d+) s\)$")
STEP = re.compile(
    r"^(?P<run>\S+): (?P<step>step \S+) .*(?P<perplexity>perplexity \S+)"
    r"(?:.*, (?P<left>(?P<number>[\d.]+) (?P<unit>s|min|h) left))?"
)
# Snakemake's words after Ctrl-C.
STOPPING = "Terminating processes on user request"
SECONDS = {"s": 1, "min": 60, "h": 3600}
# What is said of a run, the less the narrower a terminal is: how it is named, and how far it is.
SAID = (
    ("name", ("step", "perplexity", "left")),
    ("name", ("step", "left")),
    ("subject", ("step", "left")),
    ("subject", ("step",)),
    ("subject", ()),
)


class LogHandler(LogHandlerBase):
    """Follows the jobs of a run by Snakemake's own events, and by their logs."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = True
    has_formatter = True
    needs_rulegraph = False

    def __post_init__(self) -> None:
        # No wrapping: a line of a log must stay one line.
        self.console = Console(stderr=True, soft_wrap=True, highlight=False)
        self.jobs, workers = _planned()
        self.estimate = Estimate(self.jobs.values(), workers)
        self.estimate_said = False
        self.names: dict[int, str] = {}
        self.logs: dict[int, list[str]] = {}
        self.started: dict[int, float] = {}
        self.steps: dict[str, re.Match] = {}
        self.read_to: dict[str, int] = {}
        self.watching = threading.Lock()
        # What Snakemake says when a job failed repeats what the stage said in one line; without
        # a failed job it is about Snakemake itself, and shown at the end.
        self.errors: list[str] = []
        self.failed = self.stopping = False
        self.live: Live | None = None
        self.began = time.monotonic()
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
            elif STOPPING in record.getMessage():
                self.stopping = True
            elif record.levelno >= logging.ERROR and event in (None, LogEvent.ERROR):
                self.errors.append(record.getMessage())
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        if self.live is not None:
            self.live.stop()
        if not self.failed:
            for error in self.errors:
                self.console.print(error, style="red", markup=False)
        self.errors.clear()
        super().close()

    # --- what Snakemake says ------------------------------------------------------------------

    def _run_info(self, record: logging.LogRecord) -> None:
        if self.console.is_terminal and self.live is None:
            self.live = Live(
                get_renderable=self._line,
                console=self.console,
                refresh_per_second=2,
                transient=True,
            )
            self.live.start()
        threading.Thread(target=self._watch, daemon=True).start()

    def _job_info(self, record: logging.LogRecord) -> None:
        if record.rule_name != "all":
            self.names[record.jobid] = " ".join((record.wildcards or {}).values())
            self.logs[record.jobid] = list(record.log or [])

    def _job_started(self, record: logging.LogRecord) -> None:
        for job in record.jobs:
            self.started[job] = time.monotonic()

    def _job_finished(self, record: logging.LogRecord) -> None:
        if record.job_id in self.names:
            self._look()
            self.started.pop(record.job_id, None)

    def _job_error(self, record: logging.LogRecord) -> None:
        self.failed = True
        self._look()
        seconds = time.monotonic() - self.started.pop(record.jobid, time.monotonic())
        name = self.names.get(record.jobid, record.jobid)
        what = "stopped" if self.stopping else "[red]FAILED[/red]"
        self.console.print(f"{what} {name}  {seconds:.0f} s")
        for log in self.logs.get(record.jobid, []):
            self.console.print(f"  {_last_line(Path(log))}", markup=False)

    # --- what the jobs say --------------------------------------------------------------------

    def _watch(self) -> None:
        """Look once a second how far the runs are, until the process ends."""
        while True:
            time.sleep(1)
            self._look()

    def _look(self) -> None:
        with self.watching:
            for job in list(self.started):
                for log in self.logs.get(job, []):
                    for line in self._news(log):
                        self._heard(line)

    def _news(self, log: str) -> Iterator[str]:
        """Whole lines that a job has written since the last look."""
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
            if line.endswith("\n"):
                self.read_to[log] = self.read_to.get(log, 0) + len(line.encode())
                yield line.rstrip()

    def _heard(self, line: str) -> None:
        if (step := STEP.match(line)) and step["run"] in self.estimate.runs:
            self.steps[step["run"]] = step
            if step["left"]:
                left = float(step["number"]) * SECONDS[step["unit"]]
                self.estimate.under_way[step["run"]] = left
        ended = ENDED.match(line)
        known = ended and ended["run"] in self.estimate.runs
        if known and ended["run"] not in self.estimate.ended:
            self._ended(ended["run"], ended["what"], int(ended["seconds"]))

    def _ended(self, run: str, what: str, seconds: int) -> None:
        self.estimate.ended[run] = seconds if what == "done" else None
        self.estimate.under_way.pop(run, None)
        said = "" if what == "done" else f"  {what}"
        self.console.print(f"{self._count()} {run}  {seconds} s{said}", markup=False)
        left = self.estimate.left()
        if left and self.live is None and not self.estimate_said:
            self.estimate_said = True
            self.console.print(about(left).capitalize())

    # --- the line on a terminal ---------------------------------------------------------------

    def _count(self) -> str:
        return f"[{len(self.estimate.ended)}/{len(self.estimate.runs)}]"

    def _line(self) -> Text:
        """How many runs have ended, about how long it takes, and what is at work."""
        minutes, seconds = divmod(int(time.monotonic() - self.began), 60)
        left = self.estimate.left()
        clock = f"{minutes}:{seconds:02d}{f', {about(left)}' if left else ''}"
        head, at_work = f"{self._count()} {clock}", self._at_work()
        for name, groups in SAID:
            line = " | ".join([head, *(self._said(run, name, groups) for run in at_work)])
            if cell_len(line) <= self.console.width:
                break
        text = Text(line, no_wrap=True)
        text.truncate(self.console.width, overflow="ellipsis")
        return text

    def _at_work(self) -> list[dict]:
        """The run that each job is at."""
        ended = self.estimate.ended
        jobs = [self.jobs[name] for job in list(self.started) if (name := self.names.get(job))]
        waiting = [[run for run in job["runs"] if run["name"] not in ended] for job in jobs]
        return [runs[0] for runs in waiting if runs]

    def _said(self, run: dict, name: str, groups: tuple[str, ...]) -> str:
        step = self.steps.get(run["name"])
        far = ", ".join(step[group] for group in groups if step[group]) if step else ""
        return f"{run[name] or run['name']}  {far}".strip()


def _planned() -> tuple[dict[str, dict], int | None]:
    """The jobs by name, and how many run at a time, as the engine wrote them down."""
    file = os.environ.get("FEYNTUNE_JOBS")
    plan = json.loads(Path(file).read_text(encoding="utf-8")) if file else {}
    return {job["name"]: job for job in plan.get("jobs", [])}, plan.get("workers")


def _last_line(log: Path) -> str:
    """What a stage said last: for a user's error, the one line that explains it."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"see {log}"
    return next((line for line in reversed(lines) if line.strip()), f"see {log}")
