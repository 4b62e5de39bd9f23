"""Results without training: the real runner and records around stages that write small files."""

import sys
from types import SimpleNamespace

import pytest

from feyntune.paths import named
from feyntune.pipeline import notebooks
from feyntune.runs.stages import STAGES


def fake(settings, stage: str, subject: str | None) -> None:
    """What a stage would write: a file for a file, a folder of two files for a folder."""
    for place in STAGES[stage].writes(settings.paths, subject):
        files = [place] if place.suffix else [place / "one.bin", place / "deep" / "two.bin"]
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"result of {named(stage, subject)}: {file.name}")


def install(patch: pytest.MonkeyPatch) -> None:
    """Replace the execution of notebooks, and the two makers of stand-ins, by :func:`fake`."""
    for stage in STAGES.values():
        if stage.maker:
            maker = SimpleNamespace(make=lambda s, name=stage.name: fake(s, name, None))
            patch.setitem(sys.modules, stage.maker, maker)
    patch.setattr(notebooks, "execute", lambda s, stage, subject, _: fake(s, stage.name, subject))
