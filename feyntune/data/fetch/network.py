"""What can go wrong on the way to an outside source, each in one line that says what to do.

Error texts of the libraries are never passed on: they run over many lines and may quote requests.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx2
import requests
import urllib3
from huggingface_hub import errors as hub
from kagglehub.exceptions import DataCorruptionError

from feyntune.errors import UserError

_LOGIN = "set HF_TOKEN or run `hf auth login`"
_AGAIN = "run the same command again, what is whole is kept"


@dataclass(frozen=True)
class Asked:
    """What was asked for, in words: ``name`` of the source, ``what`` it is, its web ``page``."""

    name: str
    what: str
    page: str
    credentials: str = _LOGIN


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
        "the server of {what} stopped answering: " + _AGAIN,
    ),
    (
        (httpx2.ConnectError, httpx2.ProxyError, requests.exceptions.ProxyError),
        "no connection to the server of {what}: check the network, or take a folder with --mirror",
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
        "no connection to the server of {what}: check the network, or take a folder with --mirror",
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
def explained(asked: Asked) -> Iterator[None]:
    """Turn what goes wrong inside into a UserError; what is no outage stays what it is."""
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
            what=asked.what, page=asked.page, credentials=asked.credentials, error=cause
        )
        raise UserError(f"{asked.name}: {filled}.") from None


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
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status is not None:
            return _by_status(status), cause
    return None


def _by_status(status: int) -> str:
    if status >= 500:
        return f"the server of {{what}} is in trouble (status {status}): try again later"
    return _BY_STATUS.get(status, f"the server of {{what}} answers with status {status}")
