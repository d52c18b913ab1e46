"""GitHub's REST API on the standard library: pages, rate limits, conditional requests, and a token's ways.

A token goes to the API's own address and nowhere else: redirects to another one are followed without it, and
an address that is neither https nor this machine gets none. Answers are kept with their ETags, so that what
did not change is not counted against the limit of requests."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any

from tinygpt.core import files
from tinygpt.core.errors import ConfigError, RemoteError
from tinygpt.core.events import Events

PUBLIC = "https://api.github.com"
TOKEN_ENV = "GITHUB_TOKEN"
JSON, DIFF = "application/vnd.github+json", "application/vnd.github.diff"
VERSION = "2022-11-28"  # of the API
PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds before trying again after a fault
PAUSE: Callable[[float], Any] = time.sleep
SECONDARY = 60.0  # seconds to wait where a secondary limit names none; doubled each time
REDIRECTS = 5
SHOWN = 200  # letters of GitHub's own message
LARGEST = 64 << 20  # bytes of an answer
_NEXT = re.compile(r'<([^>]*)>\s*;[^,]*?\brel="?next"?')
_LAST = re.compile(r'<[^>]*[?&]page=(\d+)[^>]*>\s*;[^,]*?\brel="?last"?')


class Refused(RemoteError):
    """GitHub understood, and said no. `status` is HTTP's."""

    def __init__(self, status: int, message: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Page:
    """An answer: what it holds, where the next one is ("": nowhere), and the last one's number, if told."""

    body: Any
    next: str = ""
    last: int = 0


class _Stay(urllib.request.HTTPRedirectHandler):
    """Leaves redirects to us: the library would send the token along."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any) -> None:
        return None


class GitHub:
    """An API at an address. max_wait: seconds that are waited in all for limits to end."""

    def __init__(
        self, url: str = PUBLIC, *, token_env: str = "", max_wait: float = 900.0, events: Events | None = None
    ) -> None:
        scheme, host, _ = _origin(url)
        if scheme not in ("http", "https") or not host or "@" in url or "?" in url:
            raise ConfigError(
                f"--api-url {url} is no address of an API", hint=f"such as {PUBLIC} or https://HOST/api/v3"
            )
        self.url, self._origin = url.rstrip("/"), _origin(url)
        self._token, self._env = _token(url, token_env)
        self._left, self._max_wait, self._events = max_wait, max_wait, events or Events()
        self._opener = urllib.request.build_opener(_Stay)
        self.n_asked = self.n_unchanged = 0

    @property
    def knows(self) -> bool:
        """Whether it asks as somebody."""
        return bool(self._token)

    def get(self, path: str, what: str, *, accept: str = JSON, **params: Any) -> Page:
        """One answer. `what` names it in errors. RemoteError says what went wrong, and what to do."""
        asked = {key: value for key, value in params.items() if value not in (None, "")}
        query = f"?{urllib.parse.urlencode(asked)}" if asked else ""
        return self._at(path if path.startswith("http") else f"{self.url}{path}{query}", what, accept)

    def pages(self, path: str, what: str, **params: Any) -> Iterator[Page]:
        """The pages of a list, each of at most 100, as their Link headers lead from one to the next."""
        seen: set[str] = set()
        page = self.get(path, what, per_page=100, **params)
        while True:
            if not isinstance(page.body, list):
                raise RemoteError(f"the answer about {what} makes no sense: it is no list", hint=self._look())
            yield page
            if not page.next:
                return
            if _origin(page.next) != self._origin or page.next in seen:
                raise RemoteError(
                    f"the next page of {what} is said to be at {page.next[:SHOWN]}", hint=self._look()
                )
            seen.add(page.next)
            page = self._at(page.next, what, JSON)

    def _look(self) -> str:
        return "check --api-url" if self.url != PUBLIC else "try again later"

    def _at(self, url: str, what: str, accept: str) -> Page:
        """The answer at an address; insists where it may come later, and waits for limits to end."""
        known = self._kept(url, accept)
        faults, secondary = 0, SECONDARY
        while True:
            try:
                status, headers, raw = self._follow(url, accept, str(known.get("etag", "")))
                if status == 304:
                    self.n_unchanged += 1
                    return Page(body=known["body"], next=str(known["next"]), last=int(known["last"]))
                if status == 200:
                    return self._read(url, accept, headers, raw, what)
                why = f"status {status}"
            except (OSError, http.client.HTTPException) as error:
                status, headers, raw = 0, Message(), b""
                why = str(getattr(error, "reason", None) or error) or type(error).__name__
            limited = status in (403, 429) and _limit(headers, raw)
            if limited:
                asked = _asked_to_wait(headers)
                self._wait(secondary if asked is None else asked, status)
                secondary *= 2 if asked is None else 1
            elif status == 0 or status >= 500:
                if faults == len(PAUSES):
                    host = self._origin[1]
                    raise RemoteError(
                        f"{host} does not answer about {what}: {why}",
                        hint="try again later; --resume goes on",
                    )
                PAUSE(PAUSES[faults])
                faults += 1
            else:
                raise self._refusal(status, raw, what)

    def _follow(self, url: str, accept: str, etag: str) -> tuple[int, Message, bytes]:
        """A request and its redirects, at most so many; the token stays at home."""
        for _ in range(REDIRECTS + 1):
            headers = {"Accept": accept, "User-Agent": "tinygpt", "X-GitHub-Api-Version": VERSION}
            headers |= {"If-None-Match": etag} if etag else {}
            if self._token and _origin(url) == self._origin:
                headers["Authorization"] = f"Bearer {self._token}"
            self.n_asked += 1
            try:
                with self._opener.open(urllib.request.Request(url, headers=headers), timeout=60) as response:
                    return response.status, response.headers, _whole(response)
            except urllib.error.HTTPError as error:
                with error:
                    if error.code not in (301, 302, 303, 307, 308):
                        return error.code, error.headers, error.read(1 << 16)
                    try:
                        target = urllib.parse.urljoin(url, error.headers.get("Location", ""))
                    except ValueError:
                        target = ""
            scheme = _origin(target)[0]
            if scheme not in ("http", "https") or (url.startswith("https:") and scheme == "http"):
                raise RemoteError(f"{url[:SHOWN]} leads to {target[:SHOWN]}, which is not followed")
            url = target
        raise RemoteError(f"{url[:SHOWN]} leads from one address to another without end")

    def _read(self, url: str, accept: str, headers: Message, raw: bytes, what: str) -> Page:
        text = raw.decode("utf-8", errors="replace")
        body: Any = text
        if accept == JSON:
            try:
                body = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise RemoteError(f"the answer about {what} is no JSON", hint=self._look()) from error
        link = headers.get("Link", "")
        following, last = _NEXT.search(link), _LAST.search(link)
        page = Page(body=body, next=following[1] if following else "", last=int(last[1]) if last else 0)
        if accept == JSON and (etag := headers.get("ETag")):
            told = {"etag": etag, "next": page.next, "last": page.last, "body": body}
            files.write_text(self._place(url, accept), json.dumps({"url": url} | told))
        return page

    def _place(self, url: str, accept: str) -> Any:
        name = hashlib.sha256(f"{accept} {bool(self._token)} {url}".encode()).hexdigest()
        return files.cache_dir("github", name[:2]) / f"{name}.json"

    def _kept(self, url: str, accept: str) -> dict[str, Any]:
        """What was answered before; empty where nothing was. The server says whether it still holds."""
        known = files.peek_json(self._place(url, accept)) if accept == JSON else {}
        return known if known.get("url") == url and {"etag", "next", "last", "body"} <= known.keys() else {}

    def _wait(self, seconds: float, status: int) -> None:
        """Wait as GitHub asks to, within what is allowed in all; at least a second, so that it ends."""
        seconds = max(1.0, seconds)
        who = "" if self._token else " without a token, 60 requests an hour are allowed:"
        if seconds > self._left:
            enough = self._max_wait - self._left + seconds
            hint = f"--resume goes on then; --max-wait {enough:.0f} waits for it"
            hint += "" if self._token else f"; a token in {self._env or TOKEN_ENV} allows more"
            raise Refused(
                status, f"GitHub asks to wait {_minutes(seconds)} more:{who} the limit is reached", hint
            )
        self._left -= seconds
        self._events.note(f"GitHub's limit of requests is reached: waiting {_minutes(seconds)}")
        PAUSE(seconds)

    def _refusal(self, status: int, raw: bytes, what: str) -> Refused:
        said = _said(raw)
        if status == 401 and not self._token:
            env = self._env or (TOKEN_ENV if self.url == PUBLIC else "")
            return Refused(
                status,
                f"GitHub shows {what} to known people only",
                env and f"set {env}" or "give --token-env",
            )
        if status == 401:
            return Refused(status, f"GitHub does not accept the token in {self._env}", "make another")
        if status == 404:
            known = "check its name" if self._token else f"check its name; a private one needs {TOKEN_ENV}"
            return Refused(status, f"there is no {what}, or it is private", known)
        if status == 403:
            hint = "check what the token may read" if self._token else f"set {TOKEN_ENV}"
            return Refused(status, f"GitHub refuses {what}{said and f': {said}'}", hint)
        return Refused(status, f"GitHub refuses {what} (status {status}){said and f': {said}'}")


def _whole(response: Any) -> bytes:
    """All of an answer; IncompleteRead where it was cut, RemoteError where it is too large."""
    raw: bytes = response.read(LARGEST + 1)
    if len(raw) > LARGEST:
        raise RemoteError(f"an answer is larger than {LARGEST >> 20} MB")
    length = response.headers.get("Content-Length")
    if length is not None and length.isdigit() and len(raw) < int(length):
        raise http.client.IncompleteRead(raw, int(length) - len(raw))
    return raw


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port; empty for what is no address."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        return "", None, None
    return parts.scheme, parts.hostname, port or {"https": 443, "http": 80}.get(parts.scheme)


def _token(url: str, env: str) -> tuple[str, str]:
    """(token, variable that it is from). That of github.com is not sent to another API unless it is named."""
    name = env or (TOKEN_ENV if _origin(url) == _origin(PUBLIC) else "")
    token = os.environ.get(name, "") if name else ""
    if env and not token:
        raise ConfigError(f"--token-env: there is no token in {env}", hint=f"export {env}=...")
    if not re.fullmatch(r"[!-~]*", token):
        raise ConfigError(f"the token in {name} holds letters that no token has", hint=f"set {name} anew")
    scheme, host, _ = _origin(url)
    if token and scheme != "https" and host not in ("127.0.0.1", "localhost", "::1"):
        raise ConfigError(
            f"--api-url {url}: a token would be sent there in the open", hint="give an https address"
        )
    return token, name


def _limit(headers: Message, raw: bytes) -> bool:
    """Whether a refusal means that there were too many requests."""
    if headers.get("Retry-After") or headers.get("X-RateLimit-Remaining") == "0":
        return True
    return "rate limit" in _said(raw).lower() or "abuse" in _said(raw).lower()


def _asked_to_wait(headers: Message) -> float | None:
    """Seconds to wait; None where the answer does not say."""
    after = headers.get("Retry-After", "")
    if after.isdigit():
        return float(after)
    reset = headers.get("X-RateLimit-Reset", "")
    if headers.get("X-RateLimit-Remaining") == "0" and reset.isdigit():
        return max(0.0, float(reset) - time.time()) + 1.0
    return None


def _said(raw: bytes) -> str:
    try:
        found: Mapping[str, Any] = json.loads(raw)
        return str(found.get("message", ""))[:SHOWN]
    except (ValueError, AttributeError, RecursionError):
        return ""


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"
