"""A local folder instead of the network, for clusters without it: `feyntune fetch --mirror DIR`.

The folder is laid out as the Hub is (``owner/name``, ``datasets/owner/name``), each repository as
``hf download --local-dir`` leaves it or as a cache of huggingface_hub; Kaggle's as kagglehub's
cache below ``kaggle/``; files from the web below ``web/<host>/``. Nothing is copied. Wheels are
below ``pypi/`` (see `wheels`), snapshots that hold abstracts listed by id below ``arxiv/``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from feyntune.data.fetch.pins import Listing, Wanted, choose, files_in
from feyntune.errors import Unavailable, UserError
from feyntune.experiment.sources import HubRepository, KaggleDataset, Source, WebFile

_METADATA = Path(".cache", "huggingface", "download")
_COMMIT = re.compile("[0-9a-f]{40}")
_POINTER = b"version https://git-lfs.github.com/spec/"


def snapshots(name: str, root: Path) -> list[Path]:
    """The snapshots of a mirror, for source ``name`` of abstracts that are listed by id."""
    found = sorted(place for place in (root / "arxiv").glob("[!.]*") if place.is_file())
    if not found:
        raise UserError(f"{name}: no snapshot in the mirror, in {root.absolute() / 'arxiv'}.")
    return found


class Mirror:
    """A source in a mirror, with the methods of the origins on the network."""

    moves = False
    remedy = "put the right file at {place}"

    def __init__(self, name: str, source: Source, root: Path):
        self.name, self.source, self.root = name, source, root.absolute()
        self.cache = self.root

    def listing(self) -> Listing:
        """What is wanted of the files in the mirror, and the commit that they are known to be of.

        Raises
        ------
        UserError
            If the source, or a file that is asked for, is not in the mirror; if its files are of
            several commits, or of another than the experiment names.
        """
        if isinstance(self.source, WebFile):
            wanted = Wanted(self.source.bytes, self.source.sha256)
            return Listing(None, {self._web().name: wanted})
        folder, commit = self._folder(None)
        files = choose(self.name, self.source, files_in(folder))
        if isinstance(self.source, HubRepository):
            commit = commit or self._commit(folder, files)
        return Listing(commit, dict.fromkeys(files, Wanted()))

    def to_download(self, listing: Listing) -> int:
        return 0

    def bring(self, file: str, listing: Listing) -> Path:
        """The place of a file.

        Raises
        ------
        UserError
            If it is not there, or only the pointer that a clone without Git LFS leaves.
        """
        if isinstance(self.source, WebFile):
            return self._there(self._web())
        folder, _ = self._folder(listing.commit)
        place = self._there(folder / file)
        with place.open("rb") as content:
            if content.read(len(_POINTER)) == _POINTER:
                raise Unavailable(
                    f"{self.name}: {place} is only a pointer to the file: run `git lfs pull` in "
                    "the mirror."
                )
        return place

    def _there(self, place: Path) -> Path:
        if not place.is_file():
            raise Unavailable(f"{self.name}: {place} is missing in the mirror.")
        return place

    def _web(self) -> Path:
        address = urlsplit(self.source.url)
        place = self.root / "web" / (address.hostname or "") / unquote(address.path).lstrip("/")
        return self._there(place)

    def _folder(self, commit: str | None) -> tuple[Path, str | None]:
        """The source's folder, and its commit where the folder's name tells it."""
        if isinstance(self.source, KaggleDataset):
            versions = self.root / "kaggle" / "datasets" / self.source.id / "versions"
            return self._first([versions / str(self.source.version)]), None
        kind = f"{self.source.origin}s"
        plain = self.root / ("datasets" if kind == "datasets" else "") / self.source.id
        cache = self.root / "--".join([kind, *self.source.id.split("/")])
        folder = self._first([plain, cache])
        return (folder, None) if folder == plain else self._snapshot(cache, commit)

    def _first(self, places: Iterable[Path]) -> Path:
        for place in places:
            if place.is_dir():
                return place
        raise Unavailable(
            f"{self.name}: not in the mirror; looked for {' and '.join(map(str, places))}."
        )

    def _snapshot(self, cache: Path, commit: str | None) -> tuple[Path, str]:
        """The snapshot of a commit, else of the revision asked for, in a huggingface_hub cache."""
        reference = cache / "refs" / self.source.revision
        if commit is None:
            named = reference.is_file()
            commit = reference.read_text(encoding="utf-8") if named else self.source.revision
        return self._first([cache / "snapshots" / commit.strip()]), commit.strip()

    def _commit(self, folder: Path, files: Iterable[str]) -> str | None:
        """The commit that ``hf download --local-dir`` noted next to the files."""
        notes = [folder / _METADATA / f"{file}.metadata" for file in files]
        commits = {
            note.read_text(encoding="utf-8").split("\n", 1)[0] for note in notes if note.is_file()
        }
        if len(commits) > 1:
            raise UserError(
                f"{self.name}: the files in {folder} are of different commits "
                f"({', '.join(sorted(c[:7] for c in commits))}): download them again, together."
            )
        commit = next(iter(commits), None)
        asked = self.source.revision
        if commit and _COMMIT.fullmatch(asked) and commit != asked:
            raise UserError(
                f"{self.name}: {folder} is at commit {commit[:7]}, the experiment asks for "
                f"{asked[:7]}: download that one into the mirror."
            )
        return commit
