"""What every request passes before a surface sees it, and what every answer passes on its way out.

In this order: the name it was sent to (`Host`), the page it comes from (`Origin`), whether the server is
ending, the key, the body (its size, its time, that it is JSON within the limits). What fails here is answered
in the surface's own error form. Then the surface answers; if its client leaves, it is cancelled.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tinygpt.core.errors import TinyGPTError
from tinygpt.data.masking import masked
from tinygpt.serve import limits as limits_
from tinygpt.serve import security
from tinygpt.serve.fields import PARSED
from tinygpt.serve.limits import LimitError, Settings
from tinygpt.serve.metrics import Metrics
from tinygpt.serve.trace import CURRENT, Record

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Refuse = Callable[..., Any]  # (path, headers, status, message, code=, param=) -> Response
NAME = re.compile(r"[\w.-]{1,64}")
CLIENT_GONE = 499  # in log and figures only: nobody is there to read it
METHODS = "GET, HEAD, POST, DELETE, OPTIONS"
SHOWN = "x-request-id, retry-after, x-tinygpt-route"  # headers that scripts of an allowed page may read
RAW = ("/api/blobs/",)  # paths whose bodies are no JSON


class Gate:
    """An ASGI application around that of the surfaces.

    refuse: writes an error in the form of the surface that a path belongs to. done: called with the record of
    each request once it is over. tracing: whether records keep the times of tokens. log: hears what
    failed."""

    def __init__(
        self,
        app: Any,
        settings: Settings,
        metrics: Metrics,
        refuse: Refuse,
        done: Callable[[Record], None],
        *,
        tracing: bool = False,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics
        self.refuse, self.done, self.tracing = refuse, done, tracing
        self.log = log
        self.keys = security.Keys(settings.keys)
        self.draining = False
        self.n_open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        await _Passage(self, scope, receive, send).run()


class _Passage:
    """One request on its way through the gate."""

    def __init__(self, gate: Gate, scope: Scope, receive: Receive, send: Send) -> None:
        self.gate, self.scope, self._receive, self._send = gate, scope, receive, send
        self.headers: dict[str, str] = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        given = self.headers.get("x-request-id", "")
        client = scope.get("client")
        self.record = Record(
            given if NAME.fullmatch(given) and masked(given) == given else secrets.token_hex(8),
            method=scope["method"],
            path=masked(ascii(scope["path"])[1:-1])[:200],  # a path may hold anything
            client=client[0] if client else "",
            tracing=gate.tracing,
        )
        self.started = self.complete = self.body_read = False
        self._gone = asyncio.Event()
        self._replay: bytes | None = None

    async def run(self) -> None:
        gate, record = self.gate, self.record
        token = CURRENT.set(record)
        gate.n_open += 1
        try:
            await self._pass()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not record.gone or task is None or task.uncancel():
                raise
        except Exception:
            gate.log(f"request {record.request_id} failed:\n{masked(traceback.format_exc())}")
            if not self.started:
                await self._answer(500, "the server made a mistake; its log says more", "internal_error")
        finally:
            gate.n_open -= 1
            CURRENT.reset(token)
            record.status = CLIENT_GONE if record.gone and not self.complete else record.status
            record.route = getattr(self.scope.get("route"), "path", "") or "other"
            record.ended = time.perf_counter()
            method = (
                record.method if record.method in METHODS.split(", ") else "other"
            )  # a client may invent them
            gate.metrics.requests.add(route=record.route, method=method, status=str(record.status))
            gate.metrics.seconds.see(record.seconds, route=record.route)
            gate.done(record)

    async def _pass(self) -> None:
        gate, settings, headers = self.gate, self.gate.settings, self.headers
        host, origin, path = headers.get("host"), headers.get("origin"), self.scope["path"]
        if sum(len(k) + len(v) for k, v in self.scope["headers"]) > settings.limits.header_bytes:
            return await self._answer(431, "the headers are too large", "headers_too_large")
        if host is not None and not security.host_allowed(host, settings.hosts):
            message = f"this server does not go by the name {host[:80]!r}; --allow-host NAME lets it"
            return await self._answer(403, message, "host_not_allowed")
        known = origin is None or security.origin_allowed(origin, host, settings.origins)
        if self.scope["method"] == "OPTIONS":
            return await self._options(known)
        if not known and self.scope["method"] not in ("GET", "HEAD"):
            message = f"pages of {(origin or '')[:80]!r} may not use this server; --cors-origin lets them"
            return await self._answer(403, message, "origin_not_allowed")
        if gate.draining and path not in security.OPEN_PATHS:
            return await self._answer(503, "the server is ending", "shutting_down")
        if path not in security.OPEN_PATHS and not gate.keys.opens(headers):
            return await self._answer(401, "no valid API key was given", "invalid_api_key")
        try:
            body = await self._read()
            if body and self.scope["method"] != "GET" and not path.startswith(RAW):
                self.scope[PARSED] = limits_.read_json(body, settings.limits)
        except TimeoutError:
            seconds = settings.limits.body_time
            return await self._answer(408, f"the body was not there within {seconds:g} s", "timeout")
        except LimitError as error:
            return await self._answer(413, str(error), "body_too_large")
        except TinyGPTError as error:
            param = getattr(error, "param", None)
            return await self._answer(400, str(error), "invalid_body", param)
        if body is None:
            self.record.gone = True
            return None
        self._replay = body
        await self._run_app()

    async def _run_app(self) -> None:
        """The surface's answer, cancelled when the client leaves."""
        task = asyncio.current_task()
        assert task is not None

        async def watch() -> None:
            while (await self._receive())["type"] != "http.disconnect":
                pass
            if not self.complete:
                self.record.gone = True
                self._gone.set()
                task.cancel()

        if (
            self.scope["method"] == "HEAD"
        ):  # answered as GET is; what serves the connection leaves the body out
            self.scope = {**self.scope, "method": "GET"}
        watcher = asyncio.create_task(watch())
        try:
            await self.gate.app(self.scope, self._replayed, self._out)
        finally:
            watcher.cancel()

    async def _read(self) -> bytes | None:
        """The body; None where the client left before its end."""
        limits = self.gate.settings.limits
        length = self.headers.get("content-length", "")
        if length.isdecimal() and int(length) > limits.body_bytes:
            raise LimitError(f"the body has {length} bytes, at most {limits.body_bytes} are read")
        parts: list[bytes] = []
        size = 0
        async with asyncio.timeout(limits.body_time):
            while True:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    return None
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > limits.body_bytes:
                    raise LimitError(f"the body has more than {limits.body_bytes} bytes")
                if not message.get("more_body", False):
                    self.body_read = True
                    return b"".join(parts)

    async def _replayed(self) -> Message:
        """What the surface receives: the body, and then that the client has left."""
        if self._replay is not None:
            body, self._replay = self._replay, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _out(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self.record.status = message["status"]
            message = {**message, "headers": [*message.get("headers", []), *self._more(message)]}
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self.complete = True
        await self._send(message)

    def _more(self, message: Message) -> list[tuple[bytes, bytes]]:
        """Headers that every answer has."""
        own = {name for name, _ in message.get("headers", [])}
        found = {"x-request-id": self.record.request_id, "x-content-type-options": "nosniff"}
        if self.record.decision:
            found["x-tinygpt-route"] = self.record.decision
        if message["status"] in (429, 503) and b"retry-after" not in own:
            found["retry-after"] = str(self.gate.settings.retry_after)
        if not self.body_read or self.gate.draining:
            found["connection"] = "close"
        origin, settings = self.headers.get("origin"), self.gate.settings
        if origin is not None and ("*" in settings.origins or origin in settings.origins):
            found |= {
                "access-control-allow-origin": origin,
                "access-control-expose-headers": SHOWN,
                "vary": "origin",
            }
        return [(name.encode(), text.encode("latin-1")) for name, text in found.items()]

    async def _options(self, known: bool) -> None:
        """What a page may do here; a preflight of one that may do nothing is refused."""
        wanted = self.headers.get("access-control-request-method")
        if wanted is None:
            return await self._bare(204, {"allow": METHODS})
        if not known:
            return await self._answer(
                403, "pages of this origin may not use this server", "origin_not_allowed"
            )
        asked = self.headers.get("access-control-request-headers", "authorization, content-type")
        named = asked if re.fullmatch(r"[\w\s,-]{1,2000}", asked) else "authorization, content-type"
        await self._bare(
            204,
            {
                "access-control-allow-methods": METHODS,
                "access-control-allow-headers": named,
                "access-control-max-age": "600",
            },
        )

    async def _bare(self, status: int, headers: dict[str, str]) -> None:
        pairs = [(name.encode(), text.encode("latin-1")) for name, text in headers.items()]
        await self._out({"type": "http.response.start", "status": status, "headers": pairs})
        await self._out({"type": "http.response.body", "body": b""})

    async def _answer(self, status: int, message: str, code: str, param: str | None = None) -> None:
        """An error, in the form of the surface that the path belongs to."""
        path = self.scope["path"]
        response = self.gate.refuse(path, self.headers, status, message, code=code, param=param)
        if status == 401:
            response.headers["www-authenticate"] = "Bearer"
        await response(self.scope, self._replayed, self._out)
