"""Clients that a server should not mind: slow ones, ones that leave, and many of all kinds at once.

    python tests/rough.py PORT N SECONDS

keeps N connections open that send a byte every so many seconds: of a head, of headers without an end, of a
body. Where the server hangs up they come again. It writes a line when all are open, and ends with its stdin.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHAT = "/v1/chat/completions"
HI = [{"role": "user", "content": "hi"}]
PATIENCE = 300.0

# Asking


def send(port: int, path: str, body: Any = None, *, method: str = "", receives: int = 0) -> socket.socket:
    """A connection on which a request was sent; `body`: JSON, or bytes as they are. receives: bytes that the
    system may hold for the client."""
    sock = socket.socket()
    sock.settimeout(PATIENCE)
    if receives:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
    sock.connect(("127.0.0.1", port))
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    method = method or ("GET" if body is None else "POST")
    head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(data)}\r\n\r\n"
    sock.sendall(head.encode() + data)
    return sock


def answer(sock: socket.socket) -> tuple[int, bytes]:
    """(status, body) of what comes; the connection is closed."""
    with sock:
        reply = http.client.HTTPResponse(sock)
        reply.begin()
        return reply.status, reply.read()


def leave(sock: socket.socket, *, abruptly: bool = False) -> None:
    """Close a connection; abruptly: with a reset, as a process that was killed may."""
    if abruptly:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def figures(port: int) -> dict[str, float]:
    """The server's own figures, those with labels summed."""
    found: dict[str, float] = {}
    for line in answer(send(port, "/metrics"))[1].decode().splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            name = name.partition("{")[0]
            found[name] = found.get(name, 0.0) + float(value)
    return found


def wait(port: int, holds: Callable[[dict[str, float]], bool], seconds: float = PATIENCE) -> float:
    """Seconds until the figures are so; AssertionError where they are not in time."""
    start = time.perf_counter()
    while not holds(seen := figures(port)):
        if time.perf_counter() - start > seconds:
            raise AssertionError(f"not within {seconds:g} s: {seen}")
    return time.perf_counter() - start


def resources(port: int, pid: int) -> dict[str, float]:
    """Resident megabytes, threads and open files of a server, once it has nothing to do."""
    wait(port, lambda seen: idle(seen) and seen["tinygpt_connections"] <= 1)

    def said(*words: str) -> list[str]:
        return subprocess.run([*words, str(pid)], capture_output=True, text=True, check=True).stdout.split(
            "\n"
        )

    memory = int(said("ps", "-o", "rss=", "-p")[0]) / 1024
    if (proc := Path(f"/proc/{pid}")).exists():
        threads, files = len(list((proc / "task").iterdir())), len(list((proc / "fd").iterdir()))
    else:
        threads, files = len(said("ps", "-M", "-p")) - 2, len(said("lsof", "-p")) - 2  # a headline, an end
    return {"memory_mb": memory, "threads": threads, "files": files}


def idle(seen: dict[str, float]) -> bool:
    """Whether nothing waits, is read or written."""
    return not seen["tinygpt_waiting"] and not seen["tinygpt_running"]


# Leaving: how each request is sent, and when its client leaves


@dataclass(frozen=True)
class Leaver:
    """A request whose client leaves. behind: it comes while an answer of another client is written, and the
    server writes one at a time."""

    name: str
    path: str
    body: dict[str, Any]
    behind: bool = False


def leavers(letters: int, tokens: int) -> list[Leaver]:
    """Every way of leaving. letters: of a prompt that takes long to read; tokens: of a long answer."""
    long = {"max_tokens": tokens, "ignore_eos": True, "temperature": 0}
    read = {"max_tokens": 4, "ignore_eos": True, "temperature": 0}
    text = [{"role": "user", "content": "x" * letters}]
    ollama = {"model": "tiny", "options": {"num_predict": tokens, "temperature": 0}, "format": NUMBERS}
    return [
        Leaver("streamed", CHAT, {"messages": HI, "stream": True, **long}),
        Leaver("whole", CHAT, {"messages": HI, **long}),
        Leaver("completion", "/v1/completions", {"prompt": "x", "n": 3, **long}),
        Leaver("ollama", "/api/chat", {"messages": HI, **ollama}),
        Leaver("queued", CHAT, {"messages": HI, **long}, behind=True),
        Leaver("queued, streamed", CHAT, {"messages": HI, "stream": True, **long}, behind=True),
        Leaver("read", CHAT, {"messages": text, **read}),
        Leaver("read, streamed", CHAT, {"messages": text, "stream": True, **read}),
        Leaver("scored", "/v1/completions", {"prompt": "x" * letters, "echo": True, "logprobs": 2, **read}),
    ]


def left(port: int, one: Leaver, i: int) -> tuple[float, float]:
    """(seconds, seconds of the server's CPU) from a client's leaving until the server does nothing for it any
    more; the figures that are asked for meanwhile are part of both."""
    first = None
    if one.behind:
        endless = {"messages": HI, "max_tokens": 30_000, "ignore_eos": True, "temperature": 0}
        first = send(port, CHAT, endless)
        wait(port, lambda seen: seen["tinygpt_running"] == 1)
    sock = send(port, one.path, one.body)
    name = "tinygpt_waiting" if one.behind else "tinygpt_running"
    wait(port, lambda seen: seen[name] > 0)
    cpu = figures(port)["tinygpt_cpu_seconds"]
    leave(sock, abruptly=bool(i % 2))
    seconds = wait(port, idle if first is None else lambda seen: seen["tinygpt_waiting"] == 0)
    after = figures(port)
    if first is not None:
        assert after["tinygpt_running"] == 1, "the other client's answer ended as well"
        leave(first)
        wait(port, idle)
    return seconds, after["tinygpt_cpu_seconds"] - cpu


NUMBERS = {"type": "array", "items": {"type": "integer"}, "minItems": 4000}  # an answer that does not end


# Slow ones

HEADS = (b"POST /v1/chat/completions HT", b"GET / HTTP/1.1\r\nhost: localhost\r\nx-slow: ")
BODY = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\n{"


@contextlib.contextmanager
def slow(port: int, n: int, every: float) -> Generator[None]:
    """N slow connections, from a process of their own, while the block runs; see the file's first lines."""
    words = [sys.executable, str(Path(__file__)), str(port), str(n), str(every)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"open\n", "the slow clients did not get in"
        yield
        process.stdin.close()
        assert process.wait(PATIENCE) == 0


async def _drip(port: int, n: int, every: float) -> None:
    there = 0
    all_there = asyncio.Event()

    async def one(i: int) -> None:
        nonlocal there
        first = True
        while True:
            await asyncio.sleep(0 if first else every)
            with contextlib.suppress(ConnectionError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write((*HEADS, BODY)[i % 3])
                if first:
                    first, there = False, there + 1
                    if there == n:
                        all_there.set()
                try:
                    await asyncio.sleep(every * i / n)
                    while not writer.is_closing():
                        writer.write(b"x")
                        await writer.drain()
                        await asyncio.sleep(every)
                finally:
                    writer.transport.abort()

    clients = [asyncio.create_task(one(i)) for i in range(n)]
    await all_there.wait()
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for client in clients:
        client.cancel()
    await asyncio.gather(*clients, return_exceptions=True)


# All kinds

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 4}}},
        },
    }
]
SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
STRICT = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA, "strict": True}}
WEATHER = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
FEW, NUM = {"max_tokens": 6, "temperature": 1}, {"options": {"num_predict": 6}}
FORM = {"format": SCHEMA, "options": {"num_predict": 40}, "stream": False}
NAMED = {"type": "function", "function": {"name": "weather"}}
# (path, body, statuses that are right, whether the client leaves after the first bytes)
KINDS: tuple[tuple[str, Any, tuple[int, ...], bool], ...] = (
    (CHAT, {"messages": HI, **FEW}, (200,), False),
    (CHAT, {"messages": HI, **FEW, "n": 2, "logprobs": True, "top_logprobs": 3}, (200,), False),
    (CHAT, {"messages": HI, **FEW, "stream": True}, (200,), False),
    (CHAT, {"messages": HI, **FEW, "stream": True, "stream_options": {"include_usage": True}}, (200,), False),
    (CHAT, {"messages": HI, "max_tokens": 60, "tools": TOOLS, "tool_choice": NAMED}, (200,), False),
    (CHAT, {"messages": HI, **FEW, "tools": TOOLS, "stream": True}, (200,), False),
    (CHAT, {"messages": HI, "max_tokens": 40, "response_format": STRICT}, (200,), False),
    (CHAT, {"messages": HI, "max_tokens": 2000, "ignore_eos": True, "stream": True}, (200,), True),
    (CHAT, {"messages": HI, "max_tokens": 2000, "ignore_eos": True}, (200,), True),
    (CHAT, {"messages": [{"role": "user", "content": "x" * 2000}], **FEW}, (200,), True),
    (CHAT, {"messages": [{"role": "user", "content": "x" * 2000}], **FEW}, (200,), False),
    (CHAT, {"messages": "hi"}, (400,), False),
    (CHAT, {"messages": HI, "temperature": "hot"}, (400,), False),
    (CHAT, b'{"messages": [', (400,), False),
    (CHAT, {"messages": HI, "model": "none"}, (404,), False),
    ("/v1/completions", {"prompt": "one two", **FEW, "echo": True, "logprobs": 2}, (200,), False),
    ("/v1/completions", {"prompt": ["a", "b", [5, 6]], **FEW}, (200,), False),
    ("/v1/completions", {"prompt": "one two", "max_tokens": 0, "echo": True, "logprobs": 1}, (200,), False),
    ("/v1/embeddings", {"input": ["one", "two two"]}, (200,), False),
    ("/v1/responses", {"model": "tiny", "input": "hi", "max_output_tokens": 6}, (200,), False),
    (
        "/v1/responses",
        {"model": "tiny", "input": "hi", "max_output_tokens": 6, "stream": True},
        (200,),
        False,
    ),
    ("/v1/messages", {"model": "tiny", "messages": HI, "max_tokens": 6}, (200,), False),
    ("/v1/messages", {"model": "tiny", "messages": HI, "max_tokens": 6, "stream": True}, (200,), False),
    ("/v1/messages", {"model": "tiny", "messages": HI, "max_tokens": 6, "tools": [WEATHER]}, (200,), False),
    ("/v1/messages", {"model": "tiny", "messages": HI}, (400,), False),
    ("/api/chat", {"model": "tiny", "messages": HI, **NUM}, (200,), False),
    ("/api/chat", {"model": "tiny", "messages": HI, **NUM, "stream": False, "tools": TOOLS}, (200,), False),
    ("/api/generate", {"model": "tiny", "prompt": "hi", **NUM}, (200,), False),
    ("/api/generate", {"model": "tiny", "prompt": "hi", **FORM}, (200,), False),
    ("/api/embed", {"model": "tiny", "input": "hi"}, (200,), False),
    ("/api/chat", {"model": "none", "messages": HI}, (404,), False),
    ("/v1/models", None, (200,), False),
    ("/nowhere", None, (404,), False),
)


def mixed(port: int, i: int) -> str:
    """The i-th of a mix of requests, each with a prompt of its own; what was wrong with its answer, or ""."""
    path, body, right, leaves = KINDS[i % len(KINDS)]
    if isinstance(body, dict):
        body = {**body, "seed": i} if path.startswith("/v1/c") else body
        if body.get("messages") is HI:
            body = {**body, "messages": [{"role": "user", "content": f"{i} is a number"}]}
    sock = send(port, path, body)
    if leaves:
        sock.settimeout(0.01 * (i % 7 + 1))
        with contextlib.suppress(TimeoutError):
            sock.recv(1)
        leave(sock, abruptly=bool(i % 2))
        return ""
    status, said = answer(sock)
    if status not in right:
        return f"{path} {json.dumps(body, default=str)[:80]}: {status} {said[:200]!r}"
    if status == 200 and isinstance(body, dict) and (wrong := _unfinished(path, body, said)):
        return f"{path}: {wrong}: {said[-200:]!r}"
    return ""


def _unfinished(path: str, body: dict[str, Any], said: bytes) -> str:
    """What is missing at an answer's end, or ""."""
    if path in ("/api/chat", "/api/generate"):
        return "" if json.loads(said.splitlines()[-1]).get("done") is True else "the last line is not done"
    if not body.get("stream"):
        return "" if "error" not in json.loads(said) or path == "/v1/responses" else "an error"
    last = said.rstrip().rpartition(b"data: ")[2]
    if path == CHAT:
        return "" if last == b"[DONE]" else "no [DONE]"
    ends = ("message_stop", "response.completed", "response.incomplete")
    return "" if json.loads(last)["type"] in ends else "no last event"


if __name__ == "__main__":
    asyncio.run(_drip(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
