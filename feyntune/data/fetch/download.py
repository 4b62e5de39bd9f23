"""Pinned downloads: everything an experiment needs from outside, brought once and checked by hash.

Files stay in the caches of the libraries that downloaded them, or in a mirror; below
``results/<experiment>/fetched/<source>`` each pinned file, and no other, is visible by a link.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from filelock import FileLock

from feyntune.data.fetch import listed, pins, revisions, wheels
from feyntune.data.fetch import mirror as mirrors
from feyntune.errors import Unavailable, Unreachable, UserError
from feyntune.experiment import recipes
from feyntune.experiment.files import writing
from feyntune.experiment.schema import Experiment
from feyntune.experiment.sources import (
    HubRepository,
    KaggleDataset,
    ListedAbstracts,
    Source,
    WebFile,
    WheelFile,
)

README = "README.md"
# Left free on a disk that is downloaded to.
RESERVE = 2**28
_REMEDY = "bring back {place}, or remove it and fetch again"
_VERDICTS = {
    "confirmed": "which confirms our recipe",
    "contradicted": "which CONTRADICTS our recipe",
    "not said": "which says nothing of our recipe",
}
_RENEW = "or, if it is meant to be new, renew the pin with --update"


def fetch(
    experiment: Experiment,
    sources: Mapping[str, Source],
    *,
    mirror: Path | None = None,
    snapshot: Path | None = None,
    update: bool = False,
    partly: bool = False,
    report: Callable[[str], None] = print,
) -> None:
    """Bring what is not in place, check all of it by hash, and keep the lock.

    What was brought is noted after each source, so that an interrupted fetch goes on where it
    stopped; the lock is written when all are there.

    Parameters
    ----------
    sources
        What to fetch, by name: ``experiment.outside``, ``experiment.compared`` or some of them.
    mirror
        A folder to take everything from, instead of the network.
    snapshot
        A file to take abstracts from that are listed by id, instead of the network or the mirror.
    update
        Resolve revisions anew and renew the lock, instead of fetching what it names.
    partly
        Go on where a source cannot be had, as long as there is one.
    report
        Called with one line for each source.

    Raises
    ------
    UserError
        If a source cannot be had, or is not what the lock (or the experiment) says.
    """
    if mirror is not None and not mirror.is_dir():
        raise UserError(f"The mirror {mirror} is no folder.")
    guard = experiment.paths.fetch_lock
    guard.parent.mkdir(parents=True, exist_ok=True)
    # Two fetches at once would write the same files; the second waits, then finds them.
    with FileLock(guard):
        entries = pins.read(experiment)
        pinned = {} if update else {name: entries[name] for name in sources if name in entries}
        for name, entry in pinned.items():  # before anything is downloaded
            if entry.source != sources[name]:
                raise UserError(
                    f"{name}: {_changed(entry.source, sources[name])}: `feyntune fetch "
                    f"--experiment {experiment.name} --update` renews the pin."
                )
        lacking: dict[str, Unavailable] = {}
        for name, source in sources.items():
            known = pinned.get(name)
            try:
                if known is None:  # what is pinned may be in a cache
                    _check_reachable(source, sources, lacking)
                if isinstance(source, ListedAbstracts):
                    files = _holding(name, snapshot, mirror)
                    entry = listed.bring(experiment, name, source, known, files, report)
                else:
                    entry = _fetch(experiment, name, source, known, mirror)
            except Unavailable as error:
                if not partly:
                    raise
                lacking[name] = error
                continue
            if entries.get(name) != entry:
                entries[name] = entry
                pins.write(experiment, entries)
            report(_line(name, entry))
        if lacking and lacking.keys() == sources.keys():
            raise next(iter(lacking.values()))
        if lacking:
            first = next(iter(lacking.values()))
            report(f"Not to be had: {', '.join(lacking)}. Why the first was not: {first}")


def _holding(name: str, snapshot: Path | None, mirror: Path | None) -> list[Path]:
    """Files that hold abstracts which are listed by id; none where arXiv is to be asked."""
    if snapshot:
        return [snapshot]
    return mirrors.snapshots(name, mirror) if mirror else []


def _check_reachable(
    source: Source, sources: Mapping[str, Source], lacking: Mapping[str, Unavailable]
) -> None:
    """Do not wait again for what has not answered."""
    for other, error in lacking.items():
        if isinstance(error, Unreachable) and _server(sources[other]) == _server(source):
            raise Unreachable(str(error))


def _server(source: Source) -> str:
    return urlsplit(source.url).netloc if isinstance(source, WebFile) else type(source).__name__


def missing(experiment: Experiment, sources: Mapping[str, Source]) -> list[str]:
    """Names of the sources that are not in place: by existence and size, without hashing."""
    entries = pins.read(experiment)
    return [
        name
        for name, source in sources.items()
        if not _in_place(experiment.paths.fetched(name), source, entries.get(name))
    ]


def differences(experiment: Experiment) -> list[str]:
    """What was fetched and is not as the lock says: one line for each file, by its hash.

    A source that is not on this machine differs from nothing; see :func:`missing`.
    """
    asked = {**experiment.outside, **experiment.compared}
    found = []
    for name, entry in pins.read(experiment).items():
        folder = experiment.paths.fetched(name)
        if name not in asked:
            continue
        if entry.source != asked[name]:
            found.append(f"{name}: {_changed(entry.source, asked[name])}")
        elif folder.exists() and entry.abstracts is None:
            now = pins.measure(name, pins.files_in(folder))
            found += pins.differing(name, entry.files, now).values()
    return found


def _changed(locked: Source, asked: Source) -> str:
    before, after = locked.model_dump(), asked.model_dump()
    keys = [key for key in after if before.get(key) != after[key]]
    listed = ", ".join(f"{key} {after[key]!r}, not {before.get(key)!r}" for key in keys)
    return f"the experiment asks for other than the lock names ({listed})"


def _fetch(
    experiment: Experiment,
    name: str,
    source: Source,
    entry: pins.Entry | None,
    mirror: Path | None,
) -> pins.Entry:
    """Bring one source, or check it where it is in place; return what the lock is to say."""
    folder = experiment.paths.fetched(name)
    if entry is not None and _in_place(folder, source, entry):
        places = {file: folder / file for file in entry.files}
        _checked(name, entry.files, places, f"{_REMEDY}; {_RENEW}")
        return entry
    origin = _origin(name, source, folder, mirror)
    known = pins.Listing(entry.commit, entry.files) if entry else origin.listing()
    pins.check_no_pickles(name, known.files)
    _check_room(name, origin.cache, origin.to_download(known))
    places = {file: origin.bring(file, known) for file in known.files}
    remedy = f"{origin.remedy}; {_RENEW}" if entry else origin.remedy
    found = _checked(name, known.files, places, remedy)
    _show(folder, places, origin.moves)
    if entry is not None:
        return entry
    card = _card(name, folder / README)
    return pins.Entry(source=source, commit=known.commit, files=found, card=card)


def _origin(name: str, source: Source, folder: Path, mirror: Path | None):
    """Where a source is taken from; all origins have the same methods."""
    # Half a second of imports that only fetching needs.
    from feyntune.data.fetch import origins

    if isinstance(source, WheelFile):
        return wheels.Wheel(name, source, folder, mirror)
    if mirror is not None:
        return mirrors.Mirror(name, source, mirror)
    if isinstance(source, HubRepository):
        return origins.Hub(name, source)
    if isinstance(source, KaggleDataset):
        return origins.Kaggle(name, source)
    return origins.Web(name, source, folder)


def _in_place(folder: Path, source: Source, entry: pins.Entry | None) -> bool:
    """Whether exactly the files of the lock are visible, in their sizes."""
    if entry is None or entry.source != source:
        return False
    if entry.abstracts is not None:
        return revisions.in_place(folder) and list(entry.abstracts) == listed.read_ids(source)
    sizes = {file: place.stat().st_size for file, place in pins.files_in(folder).items()}
    return sizes == {file: known.bytes for file, known in entry.files.items()}


def _show(folder: Path, places: Mapping[str, Path], move: bool) -> None:
    """Let exactly these files be visible in ``folder``, by links unless they belong there."""
    with writing(folder) as partial:
        for file, place in places.items():
            (partial / file).parent.mkdir(parents=True, exist_ok=True)
            if move:
                os.replace(place, partial / file)
            else:
                (partial / file).symlink_to(place.absolute())


def _checked(
    name: str, known: Mapping[str, pins.Wanted | pins.File], places: Mapping[str, Path], remedy: str
) -> dict[str, pins.File]:
    """Size and hash of files, which must be those that they are known to have."""
    found = pins.measure(name, places)
    wrong = pins.differing(name, known, found)
    if wrong:
        # Most often there is one; the way out is the same for all.
        file, line = next(iter(wrong.items()))
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise UserError(f"{line}{more}: {remedy.format(place=places[file].resolve())}.")
    return found


def _check_room(name: str, cache: Path, needed: int) -> None:
    """Raise a UserError if a download would fill the disk."""
    if not needed:
        return
    existing = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < needed + RESERVE:
        raise UserError(
            f"{name}: {needed / 1e9:.1f} GB are to be downloaded to {cache}, where "
            f"{free / 1e9:.1f} GB are free: make room, or choose another cache folder."
        )


def _card(name: str, readme: Path) -> pins.Card | None:
    """What an adapter's model card says; ``None`` for other sources."""
    if name not in recipes.VARIANTS:
        return None
    from huggingface_hub import metadata_load

    try:
        named = (metadata_load(readme) or {}).get("datasets") or []
    except (OSError, ValueError, yaml.YAMLError):
        named = []  # no card, or none that can be read, says nothing
    return pins.card(name, [str(d) for d in ([named] if isinstance(named, str) else named)])


def _line(name: str, entry: pins.Entry) -> str:
    """One source in one line: name, id, commit, files, MB, and what its card says."""
    source = entry.source
    if entry.abstracts is not None:
        return f"{name}: {source.id}, {len(entry.abstracts):,} abstracts"
    if isinstance(source, HubRepository):
        what = f"{source.id} at {entry.commit[:7] if entry.commit else 'an unknown commit'}"
    elif isinstance(source, KaggleDataset):
        what = f"{source.id}, version {source.version}"
    elif isinstance(source, WheelFile):
        what = f"{source.id} from the package {source.package} {source.version}"
    else:
        what = source.url
    size = sum(file.bytes for file in entry.files.values()) / 1e6
    plural = "s" if len(entry.files) > 1 else ""
    line = f"{name}: {what}, {len(entry.files)} file{plural}, {size:,.2f} MB"
    if entry.card is None:
        return line
    said = ", ".join(entry.card.datasets) or "no dataset"
    return f"{line}; its card names {said}, {_VERDICTS[entry.card.verdict]}"
