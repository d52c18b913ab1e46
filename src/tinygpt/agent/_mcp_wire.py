"""One connection to an MCP server, as far as it is not the protocol's: pipes, bytes, and why it ended.

The package's own pipe reads a line of any length; here a message has a bound, what the program writes to
stderr is kept for an error, and its group of processes is gone when the connection is.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Any

from tinygpt.agent._mcp_entry import Entry
from tinygpt.agent._mcp_text import line

if TYPE_CHECKING:
    import anyio
    import httpx2
    from anyio.abc import Process
    from mcp.shared.message import SessionMessage

LARGEST = 16 << 20  # bytes of a message
UNASKED = 10_000  # messages between two of ours: more is no conversation
LEAVE, STOP = 2.0, 2.0  # seconds from the end of its input to SIGTERM, and from there to SIGKILL
KEPT = 2000  # bytes of stderr
CONNECT = 30.0  # seconds


class Wire:
    """What is known of a connection beside what is said on it. gone: it has ended, or is to end."""

    def __init__(self, entry: Entry) -> None:
        import anyio

        self.entry = entry
        self.gone: anyio.Event = anyio.Event()
        self.broken = ""  # why we end it
        self.odd = ""  # the first line that was no message
        self.stderr = b""
        self.pid: int | None = None
        self.code: int | None = None
        self.status = 0  # of the last answer over HTTP that was none

    def cut(self, why: str) -> None:
        """End the connection, for a reason."""
        self.broken = self.broken or why
        self.gone.set()

    def kill(self) -> None:
        """End the server's processes at once."""
        if self.pid is not None:
            signalled(self.pid, signal.SIGKILL)

    @property
    def last_words(self) -> str:
        """The last line that the program wrote to stderr, or the first that was no message; "" for none."""
        lines = [line(one) for one in self.stderr.decode("utf-8", "replace").splitlines()]
        said = next((one for one in reversed(lines) if one), "")
        if self.odd:
            return f"it wrote {self.odd!r}, which is no message"
        return said

    @property
    def ended(self) -> str:
        """Why there is no connection, as the end of a sentence."""
        if self.broken:
            return self.broken
        said = f": {self.last_words}" if self.last_words else ""
        if self.code is not None:
            how = f"signal {-self.code}" if self.code < 0 else f"exit code {self.code}"
            return f"has ended ({how}){said}"
        return f"has closed the connection{said}"


def signalled(pid: int, number: int) -> None:
    """Send a signal to a group that may be gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a dead group
        os.killpg(pid, number)


@contextlib.asynccontextmanager
async def pipe(wire: Wire) -> AsyncGenerator[Any]:
    """Start the program; yields the two streams of messages that the package's client takes."""
    import anyio
    from mcp.client.stdio import get_default_environment

    entry = wire.entry
    process = await anyio.open_process(
        list(entry.command), cwd=entry.cwd, env={**get_default_environment(), **entry.env},
        start_new_session=True,
    )  # fmt: skip
    wire.pid = process.pid
    inward, read = anyio.create_memory_object_stream[Any](0)
    write, outward = anyio.create_memory_object_stream[Any](0)
    async with anyio.create_task_group() as tasks:
        pipes = _Pipes(wire, process)
        tasks.start_soon(pipes.read, inward)
        tasks.start_soon(pipes.write, outward)
        tasks.start_soon(pipes.listen)
        try:
            yield read, write
        finally:
            with anyio.CancelScope(shield=True):  # the program must be gone, also where we are cancelled
                read.close()
                write.close()
                await _stopped(process, pipes)
                wire.code = process.returncode
            tasks.cancel_scope.cancel()


async def _stopped(process: Process, pipes: _Pipes) -> None:
    """The end of the input asks a server to leave; then its group is told to, and then made to."""
    import anyio.lowlevel

    assert process.stdin is not None
    with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):  # it left before
        with anyio.move_on_after(LEAVE):
            await process.stdin.aclose()
    for number in (0, signal.SIGTERM, signal.SIGKILL):
        if number:
            signalled(process.pid, number)
        with anyio.move_on_after(LEAVE if not number else STOP):
            await process.wait()
            break
    signalled(process.pid, signal.SIGKILL)  # also those that it left behind
    with anyio.move_on_after(STOP):  # unless one that left the group holds them open, the pipes end now
        for ended in pipes.ended:
            await ended.wait()
    transport = getattr(getattr(process, "_process", None), "_transport", None)
    if transport is not None:  # asyncio's, which complains later where such a pipe is still open
        transport.close()
    await anyio.lowlevel.checkpoint()


class _Pipes:
    """The three pipes of a program."""

    def __init__(self, wire: Wire, process: Process) -> None:
        import anyio

        self.wire, self.process = wire, process
        self.ended = (anyio.Event(), anyio.Event())  # stdout, stderr
        self._unasked = 0

    async def read(self, inward: Any) -> None:
        """Messages of the program, one a line. When we no longer listen they are read and dropped, since a
        program that cannot write does not leave."""
        import anyio

        assert self.process.stdout is not None
        buffer, open_ = bytearray(), True
        with contextlib.suppress(anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError):
            while True:
                piece = await self.process.stdout.receive(1 << 16)
                if not open_:
                    continue
                buffer += piece
                if b"\n" in piece:
                    *lines, rest = bytes(buffer).split(b"\n")
                    buffer = bytearray(rest)
                    open_ = await self._take(lines, inward)
                if len(buffer) > LARGEST:
                    self.wire.cut(f"sent a message of more than {LARGEST >> 20} MiB")
                if self.wire.broken or not open_:
                    open_ = False
                    buffer.clear()
                    inward.close()
        self.wire.gone.set()
        inward.close()
        self.ended[0].set()

    async def _take(self, lines: list[bytes], inward: Any) -> bool:
        """Hand messages on; whether anybody listens."""
        import anyio
        from mcp.shared.message import SessionMessage
        from mcp.types import JSONRPCError, JSONRPCResponse, jsonrpc_message_adapter

        for text in lines:
            if not text.strip():
                continue
            try:
                message = jsonrpc_message_adapter.validate_json(text, by_name=False)
            except ValueError:  # many a program greets on stdout; what matters is whether it speaks as well
                self.wire.odd = self.wire.odd or line(text[:400].decode("utf-8", "replace"), 80)
                continue
            self._unasked += not isinstance(message, JSONRPCResponse | JSONRPCError)
            if self._unasked > UNASKED:
                self.wire.cut(f"sent more than {UNASKED:,} messages that nobody asked for")
                return False
            try:
                await inward.send(SessionMessage(message))
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return False
        return True

    async def write(self, outward: Any) -> None:
        """Our messages, to the program."""
        import anyio

        assert self.process.stdin is not None
        message: SessionMessage
        try:
            async for message in outward:
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                await self.process.stdin.send(f"{text}\n".encode())
                self._unasked = 0
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            self.wire.gone.set()  # it reads no more
        finally:
            outward.close()

    async def listen(self) -> None:
        """The end of what it writes to stderr."""
        import anyio

        assert self.process.stderr is not None
        with contextlib.suppress(anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError):
            while True:
                piece = await self.process.stderr.receive(1 << 16)
                self.wire.stderr = (self.wire.stderr + piece)[-KEPT:]
        self.ended[1].set()


@contextlib.asynccontextmanager
async def http(wire: Wire, kind: str) -> AsyncGenerator[Any]:
    """Reach a server over streamable HTTP, or server-sent events of the revision before it. Only its own
    origin is asked, no proxy is used, and an answer has a bound."""
    import httpx2
    from mcp.client.sse import sse_client
    from mcp.client.streamable_http import streamable_http_client

    ours = {**wire.entry.headers, "accept-encoding": "identity"}
    wait = httpx2.Timeout(CONNECT, read=None)  # a call has its own time

    def client(headers: Any = None, timeout: Any = None, auth: Any = None) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(headers=ours, timeout=wait, transport=_bounded(wire), trust_env=False)

    if kind == "sse":
        async with sse_client(wire.entry.url, httpx_client_factory=client) as streams:
            yield streams
    else:
        async with (
            client() as asking,
            streamable_http_client(wire.entry.url, http_client=asking, max_sse_event_size=LARGEST) as streams,
        ):
            yield streams


def _bounded(wire: Wire) -> httpx2.AsyncBaseTransport:
    """Answers to what we ask have at most LARGEST bytes; a stream of events goes on."""
    import httpx2

    class Body(httpx2.AsyncByteStream):
        def __init__(self, inner: Any) -> None:
            self.inner, self.n = inner, 0

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for piece in self.inner:
                self.n += len(piece)
                if self.n > LARGEST:
                    wire.cut(f"sent a message of more than {LARGEST >> 20} MiB")
                    raise httpx2.ReadError(wire.broken)
                yield piece

        async def aclose(self) -> None:
            await self.inner.aclose()

    class Transport(httpx2.AsyncBaseTransport):
        def __init__(self) -> None:
            self.inner = httpx2.AsyncHTTPTransport()

        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            found = await self.inner.handle_async_request(request)
            if found.status_code >= 400:
                wire.status = found.status_code
            bound = request.method != "GET"
            names = [
                (k, v) for k, v in found.headers.raw if k.lower() != b"content-encoding"
            ]  # none asked for
            return httpx2.Response(
                found.status_code, headers=names, stream=Body(found.stream) if bound else found.stream,
                extensions=found.extensions,
            )  # fmt: skip

        async def aclose(self) -> None:
            await self.inner.aclose()

    return Transport()
