"""Results without training: the real runner and records around stages that write small files."""

import sys
from types import SimpleNamespace

import pytest

from feyntune.experiment.files import fingerprint
from feyntune.pipeline import notebooks
from feyntune.runs.stages import STAGES, Run


def fake(of: Run, *_) -> None:
    """What a run would write: a file for a file, a folder of two files for a folder."""
    for role, place in of.writes.items():
        files = [place] if place.suffix else [place / "one.bin", place / "deep" / "two.bin"]
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_name(f".partial-{file.name}")
            # Runs with one key have the same results, whatever they are called.
            made_of = fingerprint(of.settings)
            partial.write_text(f"result of {of.stage.name}, {made_of}: {role} {file.name}")
            partial.replace(file)


def install(patch: pytest.MonkeyPatch) -> None:
    """Replace the execution of notebooks, and the makers, by :func:`fake`."""
    for stage in STAGES.values():
        if stage.maker:
            maker = SimpleNamespace(make=lambda e, stage=stage: fake(Run(e, stage)))
            patch.setitem(sys.modules, stage.maker, maker)
    patch.setattr(notebooks, "execute", fake)
