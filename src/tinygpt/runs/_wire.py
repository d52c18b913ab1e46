"""A connection that another thread can cut, and the events that a server sends over it."""

from __future__ import annotations

import contextlib
import functools
import http.client
import queue
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any, Protocol

TICK = 0.05  # seconds after which somebody who waits looks whether they still should
LONGEST_LINE = 1 << 24  # bytes


class Cancel(Protocol):
    """Whether nobody wants it any more."""

    def is_set(self) -> bool: ...


class Cancelled(Exception):
    """Nobody wants it any more. No error of ours: whoever cancels catches it."""


class Stalled(Exception):
    """Nothing came for too long."""


class Wire:
    """The connections of one request. `cut` closes them at once, and what is opened after it, too."""

    def __init__(self) -> None:
        self._guard, self._open = threading.Lock(), list[socket.socket]()
        self.is_cut = False

    def hold(self, sock: socket.socket) -> None:
        with self._guard:
            self._open.append(sock)
            if self.is_cut:
                self._close()

    def cut(self) -> None:
        with self._guard:
            self.is_cut = True
            self._close()

    def _close(self) -> None:
        for sock in self._open:
            with contextlib.suppress(OSError):  # the other side was faster
                sock.shutdown(socket.SHUT_RDWR)  # close() alone would not wake the thread that reads


class _Http(http.client.HTTPConnection):
    def __init__(self, *args: Any, wire: Wire, **more: Any) -> None:
        super().__init__(*args, **more)
        self._wire = wire

    def connect(self) -> None:
        super().connect()
        self._wire.hold(self.sock)


class _Https(http.client.HTTPSConnection):
    def __init__(self, *args: Any, wire: Wire, **more: Any) -> None:
        super().__init__(*args, **more)
        self._wire = wire

    def connect(self) -> None:
        super().connect()
        self._wire.hold(self.sock)


class Held(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens connections that a wire holds."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._http: Any = functools.partial(_Http, wire=wire)
        self._https: Any = functools.partial(_Https, wire=wire)

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(self._http, req)

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(self._https, req)


def data(response: Any) -> Iterator[str]:
    """The data of server-sent events, as they come; a line of data is an event. Comments and names of events
    say nothing that the data do not."""
    while line := response.readline(LONGEST_LINE):
        if len(line) >= LONGEST_LINE:
            raise http.client.LineTooLong("event")
        if line.startswith(b"data:"):
            yield line[5:].strip().decode("utf-8", "replace")


def watched(source: Iterator[str], wire: Wire, cancel: Cancel, seconds: float) -> Iterator[str]:
    """What `source` gives, which is read on another thread over `wire`. Cancelled as soon as `cancel` is set,
    Stalled where nothing comes for so long. However this ends, also by Ctrl-C, the connection is closed."""
    found: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()

    def read() -> None:
        try:
            for one in source:
                found.put(one)
            found.put(None)
        except BaseException as error:  # raised again on the thread that waits
            found.put(error)

    threading.Thread(target=read, daemon=True).start()
    until = time.monotonic() + seconds
    try:
        while True:
            if cancel.is_set():
                raise Cancelled
            try:
                one = found.get(timeout=TICK)
            except queue.Empty:
                if time.monotonic() > until:
                    raise Stalled from None
                continue
            if one is None:
                return
            if isinstance(one, BaseException):
                raise one
            yield one
            until = time.monotonic() + seconds
    finally:
        wire.cut()


def pause(seconds: float, cancel: Cancel) -> None:
    """Wait so long; Cancelled as soon as `cancel` is set."""
    until, never = time.monotonic() + seconds, threading.Event()
    while (left := until - time.monotonic()) > 0:
        if cancel.is_set():
            raise Cancelled
        never.wait(min(TICK, left))
