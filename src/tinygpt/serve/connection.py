"""Connections and signals: what uvicorn leaves to whoever runs it.

uvicorn bounds neither how long the head of a request may take nor how long a client may leave what it was
sent unread, and beyond its number of connections it answers only once a head is there. So slow clients could
hold all connections. h11 is used and not httptools, which reads heads of any size.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable, Generator
from typing import Any

from tinygpt.core.errors import ConfigError
from tinygpt.serve.limits import Limits

FORCED = 130  # exit code after a second signal
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def protocol(limits: Limits) -> type[asyncio.Protocol]:
    """The class of this server's connections."""
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Connection(H11Protocol):
        """HTTP/1.1 with bounds on time."""

        head_timer: asyncio.TimerHandle | None = None
        write_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                self._say(503, "too many connections are open", "retry-after: 1\r\n")
                return
            self._wait_for_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop("head_timer")
            self._stop("write_timer")
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            super().data_received(data)
            if self.conn.their_state is h11.DONE and len(self.conn.trailing_data[0]) <= limits.header_bytes:
                self.flow.resume_reading()  # uvicorn would not see that a client leaves which asked for more
            if self.conn.their_state is not h11.IDLE:
                self._stop("head_timer")
            elif self.head_timer is None and not self.transport.is_closing():
                self._wait_for_head()

        def pause_writing(self) -> None:
            super().pause_writing()
            self.write_timer = self.loop.call_later(limits.write_time, self.transport.abort)

        def resume_writing(self) -> None:
            self._stop("write_timer")
            super().resume_writing()

        def send_400_response(self, msg: str) -> None:
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE, h11.ERROR):
                self._say(400, "this is no HTTP/1.1 that the server understands")
            else:
                self.transport.close()

        def _wait_for_head(self) -> None:
            self.head_timer = self.loop.call_later(limits.header_time, self._too_slow)

        def _too_slow(self) -> None:
            if not self.transport.is_closing():
                self._say(408, f"the head of a request was not there within {limits.header_time:g} s")

        def _stop(self, name: str) -> None:
            timer: asyncio.TimerHandle | None = getattr(self, name)
            if timer is not None:
                timer.cancel()
                setattr(self, name, None)

        def _say(self, status: int, message: str, header: str = "") -> None:
            """An answer to what is no request yet, and the end of the connection."""
            self._stop("head_timer")
            self.transport.write(_plain(status, message, header))
            self.transport.close()

    return Connection


def _plain(status: int, message: str, header: str = "") -> bytes:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    body = json.dumps({"error": {"message": message, "type": kind, "param": None, "code": None}})
    names = {400: "Bad Request", 408: "Request Timeout", 503: "Service Unavailable"}
    return (
        f"HTTP/1.1 {status} {names[status]}\r\ncontent-type: application/json\r\n{header}"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n{body}"
    ).encode()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; ConfigError where the address cannot be had. Port 0: any free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, since asyncio sets TCP_NODELAY on no other: without, a kept connection waits 40 ms an answer.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host.strip("[]"), port))
        sock.listen(1024)
    except (OSError, OverflowError) as error:
        sock.close()
        raise ConfigError(
            f"cannot listen on {host}:{port}: {getattr(error, 'strerror', None) or error}",
            hint="choose another --port (0: any), or end what listens there",
        ) from error
    sock.setblocking(False)
    return sock


def raise_file_limit(wanted: int) -> int:
    """Have the system allow so many open files where it can; how many it allows. macOS begins with 256."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            aim = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (aim, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@contextlib.contextmanager
def ends_at_once() -> Generator[None]:
    """A signal ends the process, also while the block waits for a thread, as for one that opens a model."""
    before = {number: signal.signal(number, lambda *_: os._exit(FORCED)) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Running:
    """A server that listens, from `serve` until it is asked to end.

    drain: called at the first signal, when no new request is taken any more. cut: called `grace` seconds
    later, to end what is still being answered. A second signal ends the process at once."""

    def __init__(
        self,
        app: Any,
        sock: socket.socket,
        limits: Limits,
        *,
        grace: float,
        drain: Callable[[], None],
        cut: Callable[[], None],
    ) -> None:
        import uvicorn

        class Server(uvicorn.Server):
            @contextlib.contextmanager
            def capture_signals(self) -> Generator[None]:
                yield  # they are ours: see `serve`

        self.sock, self.grace = sock, grace
        self._drain, self._cut = drain, cut
        config = uvicorn.Config(
            app, http=protocol(limits), ws="none", lifespan="on", loop="asyncio", log_config=None,
            log_level="critical", access_log=False, proxy_headers=False, server_header=False,
            h11_max_incomplete_event_size=limits.header_bytes, timeout_keep_alive=int(limits.idle_time),
            timeout_graceful_shutdown=int(grace) + 5,
        )  # fmt: skip
        self._server: Any = Server(config)
        self._signals = 0

    @property
    def n_connections(self) -> int:
        return len(self._server.server_state.connections)

    def end(self) -> None:
        """Take no new requests, and stop when the present ones are answered, or `grace` seconds from now."""
        self._signals += 1
        if self._signals > 1:
            os._exit(FORCED)
        self._drain()
        self._server.should_exit = True
        asyncio.get_running_loop().call_later(self.grace, self._cut)

    async def serve(self, begun: Callable[[], None] = lambda: None) -> None:
        """Answer until a SIGINT or SIGTERM, or `end`. begun: called once signals are heeded."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.end)
        try:
            begun()
            await self._server.serve(sockets=[self.sock])
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)
