"""Colour and marker of every model, the same in all figures."""

from __future__ import annotations

from feyntune.evaluation.grouping import Models
from feyntune.experiment.recipes import BASE

BLUE, VERMILION, GREEN, BLACK = "#0072B2", "#D55E00", "#009E73", "#202020"
# Of flavours, in their order: Okabe and Ito's colours, then two of Tol's, all told apart with any
# colour vision. There are more markers than colours, so no two of some 80 flavours look the same.
PALETTE = (BLUE, VERMILION, "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#999933")
MARKERS = ("o", "s", "v", "P", "X", "<", ">", "d", "*", "p", "h", "8")
BASE_LOOK, COMMERCIAL_LOOK = (BLACK, "D"), (GREEN, "^")


def look_of(model: str, models: Models) -> tuple[str, str]:
    """Colour and marker of base or of a variant.

    The colour is its flavour's; variants of one dataset and flavour differ in their markers.
    """
    if model == BASE:
        return BASE_LOOK
    flavour, repeat = models.look(model)
    return _look(flavour, repeat * len(models.flavours))


def of_categories(models: Models) -> dict[str, tuple[str, str]]:
    """Colour and marker of each category of rated systems."""
    flavours = {name: _look(place) for place, name in enumerate(models.flavours)}
    return {"Base": BASE_LOOK, **flavours, "Commercial": COMMERCIAL_LOOK}


def _look(flavour: int, shift: int = 0) -> tuple[str, str]:
    return PALETTE[flavour % len(PALETTE)], MARKERS[(flavour + shift) % len(MARKERS)]
