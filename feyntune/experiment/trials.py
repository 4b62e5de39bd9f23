"""Trials: runs with settings that differ from their experiment's, kept apart from its results.

A trial is an experiment of its own, by the name ``<experiment>/trials/<name>``. It shares with its
experiment the results of every stage that its settings do not change, and makes the others under
``results/<experiment>/trials/<name>/``. What was overridden stands there in ``trial.yaml``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from feyntune.errors import UserError
from feyntune.experiment.files import read_yaml, writing
from feyntune.experiment.sections import result_settings
from feyntune.paths import Paths

if TYPE_CHECKING:
    from feyntune.experiment.schema import Experiment

BETWEEN = "/trials/"
NAME = re.compile(r"[A-Za-z0-9][\w.+=-]*")
LONGEST_NAME = 80
# What a trial may set; the rest makes other data or another base, which is another experiment.
ROOTS = (
    *("training", "flavours", "seed", "perplexity", "completions", "commercial"),
    *("human_evaluation", "statistics", "figures", "resources"),
)
# The sections that a stage's results depend on, beside the training of its variant.
_SECTIONS = {
    "finetune": (),
    "perplexity": ("perplexity",),
    "completions": ("completions",),
    "commercial_llms": ("commercial", "completions"),
}
# Stages that draw from what there is: a trial has its own.
_GATHERING = ("human_evaluation", "figures_and_tables", "reproduction_report")
_DRAWN_FROM = ("statistics", "figures", "human_evaluation")


def name_of(experiment: str, trial: str) -> str:
    """The name of a trial as an experiment: ``smoke/trials/hot``."""
    return f"{experiment}{BETWEEN}{trial}"


def is_trial(name: str) -> bool:
    return BETWEEN in name


def split_name(name: str) -> tuple[str, str]:
    """``smoke/trials/hot`` is the trial ``hot`` of ``smoke``."""
    experiment, trial = name.split(BETWEEN, 1)
    return experiment, trial


def owns(trial: Experiment, parent: Experiment, stage: str, subject: str | None) -> bool:
    """Whether a stage, by its short name, has results of the trial's own for a subject."""
    if stage in _GATHERING:
        return True
    if stage not in _SECTIONS:
        return False
    ours, theirs = (
        [
            _trained(each, subject),
            _threads(each, stage),
            *(result_settings(getattr(each, section)) for section in _SECTIONS[stage]),
        ]
        for each in (trial, parent)
    )
    return ours != theirs


def _trained(experiment: Experiment, subject: str | None) -> Any:
    """What the weights of a variant depend on; those of base never change."""
    if subject not in experiment.variants:
        return None
    return [result_settings(experiment.variants[subject]), _threads(experiment, "finetune")]


def _threads(experiment: Experiment, stage: str) -> int | None:
    """The threads of a stage where their number moves digits."""
    asked = experiment.resources.of(stage)
    return None if asked.gpus else asked.cores


def moves_numbers(trial: Experiment, parent: Experiment) -> bool:
    """Whether any result of the trial differs from what the experiment would give."""
    drawn = any(
        result_settings(getattr(trial, section)) != result_settings(getattr(parent, section))
        for section in _DRAWN_FROM
    )
    subjects = [None, *trial.models]
    return drawn or any(owns(trial, parent, stage, s) for stage in _SECTIONS for s in subjects)


def check_keys(experiment: str, overrides: Iterable[str]) -> None:
    """Check that a trial may set these dotted keys.

    Raises
    ------
    UserError
        If one makes other data or another base.
    """
    for key in overrides:
        root = key.split(".", 1)[0]
        if root not in ROOTS:
            raise UserError(
                f"{key} cannot be set for one run: write experiments/<name>.yaml with "
                f"`extends: {experiment}` and set it there (--set takes {', '.join(ROOTS)})."
            )


def default_name(overrides: dict[str, Any], variants: Iterable[str]) -> str:
    """A name that says what is different: ``learning_rate=0.01``, ``s4-LoRA-QKV``."""
    said = [f"{key.rsplit('.', 1)[-1]}={_short(value)}" for key, value in overrides.items()]
    return "+".join([*variants, *said])[:LONGEST_NAME].rstrip("+=.-")


def _short(value: Any) -> str:
    return re.sub(r"[^\w.+-]+", "-", str(value)).strip("-") or "none"


def check_name(trial: str) -> None:
    """Check that a trial's name can be a folder's.

    Raises
    ------
    UserError
        If it cannot.
    """
    if not NAME.fullmatch(trial):
        raise UserError(
            f"A trial's name is also a folder's: letters, digits and . _ + = - (got {trial!r})."
        )


# --- on disk ----------------------------------------------------------------------------------


def _file(name: str) -> Path:
    return Paths(name).results / "trial.yaml"


def recorded(name: str) -> dict[str, Any] | None:
    """What a trial was started with: ``overrides`` and ``variants``; ``None`` if there is none."""
    file = _file(name)
    return read_yaml(file) if file.is_file() else None


def names(experiment: str) -> list[str]:
    """The trials there are of an experiment, as experiments."""
    found = sorted(path.parent.name for path in Paths(experiment).trials.glob("*/trial.yaml"))
    return [name_of(experiment, trial) for trial in found]


def record(trial: Experiment) -> None:
    """Keep what a trial is, before its first result; for other experiments do nothing."""
    if trial.parent is None:
        return
    more = [name for name in trial.variants if name not in trial.parent.variants]
    content = {"overrides": trial.overrides, "variants": more}
    if content != recorded(trial.name):
        with writing(_file(trial.name)) as partial:
            partial.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
