"""A client of OpenAI-compatible servers, on the standard library alone: retries, and streams.

The key of a server, where it wants one, is read from the environment: OPENAI_API_KEY."""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import json
import os
import random
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Generator, Iterator
from typing import Any

from tinygpt.core.errors import ConfigError, RemoteError

AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)  # what a server says that may answer later
LONGEST = 300.0  # seconds that are waited at most, whatever a server asks for
SHOWN = 300  # letters of a server's message


class Refused(RemoteError):
    """The server understood, and said no. `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(
            f"the server answers HTTP {status}: {message}" if message else f"the server answers HTTP {status}"
        )
        self.status = status


class Client:
    """A server's /v1. May be used from several threads at once.

    seconds: longest wait for an answer; tries: how often a request is made at most; pause: how it is waited
    between them."""

    def __init__(
        self, url: str, *, seconds: float = 600.0, tries: int = 6, pause: Callable[[float], Any] = time.sleep
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ConfigError(
                f"--url {url} is no address of a server", hint="such as http://127.0.0.1:8080/v1"
            )
        self.url = url.rstrip("/") + ("/v1" if parts.path in ("", "/") else "")
        self._seconds, self._tries, self._pause = seconds, tries, pause
        self._random, self._guard = random.Random(0), threading.Lock()

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The JSON answer; made again after what may pass. Refused, or RemoteError after the last try."""
        return self._insisting(lambda: self._json(path, body))

    def get(self, path: str) -> dict[str, Any]:
        """The same without a body."""
        return self._insisting(lambda: self._json(path, None))

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
            for line in response:
                if not line.startswith(b"data:"):
                    continue
                data = line[5:].strip()
                if data == b"[DONE]":
                    return
                chunk = json.loads(data)
                if "error" in chunk:
                    raise RemoteError(f"the server broke off: {_message(chunk)}")
                yield chunk

    def _insisting(self, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        for number in range(1, self._tries + 1):
            try:
                return ask()
            except Refused as error:
                if error.status not in AGAIN or number == self._tries:
                    raise
                wait = getattr(error, "after", None)
            except RemoteError:
                if number == self._tries:
                    raise
                wait = None
            with self._guard:  # callers that failed together come back apart
                share = self._random.uniform(0.5, 1.0)
            self._pause(min(LONGEST, 0.5 * 2**number * share if wait is None else wait))
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
    def _open(self, path: str, body: dict[str, Any] | None) -> Generator[Any]:
        key = os.environ.get("OPENAI_API_KEY", "")
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=self._seconds) as response:
                yield response
        except urllib.error.HTTPError as error:
            with error:
                refused = Refused(error.code, _said(error))
            refused.after = _after(error.headers.get("Retry-After"))  # type: ignore[attr-defined]
            raise refused from error
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "reason", None) or error
            raise RemoteError(
                f"{self.url}{path} does not answer: {why or type(error).__name__}",
                hint="is the server running?",
            ) from error


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
        return _message(json.loads(raw))
    except (ValueError, RecursionError):
        return raw.decode(errors="replace").strip()[:SHOWN]


def _message(found: Any) -> str:
    """The message of an error object, OpenAI's or one like it."""
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and key in found:
            found = found[key]
    return (found if isinstance(found, str) else json.dumps(found))[:SHOWN]
