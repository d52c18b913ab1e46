"""One HTTP request to a server that was named: to checked addresses alone, capped, and ended in time."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import socket
import ssl
import threading
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urljoin, urlsplit

from tinygpt.agent._process import CANCELLED, LATE
from tinygpt.agent.tool import Cancel, Outcome, Refusal

MOST = 1 << 20  # bytes of an answer
HOPS = 5
TICK = 0.05
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
FAILED = (OSError, http.client.HTTPException, ValueError)


@dataclass(frozen=True, kw_only=True)
class Server:
    """Where requests go. private: an address that is not of the public network will do."""

    host: str
    port: int
    tls: bool
    private: bool = False

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    def addresses(self) -> list[str]:
        """The host's addresses. Refusal for one that is private where nobody said so; OSError where it has
        none."""
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        places = list(dict.fromkeys(str(one[4][0]) for one in found))
        if not self.private and not _names_itself(self.host):
            for place in places:
                if not public(place):
                    raise Refusal(
                        "private-address", f"{self.host} leads to {place}, which is a private address"
                    )
        return places


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is sent. body: JSON, None for none."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: Any = None


def public(address: str) -> bool:
    """Whether an address is one of the public network; what lies within it, as in ::ffff:10.0.0.1, counts."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if (inner := ip.ipv4_mapped or ip.sixtofour) is not None:
            ip = inner
        elif ip in NAT64:
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.is_global and not ip.is_multicast


def send(server: Server, request: Request, seconds: float, cancel: Cancel) -> Outcome:
    """The answer's text and, where it is no success, its status. Refusal for a redirect to another host."""
    watch = _Watch(time.monotonic() + seconds, cancel)
    started = time.monotonic()
    try:
        with watch:
            outcome = _followed(server, request, watch)
    except FAILED as error:
        outcome = Outcome(stderr=f"{server.url} gave no answer: {error}", exit_code=1)
    if watch.why:
        note = (
            f"stopped after {seconds:g} seconds" if watch.why == LATE else "stopped, since it was cancelled"
        )
        outcome = Outcome(stderr=note, exit_code=watch.why)
    return replace(outcome, seconds=time.monotonic() - started)


def _followed(server: Server, request: Request, watch: _Watch) -> Outcome:
    for _ in range(HOPS):
        with _answer(server, request, watch) as reply:
            where = reply.headers.get("Location")
            if (
                reply.status not in (301, 302, 303, 307, 308)
                or not where
                or request.method not in ("GET", "HEAD")
            ):
                return _read(reply)
        found = urlsplit(urljoin(server.url + request.target, where))
        port = found.port or (443 if found.scheme == "https" else 80)
        if (found.scheme == "https", found.hostname, port) != (server.tls, server.host.lower(), server.port):
            raise Refusal(
                "http-redirect", f"the server sends on to another host, {found.hostname}: not followed"
            )
        request = replace(request, target=(found.path or "/") + (f"?{found.query}" if found.query else ""))
    return Outcome(stderr=f"more than {HOPS} redirects", exit_code=1)


@contextlib.contextmanager
def _answer(server: Server, request: Request, watch: _Watch) -> Generator[http.client.HTTPResponse]:
    link = http.client.HTTPConnection(server.host, server.port)
    link.default_port = 443 if server.tls else 80  # which the header Host leaves out
    link.sock = _connected(server, watch)
    watch.attend(link.sock)
    try:
        headers = {"Accept-Encoding": "identity", "User-Agent": "tinygpt", **request.headers}
        body = None
        if request.body is not None:
            body = json.dumps(request.body, ensure_ascii=False).encode()
            headers = {"Content-Type": "application/json", **headers}
        link.request(request.method, request.target, body, headers)
        with link.getresponse() as reply:
            yield reply
    finally:
        link.close()


def _connected(server: Server, watch: _Watch) -> socket.socket:
    """A connection to one of the addresses that were checked."""
    last: OSError = OSError("it has no address")
    for place in server.addresses():
        try:
            plain = socket.create_connection((place, server.port), timeout=watch.left())
        except OSError as error:
            last = error
            continue
        if not server.tls:
            return plain
        try:
            return ssl.create_default_context().wrap_socket(plain, server_hostname=server.host)
        except BaseException:
            plain.close()
            raise
    raise last


def _read(reply: http.client.HTTPResponse) -> Outcome:
    data = reply.read(MOST + 1)
    cut = len(data) > MOST
    data = data[:MOST]
    kind = reply.headers.get_content_type()
    if b"\0" in data[:4096]:
        text = f"[{len(data)} bytes of {kind}, which is no text]\n"
    else:
        text = data.decode("utf-8", "replace")
    note = f"\n[... the answer has more than {MOST} bytes ...]\n" if cut else ""
    status = "" if reply.status < 300 else f"HTTP {reply.status} {reply.reason}"
    return Outcome(stdout=text + note, stderr=status, exit_code=int(reply.status >= 300))


class _Watch:
    """Breaks a connection off at the limit, or where the person wants no more."""

    def __init__(self, end: float, cancel: Cancel) -> None:
        self.why = 0
        self._end, self._cancel, self._ended = end, cancel, threading.Event()
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def left(self) -> float:
        """Seconds that are left; at least a moment, since 0 would mean no waiting at all."""
        return max(0.01, self._end - time.monotonic())

    def attend(self, link: socket.socket) -> None:
        self._socket = link
        if self.why:
            self._break()

    def _run(self) -> None:
        while not self._ended.wait(TICK):
            if self._cancel.is_set() or time.monotonic() >= self._end:
                self.why = CANCELLED if self._cancel.is_set() else LATE
                self._break()
                return

    def _break(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):  # it has ended by itself
                self._socket.shutdown(socket.SHUT_RDWR)


def _names_itself(host: str) -> bool:
    """Whether a template that has this host says by it which machine is meant."""
    if host == "localhost":
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
