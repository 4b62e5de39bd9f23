"""Which files of an outside source are wanted: patterns, and what is refused."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from feyntune.errors import UserError

# What unpickling runs is whatever its author wrote.
PICKLES = (".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth")
_SHOWN = 6


@dataclass(frozen=True)
class Wanted:
    """A file to bring; ``None`` for what its origin does not tell beforehand."""

    bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Listing:
    """The files of a source that are wanted, at a commit (``None`` where there are none)."""

    commit: str | None
    files: Mapping[str, Wanted]


def choose(
    name: str, there: Iterable[str], patterns: Iterable[str], optional: Iterable[str] = ()
) -> list[str]:
    """The files of source ``name`` that match one of the patterns, sorted.

    Hidden files (``.gitattributes``) match only a pattern that spells the dot.

    Parameters
    ----------
    there
        The files that there are.
    patterns, optional
        Patterns of which each must match a file, and others that need not.

    Raises
    ------
    UserError
        If one of ``patterns`` matches no file.
    """
    there = sorted(there)
    chosen: set[str] = set()
    for pattern in patterns:
        found = _matching(there, pattern)
        if not found:
            raise UserError(f"{name}: no file matches {pattern!r}; there is {_shown(there)}.")
        chosen |= found
    for pattern in optional:
        chosen |= _matching(there, pattern)
    return sorted(chosen)


def refuse_pickles(name: str, files: Iterable[str]) -> None:
    """Raise a UserError for files whose loading may run code of others: safetensors only."""
    for file in sorted(files):
        if file.lower().endswith(PICKLES):
            raise UserError(
                f"{name}: {file} is a pickle, which may run any code when it is loaded: ask for "
                "the safetensors file instead."
            )


def _matching(there: Collection[str], pattern: str) -> set[str]:
    return {
        file
        for file in there
        if fnmatchcase(file, pattern) and (not _hidden(file) or _hidden(pattern))
    }


def _hidden(file: str) -> bool:
    return any(part.startswith(".") for part in file.split("/"))


def _shown(there: Collection[str]) -> str:
    """The first of the files that there are."""
    plain = [file for file in there if not _hidden(file)]
    more = f" and {len(plain) - _SHOWN} more" if len(plain) > _SHOWN else ""
    return (", ".join(plain[:_SHOWN]) or "no file") + more
