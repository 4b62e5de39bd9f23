"""Experiments of a test's own, for processes that it starts: files in its output folder."""

from pathlib import Path
from typing import Any

import yaml

from feyntune.experiment.files import read_yaml
from feyntune.experiment.load import put
from feyntune.paths import EXPERIMENTS


def changed(output: Path, name: str, settings: dict[str, Any]) -> None:
    """Let ``name`` be a shipped experiment with other settings, by dotted key."""
    content = read_yaml(EXPERIMENTS / f"{name}.yaml")
    for key, value in settings.items():
        put(content, key.split("."), value)
    file = output / "experiments" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
