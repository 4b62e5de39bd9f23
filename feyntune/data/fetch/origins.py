"""Where outside sources come from: the Hugging Face Hub, Kaggle, an address on the web.

Each origin has the same methods: what it holds of a source (``listing``), how much of that is not
here yet (``to_download``), and one file of it (``bring``). The libraries keep their own caches,
resume and authenticate. What can go wrong on the way becomes one line that says what to do; error
texts of the libraries are never passed on, as they run over many lines and may quote requests.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import httpx2
import kagglehub
import requests
import urllib3
from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub import errors as hub
from kagglehub.config import get_cache_folder
from kagglehub.exceptions import DataCorruptionError

from feyntune.data.fetch.pins import Listing, Wanted, choose, files_in
from feyntune.errors import Unavailable, Unreachable, UserError
from feyntune.experiment.files import writing
from feyntune.experiment.sources import HubRepository, KaggleDataset, WebFile

# Seconds to connect, and between two pieces of an answer.
TIMEOUT = (10, 60)
CHUNK = 2**20
_LOGIN = "set HF_TOKEN or run `hf auth login`"
_AGAIN = "run the same command again, what is whole is kept"


@dataclass(frozen=True)
class Description:
    """A source in words, for messages: its ``name``, ``what`` it is, its web ``page``."""

    name: str
    what: str
    page: str
    credentials: str = _LOGIN


class Hub:
    """A repository on the Hugging Face Hub, through the cache of ``huggingface_hub``."""

    moves = False
    remedy = "remove {place} and run the same command again"

    def __init__(self, name: str, source: HubRepository):
        self.name, self.source = name, source
        prefix = "datasets/" if source.origin == "dataset" else ""
        self.described = Description(
            name, f"{source.origin} {source.id}", f"https://huggingface.co/{prefix}{source.id}"
        )

    @property
    def cache(self) -> Path:
        return Path(constants.HF_HUB_CACHE)

    def listing(self) -> Listing:
        with explained(self.described):
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
            for file in choose(self.name, self.source, there)
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
        with explained(self.described):
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
        self.described = Description(
            name,
            f"version {source.version} of Kaggle dataset {source.id}",
            f"https://www.kaggle.com/datasets/{source.id}",
            "make a token at https://www.kaggle.com/settings and set KAGGLE_API_TOKEN",
        )

    @property
    def cache(self) -> Path:
        return Path(get_cache_folder())

    def listing(self) -> Listing:
        chosen = choose(self.name, self.source, files_in(self._folder()))
        return Listing(None, dict.fromkeys(chosen, Wanted()))

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
            raise UserError(f"{self.name}: {file} is not in {self.described.what}.")
        return place

    def _folder(self, anew: bool = False) -> Path:
        with explained(self.described), _quiet():
            return Path(kagglehub.dataset_download(self.handle, force_download=anew))


class Web:
    """A small file at an address."""

    moves = True
    remedy = "run the same command again"

    def __init__(self, name: str, source: WebFile, folder: Path):
        self.name, self.source = name, source
        self.file = unquote(PurePosixPath(urlsplit(source.url).path).name) or "index"
        self.cache = folder.parent
        self.place = folder.with_name(f".{name}-{self.file}")
        self.described = Description(name, source.url, source.url)

    def listing(self) -> Listing:
        return Listing(None, {self.file: Wanted(self.source.bytes, self.source.sha256)})

    def to_download(self, listing: Listing) -> int:
        return self.source.bytes

    def bring(self, file: str, listing: Listing) -> Path:
        with explained(self.described):
            download_file(self.name, self.source, self.place)
        return self.place


def download_file(name: str, source: WebFile, target: Path) -> None:
    """Download a file, which gets its name only with the pinned size and SHA-256."""
    digest, size = hashlib.sha256(), 0
    with (
        writing(target) as partial,
        requests.get(source.url, stream=True, timeout=TIMEOUT) as answer,
        partial.open("wb") as file,
    ):
        answer.raise_for_status()
        for piece in answer.iter_content(CHUNK):
            file.write(piece)
            digest.update(piece)
            size += len(piece)
            if size > source.bytes:
                break
        found = digest.hexdigest()
        if (size, found) != (source.bytes, source.sha256):
            raise UserError(
                f"{name}: what lies at {source.url} is not the pinned file ({size:,} bytes with "
                f"SHA-256 {found[:12]}… instead of {source.bytes:,} with {source.sha256[:12]}…): "
                "try again, or check url and sha256."
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Only kagglehub's warnings and, on a terminal, its progress bar: never what it logs."""
    logging.getLogger("kagglehub").setLevel(logging.WARNING)
    if sys.stderr.isatty():
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
        yield


_STOPPED = "the server of {what} stopped answering: " + _AGAIN
_NO_CONNECTION = (
    "no connection to the server of {what}: check the network, or take a folder with --mirror"
)
# After these nothing else is asked of the same server.
_NO_ANSWER = (_STOPPED, _NO_CONNECTION)
# The first that fits an error or what led to it; derived classes stand before their bases.
_BY_CLASS = (
    (
        hub.GatedRepoError,
        "{what} is gated: request access at {page}, then {credentials}",
    ),
    (
        hub.RepositoryNotFoundError,
        "there is no {what} that may be read (see {page}): check its id; if it is private, "
        "{credentials}",
    ),
    (hub.RevisionNotFoundError, "{what} has no such revision: see {page}"),
    (hub.RemoteEntryNotFoundError, "{what} lacks a file that is wanted: see {page}"),
    (hub.HFValidationError, "{what} is not how a repository is named: owner/name"),
    (
        hub.OfflineModeIsEnabled,
        "{what} is not on this machine and HF_HUB_OFFLINE forbids to download it: unset it, or "
        "take a folder with --mirror",
    ),
    (
        (httpx2.TimeoutException, requests.Timeout, urllib3.exceptions.ReadTimeoutError),
        _STOPPED,
    ),
    (
        (httpx2.ConnectError, httpx2.ProxyError, requests.exceptions.ProxyError),
        _NO_CONNECTION,
    ),
    (
        (requests.exceptions.ChunkedEncodingError, httpx2.TransportError, DataCorruptionError),
        "the connection broke while {what} was downloaded: " + _AGAIN,
    ),
    (
        hub.FileMetadataError,
        "what answers for {what} is not the Hub: check HF_ENDPOINT, proxy and firewall",
    ),
    (
        requests.ConnectionError,
        _NO_CONNECTION,
    ),
)
_BY_STATUS = {
    401: "the server of {what} does not accept the credentials: {credentials}",
    403: "{what} may not be read without permission (see {page}): {credentials}",
    404: "there is no {what}: see {page}",
    416: "the server of {what} has another file than was begun: " + _AGAIN,
    429: "the server of {what} asks to wait (too many requests): try again in some minutes",
}
_BY_ERRNO = {
    errno.ENOSPC: "the disk is full: make room, then " + _AGAIN,
    errno.EDQUOT: "your quota of disk space is used up: make room, then " + _AGAIN,
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR),
        "{error.filename} cannot be written: choose another cache folder",
    ),
}
# Where a library has no class or number for it, only words; the second is hf_xet's, which brings
# the Hub's large files and raises a RuntimeError for whatever happens on the way.
_BY_WORDS = {
    "No space left on device": _BY_ERRNO[errno.ENOSPC],
    "File reconstruction error": "the storage of {what} did not give its files: check the network, "
    + _AGAIN,
    "Consistency check failed": "the download of {what} ended early: " + _AGAIN,
}


@contextmanager
def explained(source: Description) -> Iterator[None]:
    """Turn errors of network, disk and access into a UserError; others pass as they are."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        found = _template(_chain(error))
        if found is None:
            raise
        template, cause = found
        filled = template.format(
            what=source.what, page=source.page, credentials=source.credentials, error=cause
        )
        raise _kind(template)(f"{source.name}: {filled}.") from None


def _kind(template: str) -> type[UserError]:
    """Whether it is this disk that failed, the server of a source, or the way there."""
    if template in _BY_ERRNO.values():
        return UserError
    return Unreachable if template in _NO_ANSWER else Unavailable


def _chain(error: BaseException | None) -> list[BaseException]:
    """An error and what led to it: the libraries wrap the telling ones."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _template(chain: list[BaseException]) -> tuple[str, BaseException] | None:
    """The line for an error, and the link of its chain that the line is about."""
    for cause in chain:
        if isinstance(cause, OSError) and cause.errno in _BY_ERRNO:
            return _BY_ERRNO[cause.errno], cause
        for words, template in _BY_WORDS.items():
            if words in str(cause):
                return template, cause
    for classes, template in _BY_CLASS:
        for cause in chain:
            if isinstance(cause, classes):
                return template, cause
    for cause in chain:
        answer = getattr(cause, "response", None)
        status = getattr(answer, "status_code", None) or getattr(cause, "status", None)
        if status is not None:
            return _by_status(status), cause
    return None


def _by_status(status: int) -> str:
    if status >= 500:
        return f"the server of {{what}} is in trouble (status {status}): try again later"
    return _BY_STATUS.get(status, f"the server of {{what}} answers with status {status}")
