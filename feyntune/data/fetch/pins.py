"""What the outside sources are: the files wanted of each, and the lock that pins them.

``experiments/<name>.lock.yaml`` holds, for every source, what the experiment asked for, the commit
that this stood for, and the size and SHA-256 of every file. It names no place on any machine, so
that it can be committed: whoever fetches with it gets the same bytes or an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, ValidationError
from tqdm import tqdm

from feyntune.errors import Unavailable, UserError
from feyntune.experiment import recipes
from feyntune.experiment.files import writing
from feyntune.experiment.schema import Experiment
from feyntune.experiment.sections import Section
from feyntune.experiment.sources import HubRepository, KaggleDataset, Sha256, Source
from feyntune.paths import EXPERIMENTS

Verdict = Literal["confirmed", "contradicted", "not said"]
# What the Trainer of transformers writes into a card when it does not know the dataset.
PLACEHOLDERS = ("generator",)
# What unpickling runs is whatever its author wrote.
PICKLES = (".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth")
_MAY_LACK = ("card", "abstracts")
_SHOWN = 6
_CHUNK = 2**22

_HEADER = """\
# What experiments/{name}.yaml needs from outside, as it was fetched: commits, sizes, SHA-256.
# Written by `feyntune fetch --experiment {name}`; `--update` renews it. Not to be edited by hand.
"""


class File(Section):
    """A fetched file."""

    bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256


class Card(Section):
    """The training datasets that a model card names, and what that says of our recipe."""

    datasets: list[str]
    verdict: Verdict


class Entry(Section):
    """A source: as the experiment asked for it, and what it was.

    ``commit`` is that of a repository on the Hub; ``None`` for other sources, and where a mirror
    does not tell. ``abstracts`` are the hashes of abstracts that are listed by id, in place of
    ``files``: what else a snapshot says of them may differ.
    """

    source: Source
    commit: str | None
    files: dict[str, File]
    card: Card | None = None
    abstracts: dict[str, str] | None = None


class Lock(Section):
    sources: dict[str, Entry]


def read(experiment: Experiment) -> dict[str, Entry]:
    """The lock's entries by name of source, and those of a fetch that has not brought all.

    Raises
    ------
    UserError
        If the lock is not as :func:`write` leaves it.
    """
    return _read(experiment, _place(experiment)) | _read(
        experiment, experiment.paths.unfinished_lock
    )


def _read(experiment: Experiment, place: Path) -> dict[str, Entry]:
    if not place.exists():
        return {}
    try:
        return Lock.model_validate(yaml.safe_load(place.read_text(encoding="utf-8"))).sources
    except (yaml.YAMLError, UnicodeDecodeError):
        problem = "it is not YAML"
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"{'.'.join(str(part) for part in first['loc']) or 'all of it'}: {first['msg']}"
    raise UserError(
        f"{place} cannot be read ({problem}): bring it back from version control, or remove it "
        f"and run `feyntune fetch --experiment {experiment.name}`."
    )


def write(experiment: Experiment, entries: dict[str, Entry]) -> None:
    """Write the lock in one step; sources that the experiment no longer has are left out.

    A lock names every source that the experiment needs: until then its entries are kept apart.
    """
    # Also what this run does not need, as a file of the user's stands in its place.
    known = {**experiment.fetch, **experiment.outside, **experiment.compared}
    ordered = {name: entries[name] for name in known if name in entries}
    sources = {
        name: entry.model_dump(exclude={k for k in _MAY_LACK if getattr(entry, k) is None})
        for name, entry in ordered.items()
    }
    text = yaml.safe_dump({"sources": sources}, sort_keys=False, allow_unicode=True, width=100)
    unfinished = experiment.paths.unfinished_lock
    whole = ordered.keys() >= experiment.outside.keys()
    with writing(experiment.paths.lockfile if whole else unfinished) as partial:
        partial.write_text(_HEADER.format(name=experiment.name) + text, encoding="utf-8")
    if whole:
        unfinished.unlink(missing_ok=True)


def card(variant: str, datasets: list[str]) -> Card:
    """Compare the datasets that a model card names with the recipe that we give its variant."""
    ours = recipes.released_dataset(variant)
    said = set(datasets) - set(PLACEHOLDERS)
    verdict = "not said" if not said else "confirmed" if said == {ours} else "contradicted"
    return Card(datasets=datasets, verdict=verdict)


def cards(experiment: Experiment) -> dict[str, dict]:
    """What the cards of the fetched adapters say: ``{variant: {"datasets", "verdict"}}``.

    The verdict is on today's recipes, whichever there were when the card was fetched.
    """
    return {
        name: card(name, entry.card.datasets).model_dump()
        for name, entry in read(experiment).items()
        if entry.card and name in recipes.VARIANTS
    }


def measure(name: str, places: Mapping[str, Path]) -> dict[str, File]:
    """Size and SHA-256 of files, with a progress bar."""
    total = sum(place.stat().st_size for place in places.values())
    with tqdm(
        desc=f"{name}: SHA-256",
        total=total,
        unit="B",
        unit_scale=True,
        disable=None,
        leave=False,
        delay=1,
    ) as bar:
        return {file: _hash(place, bar) for file, place in places.items()}


def _hash(place: Path, bar: tqdm) -> File:
    digest, size = hashlib.sha256(), 0
    with place.open("rb") as content:
        while piece := content.read(_CHUNK):
            digest.update(piece)
            size += len(piece)
            bar.update(len(piece))
    return File(bytes=size, sha256=digest.hexdigest())


def differing(
    name: str, wanted: Mapping[str, File | Wanted], found: Mapping[str, File]
) -> dict[str, str]:
    """By file, one line for each of source ``name`` that is not as it is known to be."""
    lines = {file: _difference(known, found.get(file)) for file, known in wanted.items()}
    lines |= {file: "is not in the lock" for file in found if file not in wanted}
    return {file: f"{name}: {file} {said}" for file, said in lines.items() if said}


def _difference(wanted: File | Wanted, found: File | None) -> str | None:
    """How a file differs from what is known of it, ``None`` if it does not."""
    if found is None:
        return "is missing"
    if wanted.bytes not in (None, found.bytes):
        return f"has {found.bytes:,} bytes instead of {wanted.bytes:,}"
    if wanted.sha256 not in (None, found.sha256):
        return f"has SHA-256 {found.sha256[:12]}… instead of {wanted.sha256[:12]}…"
    return None


def _place(experiment: Experiment) -> Path:
    """The lock of this output folder, else the committed one."""
    own = experiment.paths.lockfile
    return own if own.exists() else EXPERIMENTS / own.name


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


def choose(name: str, source: HubRepository | KaggleDataset, there: Iterable[str]) -> list[str]:
    """The files of source ``name`` that match one of its patterns, sorted.

    Hidden files (``.gitattributes``) match only a pattern that spells the dot.

    Parameters
    ----------
    there
        The files that there are.

    Raises
    ------
    UserError
        If one of the patterns that are not optional matches no file.
    """
    there = sorted(there)
    chosen: set[str] = set()
    for pattern in source.files:
        found = _matching(there, pattern)
        if not found:
            raise Unavailable(f"{name}: no file matches {pattern!r}; there is {_shown(there)}.")
        chosen |= found
    for pattern in getattr(source, "optional", ()):
        chosen |= _matching(there, pattern)
    return sorted(chosen)


def files_in(folder: Path) -> dict[str, Path]:
    """The files below a folder by relative name, sorted; without broken links."""
    places = sorted(folder.rglob("*"))
    return {p.relative_to(folder).as_posix(): p for p in places if p.is_file()}


def check_no_pickles(name: str, files: Iterable[str]) -> None:
    """Raise a UserError for files whose loading may run code of others: safetensors only."""
    for file in sorted(files):
        if file.lower().endswith(PICKLES):
            raise UserError(
                f"{name}: {file} is a pickle, which may run any code when it is loaded: ask for "
                "the safetensors file instead."
            )


def _matching(there: Iterable[str], pattern: str) -> set[str]:
    return {
        file
        for file in there
        if fnmatchcase(file, pattern) and (not _hidden(file) or _hidden(pattern))
    }


def _hidden(file: str) -> bool:
    return any(part.startswith(".") for part in file.split("/"))


def _shown(there: Iterable[str]) -> str:
    """The first of the files that there are."""
    plain = [file for file in there if not _hidden(file)]
    more = f" and {len(plain) - _SHOWN} more" if len(plain) > _SHOWN else ""
    return (", ".join(plain[:_SHOWN]) or "no file") + more
