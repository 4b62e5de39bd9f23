"""A training that is under way: a record per evaluation as a line, a table and a file.

A record is a mapping of plain numbers (`feyntune.training.arguments` makes it)::

    step, steps, share, epoch, train_loss, validation_loss, validation_perplexity,
    learning_rate, tokens_per_second, seconds, seconds_left

Losses are in nats per token; what is not known yet is ``None``.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from feyntune.errors import UserError
from feyntune.experiment.files import writing
from feyntune.runs.freshness import Freshness
from feyntune.runs.stages import FINETUNE, Run

# In what a kernel displays, beside the table: the line, which is not kept in the notebook.
LINE = "feyntune_line"
UNKNOWN = "–"
COLUMNS = {
    "step": lambda r: f"{r['step']:,}",
    "epoch": lambda r: f"{r['epoch']:.2f}",
    "training loss": lambda r: _number(r["train_loss"], ".3f"),
    "validation loss": lambda r: _number(r["validation_loss"], ".3f"),
    "perplexity": lambda r: _number(r["validation_perplexity"], ",.1f"),
    "learning rate": lambda r: _number(r["learning_rate"], ".1e"),
    "tokens/s": lambda r: _number(r["tokens_per_second"], ",.0f"),
    "time": lambda r: rough_duration(r["seconds"]),
}


def rough_duration(seconds: float) -> str:
    """``45 s``, ``31 min`` or ``3.2 h``."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3570 else f"{seconds / 3600:.1f} h"


def _number(value: float | None, form: str) -> str:
    return UNKNOWN if value is None else format(value, form).replace("e-0", "e-")


def _position(record: Mapping[str, Any]) -> str:
    return f"step {record['step']:,}/{record['steps']:,} ({record['share']:.0%})".replace("%", " %")


def _left(record: Mapping[str, Any]) -> str:
    left = record["seconds_left"]
    return f", {rough_duration(left)} left" if left else ""


def line(record: Mapping[str, Any]) -> str:
    """A record as one line of a log."""
    shown = {name: text(record) for name, text in COLUMNS.items()}
    parts = [
        _position(record),
        f"train {shown['training loss']}",
        f"validation {shown['validation loss']}, perplexity {shown['perplexity']}",
        f"lr {shown['learning rate']}",
        f"{shown['tokens/s']} tokens/s",
        f"{shown['time']}{_left(record)}",
    ]
    return " | ".join(part for part in parts if UNKNOWN not in part)


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """Records as HTML: a bar and a row per evaluation. It reads well without style or script."""
    last = records[-1]
    head = "".join(f"<th>{name}</th>" for name in COLUMNS)
    rows = ["".join(f"<td>{text(record)}</td>" for text in COLUMNS.values()) for record in records]
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f"<div>{_position(last)}{_left(last)} "
        f'<progress value="{last["step"]}" max="{last["steps"]}"></progress></div>'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


class Shown:
    """Records of one training: in a file as they come, and before whoever watches.

    Parameters
    ----------
    file
        JSON lines, one record each, flushed at once: a run that is under way can be read, and one
        that died.
    """

    def __init__(self, file: Path):
        self.file = file
        self.records: list[dict[str, Any]] = []
        self._display = None

    def go_on(self, evaluated: Mapping[int, float]) -> None:
        """Keep the records that belong to a run that is resumed, and drop all others.

        Parameters
        ----------
        evaluated
            Validation loss by step, as the checkpoint has it; empty for a run from the start.
        """
        self.records = [
            r for r in read(self.file) if evaluated.get(r["step"]) == r["validation_loss"]
        ]
        self._display = None
        with writing(self.file) as partial:
            partial.write_text("".join(map(_json, self.records)), encoding="utf-8")

    def add(self, record: dict[str, Any]) -> None:
        """Append a record, and show it."""
        self.records.append(record)
        # A full disk is said where it matters, by the next checkpoint.
        with contextlib.suppress(OSError), self.file.open("a", encoding="utf-8") as file:
            file.write(_json(record))
        if _in_kernel():
            self._update(line(record))
        else:
            print(line(record), flush=True)

    def _update(self, said: str) -> None:
        """The table in place of the last one; the line goes to the log of the job."""
        from IPython.display import display

        shown = {
            "text/html": table(self.records),
            "text/plain": "\n".join(map(line, self.records)),
        }
        if self._display is None:
            self._display = display(shown, raw=True, display_id=True, transient={LINE: said})
        else:
            self._display.update(shown, raw=True, transient={LINE: said})


def read(file: Path) -> list[dict[str, Any]]:
    """The records of a file; none if there is none. A line that was cut off does not count."""
    found = []
    for each in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        with contextlib.suppress(ValueError):
            found.append(json.loads(each))
    return found


def _json(record: Mapping[str, Any]) -> str:
    return f"{json.dumps(record)}\n"


def _in_kernel() -> bool:
    """Whether this is a notebook, where a table can be shown."""
    if "IPython" not in sys.modules:
        return False
    return hasattr(sys.modules["IPython"].get_ipython(), "kernel")


def missing_reporter(name: str) -> str | None:
    """What to do if a package that ``training.report_to`` names is not installed."""
    if name == "none" or find_spec(name):
        return None
    install = f"{sys.executable} -m pip install {name}"
    return f"{name} is not installed: {install}, or set training.report_to to none"


def check_reporters(runs: Iterable[Run]) -> None:
    """Refuse trainings that are to be reported to what is not installed, before anything runs.

    Raises
    ------
    UserError
        It says what to install.
    """
    for each in runs:
        if each.stage.name == FINETUNE:
            lacking = missing_reporter(each.experiment.variants[each.subject].training.report_to)
            if lacking and not Freshness(each.experiment).fresh(each):
                raise UserError(f"{lacking}.")
