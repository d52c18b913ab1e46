"""A hub on loopback: the few routes that huggingface_hub asks, and the ways a real one can fail."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

DATASETS = "datasets/"  # what the name of a data set begins with
LARGE = 4096  # bytes from which on a file is kept as LFS, by its SHA-256


def commit_of(files: dict[str, bytes]) -> str:
    """A commit's id: any hash of the content will do."""
    return hashlib.sha1(
        repr(sorted((n, hashlib.sha1(c).hexdigest()) for n, c in files.items())).encode()
    ).hexdigest()


def etag_of(content: bytes) -> str:
    """What the hub calls a file: SHA-256 of a large one, Git's id of a small one."""
    if len(content) >= LARGE:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class FakeHub:
    """What a hub has and does. `log` are the requests that came: method, path, Range, Authorization."""

    repos: dict[str, dict[str, dict[str, bytes]]] = field(
        default_factory=dict
    )  # repo -> branch -> file -> content
    commits: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    log: list[tuple[str, str, str, str]] = field(default_factory=list)
    gated: set[str] = field(default_factory=set)
    token: str = ""  # needed for anything
    cuts: dict[str, list[int]] = field(default_factory=dict)  # file -> bytes after which a transfer ends
    lies: dict[str, bytes] = field(default_factory=dict)  # file -> what is sent instead
    sizes: dict[str, int] = field(default_factory=dict)  # file -> the size that is listed
    extra: list[dict[str, Any]] = field(default_factory=list)  # more files in the list
    let_in: set[str] = field(default_factory=set)  # Authorization of those who agreed to the terms
    # file -> first answers, as status and headers
    statuses: dict[str, list[tuple[int, dict[str, str]]]] = field(default_factory=dict)
    status: int = 0  # answered to everything
    ranges: bool = True
    cdn: str = ""  # large files are elsewhere
    silent: threading.Event | None = None  # nothing is answered before
    endpoint: str = ""

    def add(self, repo: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Publish files at a branch; returns the commit."""
        commit = commit_of(files)
        self.repos.setdefault(repo, {})[branch] = files
        self.commits[repo, commit] = files
        return commit

    def add_folder(self, repo: str, folder: Path, branch: str = "main") -> str:
        found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        return self.add(repo, found, branch)

    def find(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        files = self.repos.get(repo, {}).get(revision) or self.commits.get((repo, revision))
        return None if files is None else (commit_of(files), files)

    def asked(self, word: str) -> list[tuple[str, str, str, str]]:
        return [one for one in self.log if word in one[1]]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body in one packet: a second one would wait for the first to be seen
    hub: FakeHub

    def log_message(self, *_: Any) -> None:
        """Nothing on stderr."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        given = self.headers.get("Authorization", "")
        hub.log.append((self.command, path, self.headers.get("Range", ""), given))
        if hub.silent is not None:
            hub.silent.wait(20)
        if hub.status:
            return self.say(hub.status)
        if hub.token and given != f"Bearer {hub.token}":
            return self.say(401, **({} if given else {"X-Error-Code": "RepoNotFound"}))
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            return self.listing(found[1], found[2] or "main")
        if found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            return self.listing(DATASETS + found[1], found[2] or "main")
        if found := re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self.file(*found.groups())
        self.say(404)

    def listing(self, repo: str, revision: str) -> None:
        if repo not in self.hub.repos:
            return self.say(404, **{"X-Error-Code": "RepoNotFound"})
        found = self.hub.find(repo, revision)
        if found is None:
            return self.say(404, **{"X-Error-Code": "RevisionNotFound"})
        siblings = []
        for name, content in found[1].items():
            size = self.hub.sizes.get(name, len(content))
            one: dict[str, Any] = {"rfilename": name, "size": size, "blobId": etag_of(content)}
            if len(content) >= LARGE:
                one["lfs"] = {"size": size, "sha256": etag_of(content), "pointerSize": 134}
            siblings.append(one)
        told = {"id": repo.removeprefix(DATASETS), "sha": found[0], "siblings": siblings + self.hub.extra}
        gated = {"gated": "auto"} if repo in self.hub.gated else {}
        self.say(200, json.dumps(told | gated).encode())

    def file(self, repo: str, revision: str, name: str) -> None:
        found, given = self.hub.find(repo, revision), self.headers.get("Authorization", "")
        if statuses := self.hub.statuses.get(name):
            status, headers = statuses.pop(0)
            return self.say(status, **headers)
        if found is None or name not in found[1]:
            return self.say(404, **{"X-Error-Code": "EntryNotFound"})
        if repo in self.hub.gated and not (name == "README.md" or given in self.hub.let_in):
            return self.say(403, **{"X-Error-Code": "GatedRepo"})
        commit, content = found[0], found[1][name]
        facts = {"X-Repo-Commit": commit, "ETag": f'"{etag_of(content)}"'}
        if self.hub.cdn and len(content) >= LARGE:
            facts |= {"X-Linked-Etag": facts["ETag"], "X-Linked-Size": str(len(content))}
            return self.say(302, **facts, Location=f"{self.hub.cdn}/{repo}/resolve/{commit}/{name}")
        content = self.hub.lies.get(name, content)
        status, start = 200, 0
        if self.hub.ranges and (asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))):
            status, start = 206, int(asked[1])
            end = int(asked[2]) + 1 if asked[2] else len(content)
            facts["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
            content = content[:end]
        body, cuts = content[start:], self.hub.cuts.get(name)
        cut = cuts.pop(0) if cuts else None
        self.say(status, body, cut=cut, **facts)

    def say(self, status: int, body: bytes = b"", cut: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.close_connection = True


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client that has read enough may leave
            super().handle_error(request, client_address)


@contextlib.contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    """The hub, listening."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = _Server(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        if hub.silent is not None:
            hub.silent.set()
        server.shutdown()
        server.server_close()
        thread.join()


def point_at(hub: FakeHub, cache: Path, patch: pytest.MonkeyPatch) -> None:
    """Let huggingface_hub in this process ask the fake hub, with a cache of its own."""
    from huggingface_hub import constants

    from tinygpt.runs import _transfer

    settings: dict[str, Any] = {
        "ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": False, "HF_HUB_CACHE": str(cache),
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": False,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
    }  # fmt: skip
    for name, value in settings.items():
        patch.setattr(constants, name, value)
    patch.setattr(_transfer, "PAUSES", (0.0, 0.0))
    patch.delenv("HF_TOKEN", raising=False)


def environment(hub: FakeHub, cache: Path) -> dict[str, str]:
    """The same for another process."""
    return {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HUB_CACHE": str(cache)}
