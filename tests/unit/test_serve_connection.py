"""Connections that are slow, broken or too many, and how a server ends: over real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import statistics
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from asgi import FakeDesk, fake_registry, surface
from tinygpt.core.errors import ConfigError
from tinygpt.serve import connection, security
from tinygpt.serve.app import App, make_app
from tinygpt.serve.limits import Limits, Settings

CHAT = json.dumps({"model": "tiny"}).encode()


class Live:
    """A server on a socket of this process, and the task that it runs in."""

    def __init__(self, app: App, running: connection.Running, task: asyncio.Task[None]) -> None:
        self.app, self.running, self.task = app, running, task
        self.port: int = running.sock.getsockname()[1]

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


@asynccontextmanager
async def live(desk: Any = None, grace: float = 5.0, **limits: Any) -> AsyncGenerator[Live]:
    settings = Settings(limits=Limits(**limits), log=False)
    app = make_app(desk or FakeDesk(), fake_registry(), settings, [surface("/v1", "openai")])
    sock = connection.listen("127.0.0.1", 0)
    running = connection.Running(app, sock, settings.limits, grace=grace, drain=app.drain, cut=app.cut)
    task = asyncio.create_task(running.serve())
    found = Live(app, running, task)
    try:
        yield found
    finally:
        if not app.gate.draining:  # a second time would end this process
            running.end()
        await asyncio.wait_for(task, 10)
        sock.close()


def run(work: Any) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(work, 20)

    asyncio.run(bounded())


def post(body: bytes = CHAT, more: str = "") -> bytes:
    return (
        f"POST /v1/chat HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n{more}\r\n".encode()
        + body
    )


async def reply(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of one answer that says how long it is."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next(int(line.split(":")[1]) for line in head.lower().splitlines() if "content-length" in line)
    return int(head.split()[1]), await reader.readexactly(length)


def test_requests_follow_each_other_on_a_connection() -> None:
    async def go() -> None:
        async with live() as server:
            reader, writer = await server.open()
            for _ in range(3):
                writer.write(post())
                assert await reply(reader) == (200, b'{"text":"one two"}')
            writer.write(post() + post())  # one behind the other
            assert [(await reply(reader))[0] for _ in range(2)] == [200, 200]
            writer.close()

    run(go())


@pytest.mark.wide
def test_heads_that_do_not_come_are_not_waited_for() -> None:
    async def go() -> None:
        async with live(header_time=0.1) as server:
            for begin in (b"", b"POST /v1/chat HTTP/1.1\r\nhost: loc"):
                reader, writer = await server.open()
                writer.write(begin)
                status, body = await reply(reader)
                assert status == 408 and json.loads(body)["error"]["message"]
                assert await reader.read() == b""
                writer.close()
            reader, writer = await server.open()  # the head of a second request, letter by letter
            writer.write(post())
            assert (await reply(reader))[0] == 200
            writer.write(b"P")
            assert (await reply(reader))[0] == 408
            writer.close()

    run(go())


def test_bodies_that_do_not_come_are_not_waited_for() -> None:
    async def go() -> None:
        async with live(body_time=0.1) as server:
            reader, writer = await server.open()
            writer.write(b"POST /v1/chat HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{")
            status, body = await reply(reader)
            assert status == 408 and list(json.loads(body)) == ["openai"]
            assert await reader.read() == b""
            writer.close()

    run(go())


def test_what_is_no_http_is_400() -> None:
    async def go() -> None:
        async with live() as server:
            for text in (b"\x16\x03\x01 hello\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET\r\n\r\n",
                         b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 40000 + b"\r\n\r\n"):  # fmt: skip
                reader, writer = await server.open()
                writer.write(text)
                assert (await reply(reader))[0] in (400, 431), text[:20]
                writer.close()

    run(go())


def test_connections_beyond_the_most_are_told() -> None:
    async def go() -> None:
        async with live(connections=2) as server:
            held = [await server.open() for _ in range(2)]
            held[0][1].write(post())
            assert (await reply(held[0][0]))[0] == 200
            reader, writer = await server.open()
            assert (await reply(reader))[0] == 503
            writer.close()
            held[1][1].close()
            while server.running.n_connections > 1:
                await asyncio.sleep(0.01)
            reader, again = await server.open()
            again.write(post())
            assert (await reply(reader))[0] == 200
            again.close()
            held[0][1].close()

    run(go())


@pytest.mark.wide
def test_a_client_that_does_not_read_is_left() -> None:
    async def go() -> None:
        desk = FakeDesk(["x" * 65536] * 2000)
        async with live(desk, write_time=0.2) as server:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, ("127.0.0.1", server.port))
            await loop.sock_sendall(sock, post(b'{"stream": true}'))
            while not desk.closed:
                await asyncio.sleep(0.01)
            sock.close()

    run(go())


def test_a_client_that_asked_for_more_is_seen_to_leave() -> None:
    async def go() -> None:
        desk = FakeDesk()
        desk.gate = asyncio.Semaphore(0)
        async with live(desk) as server:
            for more in (b"", post(), post() * 20):
                _, writer = await server.open()
                writer.write(post() + more)
                before = len(desk.jobs)
                while len(desk.jobs) == before:
                    await asyncio.sleep(0.01)
                writer.write(more)
                await writer.drain()
                writer.close()
                while desk.closed == before:
                    await asyncio.sleep(0.01)
            desk.gate = None
            reader, writer = await server.open()
            writer.write(post() * 3)
            assert [(await reply(reader))[0] for _ in range(3)] == [200] * 3
            writer.close()

    run(go())


def test_a_stream_is_finished_before_the_end() -> None:
    async def go() -> None:
        desk = FakeDesk(["one", "two"])
        desk.gate = asyncio.Semaphore(1)
        async with live(desk) as server:
            reader, writer = await server.open()
            writer.write(post(b'{"stream": true}'))
            await reader.readuntil(b"one\n")
            os.kill(os.getpid(), signal.SIGTERM)
            while not server.app.gate.draining:
                await asyncio.sleep(0.01)
            desk.gate.release()
            assert (await reader.read()).endswith(b"end\n\r\n0\r\n\r\n")
            await server.task
            with pytest.raises(OSError):
                await server.open()

    run(go())


def test_a_stream_is_cut_in_order_after_the_grace() -> None:
    async def go() -> None:
        desk = FakeDesk(["one", "two"])
        desk.gate = asyncio.Semaphore(1)
        async with live(desk, grace=0.1) as server:
            reader, writer = await server.open()
            writer.write(post(b'{"stream": true}'))
            await reader.readuntil(b"one\n")
            server.running.end()
            rest = await reader.read()
            assert b"the server is ending" in rest and rest.endswith(b"end\n\r\n0\r\n\r\n")
            assert desk.closed == 1

    run(go())


@pytest.mark.wide
def test_slow_connections_do_not_hold_up_good_ones() -> None:
    async def go() -> None:
        connection.raise_file_limit(1024)
        async with live(header_time=20.0) as server:

            async def good(n: int) -> list[float]:
                times: list[float] = []
                for _ in range(n):
                    start = time.perf_counter()
                    reader, writer = await server.open()
                    writer.write(post())
                    assert (await reply(reader))[0] == 200
                    writer.close()
                    times.append(time.perf_counter() - start)
                return times

            async def drip(writer: asyncio.StreamWriter) -> None:
                for letter in b"POST /v1/chat HTTP/1.1\r\nhost: localhost\r\nx-slow: " + b"y" * 900:
                    writer.write(bytes([letter]))
                    await asyncio.sleep(1.0)

            await good(20)
            before = await good(150)
            slow = [(await server.open())[1] for _ in range(300)]
            drips = [asyncio.create_task(drip(writer)) for writer in slow]
            await asyncio.sleep(0)
            assert server.running.n_connections >= 300
            during = await good(150)
            for task in drips:
                task.cancel()
            for writer in slow:
                writer.close()
            # The clients are in this process, so their dripping counts, too.
            assert statistics.median(during) < 3 * statistics.median(before) + 0.01

    run(go())


def test_addresses_that_cannot_be_had() -> None:
    sock = connection.listen("127.0.0.1", 0)
    try:
        with pytest.raises(ConfigError, match="cannot listen"):
            connection.listen("127.0.0.1", sock.getsockname()[1])
    finally:
        sock.close()
    for host in ("0.0.0.0", "::", "192.168.1.5", "box.lan", ""):
        with pytest.raises(ConfigError, match="no key is set"):
            security.refuse_open(host, ())
        security.refuse_open(host, ("a-good-key",))
    for host in ("127.0.0.1", "127.0.0.9", "::1", "[::1]", "localhost"):
        security.refuse_open(host, ())


def test_keys_come_from_one_place(tmp_path: Any) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\nfirst-key-1\n\n second-key-2 \n")
    env = {security.ENV: "env-key-123"}
    assert security.read_keys(None, file, env) == ("first-key-1", "second-key-2")
    assert security.read_keys("given-key-1", None, env) == ("given-key-1",)
    assert security.read_keys(None, None, env) == ("env-key-123",)
    assert security.read_keys(None, None, {}) == ()
    for bad in ("short", "with space in it", "schlüssel-1234"):
        with pytest.raises(ConfigError):
            security.read_keys(bad, None, {})
    file.write_text("# none\n")
    with pytest.raises(ConfigError, match="holds no key"):
        security.read_keys(None, file, {})


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_answers_are_sent_at_once(host: str) -> None:
    """Not held back until the client has acknowledged the part before, which takes it 40 ms."""

    async def nodelay() -> int:
        told: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            peer = writer.get_extra_info("socket")
            told.set_result(peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with connection.listen(host, 0) as sock:
            async with await asyncio.start_server(connected, sock=sock):
                _, writer = await asyncio.open_connection(*sock.getsockname()[:2])
                writer.close()
                return await told

    assert asyncio.run(nodelay())
