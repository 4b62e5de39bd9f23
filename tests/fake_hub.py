"""Servers on loopback that answer as the Hugging Face Hub, Kaggle and a web host do.

Only what huggingface_hub, kagglehub and requests really ask for; contents and accounts are a
test's own, and so are the faults: a connection that breaks, a server that falls silent.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlsplit

import loopback

GOOD_TOKEN, OTHER_TOKEN = "hf_let_me_in", "hf_of_someone_else"
LFS = (".parquet", ".safetensors")
_KINDS = {"api/models": "model", "api/datasets": "dataset"}


@dataclass
class Repository:
    """A repository on the Hub: files by commit, the newest last."""

    commits: dict[str, dict[str, bytes]]
    gated: bool = False

    def at(self, revision: str) -> str | None:
        if revision == "main":
            return list(self.commits)[-1]
        return revision if revision in self.commits else None


@dataclass
class Fake:
    """What the servers hold, and what is wrong with them.

    Attributes
    ----------
    breaks
        How many more downloads break off after half of what was asked for.
    silent
        Downloads of more than a kilobyte give half of it, then nothing, until the server ends.
    corrupt
        Downloads have a wrong last byte.
    status
        Every answer is this error.
    xet
        Large files are announced as the real Hub's are: to be had from a storage (which is down)
        by the downloader in Rust.
    ranges
        Whether ranges are honoured.
    log
        ``(method, path, range)`` of every request, and the headers that carry credentials.
    """

    url: str = ""
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    kaggle: dict[tuple[str, int], dict[str, bytes]] = field(default_factory=dict)
    kaggle_needs_token: bool = False
    web: dict[str, bytes] = field(default_factory=dict)
    breaks: int = 0
    silent: bool = False
    corrupt: bool = False
    status: int = 0
    xet: bool = False
    ranges: bool = True
    log: list[tuple[str, str, str | None]] = field(default_factory=list)
    credentials: list[str | None] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def downloads(self) -> list[tuple[str, str | None]]:
        """Path and range of the files that were asked for, in order."""
        return [
            (path, span)
            for method, path, span in self.log
            if method == "GET" and not path.startswith("/api/")
        ]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: Fake

    def log_message(self, *_) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._note()
        if self.fake.status:
            return self._error(self.fake.status)
        if not self.path.endswith("/v1/datasets.DatasetApiService/DownloadDataset"):
            return self._error(404)
        version = asked["datasetVersionNumber"]
        key = (f"{asked['ownerSlug']}/{asked['datasetSlug']}", version)
        if self.fake.kaggle_needs_token and not self.headers["Authorization"]:
            return self._error(403, message="Permission 'datasets.get' was denied")
        if key not in self.fake.kaggle:
            return self._error(404, message="Not found")
        # As Kaggle: the archive lies in a storage of its own.
        return self._redirect(f"{self.fake.url}/storage/{key[0]}/{version}/archive.zip")

    def _note(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.fake.log.append((self.command, path, self.headers["Range"]))
        self.fake.credentials.append(self.headers["Authorization"])

    def _answer(self) -> None:
        self._note()
        path = unquote(urlsplit(self.path).path)
        if self.fake.status:
            return self._error(self.fake.status)
        if path == "/xet-token":
            expires = str(int(time.time()) + 3600)
            headers = {"X-Xet-Access-Token": "hf_xet", "X-Xet-Token-Expiration": expires}
            return self._send(200, headers | {"X-Xet-Cas-Url": "http://127.0.0.1:9"}, b"")
        if path.startswith("/web/"):
            content = self.fake.web.get(path)
            return self._error(404) if content is None else self._give(content, {})
        if path.startswith("/storage/"):
            return self._archive(path)
        if path.startswith("/cdn/"):
            content = next(c for c in self._contents() if _sha256(c) == path.split("/")[2])
            return self._give(content, {"ETag": f'"{_sha256(content)}"'})
        return self._hub(path)

    def _contents(self) -> Iterator[bytes]:
        for repository in self.fake.repositories.values():
            for files in repository.commits.values():
                yield from files.values()

    def _archive(self, path: str) -> None:
        owner, name, version = path.split("/")[2:5]
        content = archive(self.fake.kaggle[f"{owner}/{name}", int(version)])
        md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
        self._give(content, {"X-Goog-Hash": f"md5={md5}", "Content-Type": "application/zip"})

    def _hub(self, path: str) -> None:
        token = self.headers["Authorization"]
        if token not in (None, f"Bearer {GOOD_TOKEN}", f"Bearer {OTHER_TOKEN}"):
            return self._error(401, message="Invalid credentials in Authorization header")
        if found := re.fullmatch(r"/(api/\w+)/([^/]+/[^/]+)/revision/([^/]+)", path):
            return self._info(_KINDS[found[1]], found[2], found[3])
        if found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._resolve("dataset" if found[1] else "model", *found.groups()[1:])
        return self._error(404)

    def _info(self, kind: str, name: str, revision: str) -> None:
        repository = self.fake.repositories.get((kind, name))
        if repository is None:
            # The Hub does not tell strangers what there is.
            if self.headers["Authorization"]:
                return self._error(404, "RepoNotFound", "Repository not found")
            return self._error(401, message="Invalid username or password.")
        commit = repository.at(revision)
        if commit is None:
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        siblings = []
        for file, content in repository.commits[commit].items():
            entry = {"rfilename": file, "size": len(content), "blobId": _git(content)}
            if file.endswith(LFS):
                entry["lfs"] = {"size": len(content), "sha256": _sha256(content), "pointerSize": 1}
            siblings.append(entry)
        body = json.dumps({"id": name, "_id": "0", "sha": commit, "siblings": siblings}).encode()
        self._send(200, {"Content-Type": "application/json"}, body)

    def _resolve(self, kind: str, name: str, revision: str, file: str) -> None:
        repository = self.fake.repositories.get((kind, name))
        if repository is None:
            return self._error(404, "RepoNotFound", "Repository not found")
        if repository.gated and self.headers["Authorization"] != f"Bearer {GOOD_TOKEN}":
            status = 403 if self.headers["Authorization"] else 401
            return self._error(status, "GatedRepo", f"Access to model {name} is restricted.")
        commit = repository.at(revision)
        if commit is None:
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        content = repository.commits[commit].get(file)
        if content is None:
            return self._error(404, "EntryNotFound", "Entry not found")
        about = {"X-Repo-Commit": commit}
        if not file.endswith(LFS):
            return self._give(content, about | {"ETag": f'"{_git(content)}"'})
        about |= {"X-Linked-Etag": f'"{_sha256(content)}"', "X-Linked-Size": str(len(content))}
        if self.fake.xet:
            about |= {
                "X-Xet-Hash": _sha256(content),
                "X-Xet-Refresh-Route": f"{self.fake.url}/xet-token",
            }
        # As on the Hub, large files lie at another host, which is not told who asks.
        elsewhere = self.fake.url.replace("127.0.0.1", "localhost")
        return self._redirect(f"{elsewhere}/cdn/{_sha256(content)}", about)

    def _give(self, content: bytes, headers: dict[str, str]) -> None:
        """Contents, or the range of them that is asked for, with the fault of the day."""
        status, first = 200, 0
        headers = {**headers, **({"Accept-Ranges": "bytes"} if self.fake.ranges else {})}
        span = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        if span and self.fake.ranges:
            first = int(span[1])
            if first >= len(content):
                return self._error(416)
            status = 206
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        if self.fake.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        self._send(status, headers, content[first:], faulty=self.command == "GET")

    def _send(
        self, status: int, headers: dict[str, str], body: bytes, faulty: bool = False
    ) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        broken = faulty and self.fake.breaks > 0
        if broken or (faulty and self.fake.silent and len(body) > 1000):
            self.fake.breaks -= broken
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            if not broken:
                self.fake.ended.wait()
            self.close_connection = True
            return
        self.wfile.write(body)

    def _redirect(self, place: str, headers: dict[str, str] | None = None) -> None:
        self._send(302, {"Location": place, **(headers or {})}, b"")

    def _error(self, status: int, code: str = "", message: str = "") -> None:
        headers = {"Content-Type": "application/json"}
        headers |= {"X-Error-Code": code} if code else {}
        headers |= {"X-Error-Message": message} if message else {}
        body = json.dumps({"error": message, "code": status, "message": message}).encode()
        self._send(status, headers, body)


def archive(files: dict[str, bytes]) -> bytes:
    """The zip that Kaggle makes of a version's files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as made:
        for name, content in files.items():
            made.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _git(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def serving() -> AbstractContextManager[Fake]:
    """A server on a free port of loopback, as long as the block lasts."""
    return loopback.served(Fake(), Handler)
