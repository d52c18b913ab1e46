"""A client of OpenAI-compatible servers, on the standard library alone: retries, and streams.

The key of a server, where it wants one, is read from the environment: OPENAI_API_KEY."""

from __future__ import annotations

import contextlib
import email.utils
import functools
import http.client
import json
import os
import random
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, TypeVar

from tinygpt.core.errors import ConfigError, RemoteError
from tinygpt.runs import _wire
from tinygpt.runs._pace import Pace
from tinygpt.runs._wire import Held, Wire

T = TypeVar("T")

AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)  # what a server says that may answer later
LONGEST = 300.0  # seconds that are waited at most, whatever a server asks for
DONE = "[DONE]"  # the last event of a stream
SHOWN = 300  # letters of a server's message


def another(asked: str, found: dict[str, Any]) -> str:
    """A sentence where an answer says that another model wrote it than was asked; empty where it does not. It
    may be the same one by another name, so that this is no error."""
    told = found.get("model")
    if not isinstance(told, str) or told in ("", asked) or told.removesuffix(":latest") == asked:
        return ""
    return f"'{asked}' was asked, and the server says that '{told[:SHOWN]}' answers"


def withheld(choice: dict[str, Any]) -> str:
    """Why the text of a choice is no answer of the model's; empty where it is one."""
    if choice.get("finish_reason") == "content_filter":
        return "the server's content filter withheld the answer"
    return ""


class Refused(RemoteError):
    """The server understood, and said no. `status` is HTTP's, `after` the seconds that it asks to wait, `to`
    where it leads."""

    def __init__(self, status: int, message: str, after: float | None = None, to: str = "") -> None:
        super().__init__(
            f"the server answers HTTP {status}: {message}" if message else f"the server answers HTTP {status}"
        )
        self.status, self.said, self.after, self.to = status, message, after, to


class Silent(Refused):
    """The server answers, but not as a stream."""

    def __init__(self, told: str) -> None:
        super().__init__(200, f"but does not stream: it sends {told}")


class _Stay(urllib.request.HTTPRedirectHandler):
    """Goes nowhere else: the key is for the server that was named."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


@functools.cache
def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_Stay)


def _over(wire: Wire | None) -> urllib.request.OpenerDirector:
    return _opener() if wire is None else urllib.request.build_opener(_Stay, Held(wire))


class Client:
    """A server's /v1. May be used from several threads at once.

    seconds: longest wait for an answer; tries: how often a request is made at most; pause: how it is waited
    between them, for `first` seconds at the start and each time for twice as long, less a random part that
    `seed` gives. headers: those that show a key, in place of OPENAI_API_KEY's. pace: when a request may
    be made. most: a server that asks to wait longer is not asked again; None: LONGEST is waited instead."""

    def __init__(
        self,
        url: str,
        *,
        seconds: float = 600.0,
        tries: int = 6,
        pause: Callable[[float], Any] = time.sleep,
        first: float = 1.0,
        seed: int = 0,
        headers: Mapping[str, str] | None = None,
        pace: Pace | None = None,
        most: float | None = None,
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ConfigError(
                f"--url {url} is no address of a server", hint="such as http://127.0.0.1:8080/v1"
            )
        self.url = url.rstrip("/") + ("/v1" if parts.path in ("", "/") else "")
        self._seconds, self._tries, self._pause, self._first = seconds, tries, pause, first
        self._random, self._guard = random.Random(seed), threading.Lock()
        self._headers, self._pace, self._most = headers, pace, most

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The JSON answer; made again after what may pass. Refused, or RemoteError after the last try."""
        return self.insisting(lambda: self._json(path, body))

    def read(self, path: str, body: dict[str, Any], read: Callable[[dict[str, Any]], T]) -> T:
        """The same, as `read` makes it of the answer: where that raises RemoteError the request is made
        again, too."""
        return self.insisting(lambda: read(self._json(path, body)))

    def get(self, path: str) -> dict[str, Any]:
        """The same without a body."""
        return self.insisting(lambda: self._json(path, None))

    def model(self) -> str:
        """The first model that the server lists."""
        return self.models()[0]

    def models(self) -> list[str]:
        """The names that the server lists; RemoteError where it lists none."""
        found = self.get("/models").get("data")
        names = [one.get("id") for one in found if isinstance(one, dict)] if isinstance(found, list) else []
        if not names:
            raise RemoteError(f"{self.url}/models lists no model", hint="give the model's name")
        return [str(name or "") for name in names]

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The chunks of a streamed answer, as they come. It is not made again."""
        with self._open(path, body) as response:
            for data in _wire.data(response):
                if data == DONE:
                    return
                chunk = json.loads(data)
                if "error" in chunk:
                    raise RemoteError(f"the server broke off: {message_of(chunk)}")
                yield chunk

    def events(self, path: str, body: dict[str, Any], wire: Wire) -> Iterator[str]:
        """The data of a streamed answer's events, of whatever API. It is not made again. Refused, Silent;
        RemoteError where the connection breaks."""
        with self._open(path, body, wire) as response:
            kind = response.headers.get_content_type()
            if kind != "text/event-stream":
                raise Silent(kind)
            try:
                yield from _wire.data(response)
            except (OSError, http.client.HTTPException) as error:
                raise RemoteError(f"the connection broke: {str(error) or type(error).__name__}") from error

    def insisting(self, ask: Callable[[], T]) -> T:
        """What `ask` gives, which is called again after what may pass: Refused for AGAIN, other
        RemoteErrors."""
        for number in range(1, self._tries + 1):
            if self._pace is not None:
                self._pace.take()
            try:
                return ask()
            except Refused as error:
                wait = error.after
                if error.status in AGAIN and wait is not None and self._pace is not None:
                    self._pace.hold(min(LONGEST, wait))
                long = wait is not None and self._most is not None and wait > self._most
                if error.status not in AGAIN or number == self._tries or long:
                    raise
            except RemoteError:
                if number == self._tries:
                    raise
                wait = None
            with self._guard:  # callers that failed together come back apart
                share = self._random.uniform(0.5, 1.0)
            self._pause(min(LONGEST, self._first * 2 ** (number - 1) * share if wait is None else wait))
        raise AssertionError

    def _json(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        with self._open(path, body) as response:
            try:
                found = json.loads(self._whole(response))
            except (ValueError, RecursionError, OSError, http.client.HTTPException) as error:
                raise RemoteError(f"{self.url}{path} gave no JSON: {error}") from error
        if not isinstance(found, dict):
            raise RemoteError(f"{self.url}{path} gave no JSON object")
        return found

    def _whole(self, response: Any) -> bytes:
        """The body. One that comes drop by drop ends with the time of an answer, too."""
        until, parts = time.monotonic() + self._seconds, list[bytes]()
        while part := response.read1(1 << 16):
            parts.append(part)
            if time.monotonic() > until:
                raise TimeoutError(f"it was not whole after {self._seconds:g} s")
        if response.length:  # what read() would say of itself
            raise http.client.IncompleteRead(b"".join(parts), response.length)
        return b"".join(parts)

    @contextlib.contextmanager
    def _open(self, path: str, body: dict[str, Any] | None, wire: Wire | None = None) -> Generator[Any]:
        headers = {"Content-Type": "application/json"}
        headers |= keyed(os.environ.get("OPENAI_API_KEY", "")) if self._headers is None else self._headers
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers)
        try:
            with _over(wire).open(request, timeout=self._seconds) as response:
                yield response
        except urllib.error.HTTPError as error:
            with error:
                told = error.headers
                after, to = _after(told.get("Retry-After")), told.get("Location") or ""
                refused = Refused(error.code, _said(error), after, to)
            raise refused from error
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "reason", None) or error
            raise RemoteError(
                f"{self.url}{path} does not answer: {str(why) or type(error).__name__}",
                hint="is the server running?",
            ) from error


def keyed(key: str) -> dict[str, str]:
    """The header that shows a key, where there is one."""
    return {"Authorization": f"Bearer {key}"} if key else {}


def _after(text: str | None) -> float | None:
    """Seconds that a Retry-After asks to wait: a number, or a date; None where it says neither."""
    with contextlib.suppress(TypeError, ValueError):
        return max(0.0, float(text or ""))
    with contextlib.suppress(TypeError, ValueError):
        return max(0.0, email.utils.parsedate_to_datetime(text or "").timestamp() - time.time())
    return None


def _said(error: urllib.error.HTTPError) -> str:
    """What a refusal says for people."""
    try:
        raw = error.read(1 << 16)
    except (OSError, http.client.HTTPException):
        return ""
    try:
        return message_of(json.loads(raw))
    except (ValueError, RecursionError):
        return raw.decode(errors="replace").strip()[:SHOWN]


def message_of(found: Any) -> str:
    """The message of an error object, OpenAI's or one like it."""
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and key in found:
            found = found[key]
    return (found if isinstance(found, str) else json.dumps(found))[:SHOWN]
