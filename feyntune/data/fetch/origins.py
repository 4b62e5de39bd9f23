"""Where outside sources come from: the Hugging Face Hub, Kaggle, an address on the web.

Each origin tells what a source holds (its listing), and brings one file of it, returning where
that lies. Libraries keep their own caches, resume and authenticate; a web file is kept beside its
place under a ``.partial-`` name until it is whole.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import kagglehub
import requests
from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from kagglehub.config import get_cache_folder
from tqdm import tqdm

from feyntune.data.fetch.listing import Listing, Wanted, choose
from feyntune.data.fetch.network import Asked, explained
from feyntune.errors import UserError
from feyntune.experiment.sources import HubRepository, KaggleDataset, WebFile

# Seconds to connect, and between two pieces of an answer.
TIMEOUT = (10, 60)
CHUNK = 2**20


class Hub:
    """A repository on the Hugging Face Hub, through the cache of ``huggingface_hub``."""

    moves = False
    remedy = "remove {place} and run the same command again"

    def __init__(self, name: str, source: HubRepository):
        self.name, self.source = name, source
        prefix = "datasets/" if source.origin == "dataset" else ""
        self.asked = Asked(
            name, f"{source.origin} {source.id}", f"https://huggingface.co/{prefix}{source.id}"
        )

    @property
    def cache(self) -> Path:
        return Path(constants.HF_HUB_CACHE)

    def listing(self) -> Listing:
        with explained(self.asked):
            info = HfApi().repo_info(
                self.source.id,
                repo_type=self.source.origin,
                revision=self.source.revision,
                files_metadata=True,
                timeout=TIMEOUT[1],
            )
        there = {file.rfilename: file for file in info.siblings or ()}
        files = {
            file: Wanted(there[file].size, there[file].lfs.sha256 if there[file].lfs else None)
            for file in choose(self.name, there, self.source.files, self.source.optional)
        }
        return Listing(info.sha, files)

    def to_download(self, listing: Listing) -> int:
        """Bytes that are not in the cache yet."""
        return sum(
            wanted.bytes or 0
            for file, wanted in listing.files.items()
            if not isinstance(
                try_to_load_from_cache(
                    self.source.id, file, revision=listing.commit, repo_type=self.source.origin
                ),
                str,
            )
        )

    def bring(self, file: str, listing: Listing) -> Path:
        with explained(self.asked):
            return Path(
                hf_hub_download(
                    self.source.id,
                    file,
                    repo_type=self.source.origin,
                    revision=listing.commit or self.source.revision,
                )
            )


class Kaggle:
    """A version of a dataset on Kaggle, through the cache of ``kagglehub``.

    The whole version is downloaded as one archive, which is what kagglehub resumes.
    """

    moves = False
    remedy = "remove {place} and run the same command again"

    def __init__(self, name: str, source: KaggleDataset):
        self.name, self.source = name, source
        self.handle = f"{source.id}/versions/{source.version}"
        self.asked = Asked(
            name,
            f"version {source.version} of Kaggle dataset {source.id}",
            f"https://www.kaggle.com/datasets/{source.id}",
            "make a token at https://www.kaggle.com/settings and set KAGGLE_API_TOKEN",
        )

    @property
    def cache(self) -> Path:
        return Path(get_cache_folder())

    def listing(self) -> Listing:
        folder = self._folder()
        there = [f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()]
        return Listing(None, dict.fromkeys(choose(self.name, there, self.source.files), Wanted()))

    def to_download(self, listing: Listing) -> int:
        """Bytes of the files that are not in the cache yet: their archive comes on top."""
        folder = self.cache / "datasets" / self.handle
        return sum(w.bytes or 0 for f, w in listing.files.items() if not (folder / f).exists())

    def bring(self, file: str, listing: Listing) -> Path:
        place = self._folder() / file
        if not place.exists():
            # kagglehub looks only whether the folder is there.
            place = self._folder(anew=True) / file
        if not place.exists():
            raise UserError(f"{self.name}: {file} is not in {self.asked.what}.")
        return place

    def _folder(self, anew: bool = False) -> Path:
        with explained(self.asked), _quiet():
            return Path(kagglehub.dataset_download(self.handle, force_download=anew))


class Web:
    """A file at an address, resumed by range and taken only with its pinned SHA-256."""

    moves = True
    remedy = "remove {place} and run the same command again"

    def __init__(self, name: str, source: WebFile, folder: Path):
        self.name, self.source = name, source
        self.file = unquote(PurePosixPath(urlsplit(source.url).path).name) or "index"
        self.cache = folder.parent
        self.partial = folder.with_name(f".partial-{name}-{self.file}")
        self.asked = Asked(name, source.url, source.url)

    def listing(self) -> Listing:
        return Listing(None, {self.file: Wanted(self.source.bytes, self.source.sha256)})

    def to_download(self, listing: Listing) -> int:
        return self.source.bytes - self._begun()

    def bring(self, file: str, listing: Listing) -> Path:
        """Download what is not there yet; what turns out to be another file is removed."""
        self.partial.parent.mkdir(parents=True, exist_ok=True)
        if self._begun() > self.source.bytes:
            self.partial.unlink()
        if self._begun() < self.source.bytes:
            with explained(self.asked):
                self._download()
        with self.partial.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
        if (self._begun(), found) != (self.source.bytes, self.source.sha256):
            size = self._begun()
            self.partial.unlink()
            raise UserError(
                f"{self.name}: what lies at {self.source.url} is not the pinned file ({size:,} "
                f"bytes with SHA-256 {found[:12]}… instead of {self.source.bytes:,} with "
                f"{self.source.sha256[:12]}…): try again, or check url and sha256."
            )
        return self.partial

    def _begun(self) -> int:
        return self.partial.stat().st_size if self.partial.exists() else 0

    def _download(self) -> None:
        begun = self._begun()
        # Unpacked on the way, the bytes counted here would not be those of the range.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={begun}-"} if begun else {})
        with requests.get(self.source.url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            answer.raise_for_status()
            resumed = answer.status_code == requests.codes.partial
            with (
                self.partial.open("ab" if resumed else "wb") as file,
                tqdm(
                    desc=self.name,
                    total=self.source.bytes,
                    initial=begun if resumed else 0,
                    unit="B",
                    unit_scale=True,
                    disable=None,
                ) as bar,
            ):
                for piece in answer.iter_content(CHUNK):
                    file.write(piece)
                    bar.update(len(piece))
                    if file.tell() > self.source.bytes:
                        return  # already another file


@contextmanager
def _quiet() -> Iterator[None]:
    """Only kagglehub's warnings and, on a terminal, its progress bar: never what it logs."""
    logging.getLogger("kagglehub").setLevel(logging.WARNING)
    if sys.stderr.isatty():
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
        yield
