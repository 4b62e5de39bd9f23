"""What may be removed by hand: trials, and what runs set aside because it no longer fitted."""

from __future__ import annotations

from pathlib import Path

from feyntune.experiment.files import remove
from feyntune.paths import output_root
from feyntune.runs import recording

SET_ASIDE = ("results/*/set-aside", "results/**/checkpoints/set-aside")
TRIALS = ("results/*/trials/*",)


def find(*, trials: bool, set_aside: bool) -> dict[Path, int]:
    """Folders that can be removed, with their bytes."""
    patterns = [*(TRIALS if trials else ()), *(SET_ASIDE if set_aside else ())]
    root = output_root()
    places = sorted({place for pattern in patterns for place in root.glob(pattern)})
    return {place: _size(place) for place in places if place.is_dir()}


def _size(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir())


def remove_all(found: dict[Path, int]) -> None:
    """Remove what :func:`find` found."""
    for place in found:
        remove(place)
    for name in {place.parent.parent.name for place in found if place.parent.name == "trials"}:
        recording.write_trials(name)
