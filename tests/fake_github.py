"""GitHub's API on loopback: the few routes that are asked, and the ways the real one says no or breaks."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

DIFF = "application/vnd.github.diff"


def diff_of(n: int, letters: int = 40) -> str:
    return (
        f"diff --git a/f{n}.py b/f{n}.py\n--- a/f{n}.py\n+++ b/f{n}.py\n@@ -1 +1 @@\n-a\n+{'b' * letters}\n"
    )


@dataclass
class FakeGitHub:
    """What it has and does. `log` are the requests: path, query, Authorization, If-None-Match, Accept."""

    lists: dict[str, list[Any]] = field(default_factory=dict)  # path -> items
    objects: dict[str, Any] = field(default_factory=dict)  # path -> object
    diffs: dict[str, str] = field(default_factory=dict)
    log: list[tuple[str, dict[str, str], str, str, str]] = field(default_factory=list)
    faults: dict[str, list[Any]] = field(
        default_factory=dict
    )  # path -> (status, headers, body) or bytes to cut at
    token: str = ""  # needed for anything
    per_page: int = 2
    elsewhere: str = ""  # where diffs are
    endpoint: str = ""
    odd_next: str = ""

    def repository(self, repo: str, licence: str | None = "MIT") -> None:
        """A repository with three issues (one open), remarks on reviews and commits."""
        at = f"/repos/{repo}"
        self.objects[at] = {"full_name": repo, "license": licence and {"spdx_id": licence}}
        issues, comments, commits = [], [], []
        for n in range(1, 6):
            pull = {"merged_at": "2024-01-01T00:00:00Z" if n != 3 else None}
            other = {
                "number": 100 + n, "body": f"Fixes #{n}" if n != 2 else "see #2", "pull_request": pull,
                "repository": {"full_name": repo},
            }  # fmt: skip
            event = {"event": "cross-referenced", "source": {"issue": other}}
            self.lists[f"{at}/issues/{n}/timeline"] = [{"event": "labeled"}, event]
            self.diffs[f"{at}/pulls/{100 + n}"] = diff_of(n, 40 if n != 4 else 20_000)
            labels = [{"name": "bug"}] if n % 2 else []
            issues.append(
                {
                    "number": n,
                    "title": f"Issue {n}",
                    "body": f"It breaks {n}.",
                    "labels": labels,
                    "state": "closed",
                }
            )
            comments.append(
                {
                    "id": n, "diff_hunk": f"@@ {n}", "body": f"remark {n}", "path": "f.py",
                    "user": {"type": "User"}, "pull_request_url": f"x/pulls/{n}",
                    "in_reply_to_id": 1 if n == 2 else None,
                }
            )  # fmt: skip
            sha = hashlib.sha1(f"{repo}{n}".encode()).hexdigest()
            parents = [{"sha": "0"}] * (2 if n == 3 else 1)
            commits.append({"sha": sha, "commit": {"message": f"Change {n}"}, "parents": parents})
            self.diffs[f"{at}/commits/{sha}"] = diff_of(n)
        issues[1]["user"] = {"login": "someone"}
        issues.append({"number": 101, "title": "A pull", "pull_request": {}, "state": "closed", "labels": []})
        issues.append({"number": 9, "title": "Open", "state": "open", "labels": []})
        self.lists |= {f"{at}/issues": issues, f"{at}/pulls/comments": comments, f"{at}/commits": commits}

    def asked(self, word: str) -> list[tuple[str, dict[str, str], str, str, str]]:
        return [one for one in self.log if word in one[0]]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    hub: FakeGitHub

    def log_message(self, *_: Any) -> None:
        """Nothing on stderr."""

    def do_GET(self) -> None:
        hub, parts = self.hub, urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        told, accept = self.headers.get("Authorization", ""), self.headers.get("Accept", "")
        hub.log.append((parts.path, query, told, self.headers.get("If-None-Match", ""), accept))
        path, cut = parts.path, None
        if waiting := hub.faults.get(path):
            fault = waiting.pop(0)
            if not isinstance(fault, int):
                status, headers, body = fault
                return self.say(status, body, **headers)
            cut = fault
        if hub.token and told != f"Bearer {hub.token}":
            return self.say(401, {"message": "Bad credentials"})
        if accept == DIFF and path in hub.diffs:
            if hub.elsewhere:
                return self.say(302, b"", Location=f"{hub.elsewhere}{path}")
            return self.say(200, hub.diffs[path].encode(), cut)
        if path in hub.objects:
            return self.say(200, hub.objects[path], cut)
        if path in hub.lists:
            return self.page(path, query, cut)
        self.say(404, {"message": "Not Found"})

    def page(self, path: str, query: dict[str, str], cut: int | None) -> None:
        items = self.hub.lists[path]
        if (state := query.get("state", "all")) != "all":
            items = [one for one in items if one.get("state") == state]
        for label in filter(None, query.get("labels", "").split(",")):
            items = [one for one in items if label in [known["name"] for known in one["labels"]]]
        number, size = int(query.get("page", "1")), self.hub.per_page
        last = max(1, -(-len(items) // size))
        links = []
        for rel, n in (("next", number + 1), ("last", last)):
            if number < last:
                url = f"{self.hub.endpoint}{path}?{urlencode(query | {'page': n})}"
                url = self.hub.odd_next if rel == "next" and self.hub.odd_next else url
                links.append(f'<{url}>; rel="{rel}"')
        link = {"Link": ", ".join(links)} if links else {}
        self.say(200, items[size * (number - 1) : size * number], cut, **link)

    def say(self, status: int, body: Any = b"", cut: int | None = None, **headers: str) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        etag = f'"{hashlib.sha256(raw).hexdigest()}"'
        if status == 200 and self.headers.get("If-None-Match") == etag:
            status, raw = 304, b""
        self.send_response(status)
        for key, value in {"Content-Length": str(len(raw)), "ETag": etag, **headers}.items():
            self.send_header(re.sub("_", "-", key), value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(raw if cut is None else raw[:cut])
        if cut is not None:
            self.close_connection = True


@contextlib.contextmanager
def serving(hub: FakeGitHub) -> Iterator[FakeGitHub]:
    """The API, listening."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
