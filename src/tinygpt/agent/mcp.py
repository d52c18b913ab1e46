"""Servers of the Model Context Protocol as tools of an agent, through the package `mcp`.

`open` starts or reaches the servers of "mcpServers" (see _mcp_entry), each once, and ends them when its block
ends, however it ends. Their tools are called `server__tool`. A program gets PATH, HOME, LOGNAME, SHELL, TERM,
USER and what its "env" holds, in a session of its own; it is no sandbox: a program runs as the person. What a
server says of its tools is a hint (see _mcp_text.effects); the file's "effects" is the person's word.

Source: https://modelcontextprotocol.io/specification, revisions up to 2026-07-28.
"""

from __future__ import annotations

import atexit
import logging
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinygpt.agent import _mcp_entry, _mcp_text
from tinygpt.agent._process import CANCELLED, LATE, TICK
from tinygpt.agent.tool import Cancel, Outcome, Tool
from tinygpt.core.errors import DependencyError, RemoteError, TinyGPTError, nearest

if TYPE_CHECKING:
    import anyio
    from anyio.abc import TaskStatus
    from anyio.from_thread import BlockingPortal

    from tinygpt.agent._mcp_server import Server

Servers = Mapping[str, Mapping[str, Any]]
LOGGERS = ("mcp", "client", "httpx2", "httpcore2")  # of the package: without a handler they write to stderr


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What the servers offer. notes: what a person should know of it, one line each; it may grow."""

    tools: tuple[Tool, ...]
    notes: list[str] = field(default_factory=list[str])


def files(servers: Servers) -> list[Path]:
    """Files that servers are started from, which a model must not be able to change."""
    return [path for given in servers.values() for path in _mcp_entry.files(given)]


@contextmanager
def open(
    servers: Servers, seconds: float = 30.0, note: Callable[[str], None] = lambda line: None
) -> Generator[Opened]:
    """Servers that are up while the block runs. `seconds`: longest start of each; all start at once. `note`
    hears each of the notes when it comes, also from another thread.

    ConfigError or RemoteError in one line that names the server: its entry is none, or it does not start;
    then none is left running. DependencyError: the package is not installed."""
    notes: list[str] = []

    def noted(line: str) -> None:
        notes.append(line)
        note(line)

    if not servers:
        yield Opened(tools=(), notes=notes)
        return
    entries = [_mcp_entry.read(name, given) for name, given in servers.items()]
    try:
        import mcp as package
        from anyio.from_thread import start_blocking_portal
    except ImportError as error:
        raise DependencyError("mcp", "mcp", "tools of MCP servers") from error
    if not hasattr(package, "Client"):
        raise DependencyError("mcp>=2.3", "mcp", "tools of MCP servers")
    from tinygpt.agent._mcp_server import Server

    for name in LOGGERS:
        logging.getLogger(name).addHandler(logging.NullHandler())
    all_ = [Server(entry, seconds, noted) for entry in entries]

    def kill() -> None:
        for server in all_:
            server.kill()

    atexit.register(kill)  # where we are left without being closed, by a second Ctrl-C
    try:
        with start_blocking_portal(name="mcp") as portal:
            running, stop = portal.start_task(_run, all_)
            try:
                yield Opened(tools=tuple(_tools(all_, portal, noted)), notes=notes)
            finally:
                portal.call(stop.set)
                running.result()
    finally:
        kill()
        atexit.unregister(kill)


async def _run(servers: Sequence[Server], *, task_status: TaskStatus[anyio.Event]) -> None:
    """Start the servers, wait for the end, and close them. One that does not start ends all."""
    import anyio

    stop = anyio.Event()
    fault: TinyGPTError | None = None

    async def begin(server: Server, starts: anyio.abc.TaskGroup) -> None:
        await server.start()
        if server.fault is not None:
            starts.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        try:
            async with anyio.create_task_group() as starts:
                for server in servers:
                    server.enter(tasks)
                    starts.start_soon(begin, server, starts)
            fault = next((server.fault for server in servers if server.fault is not None), None)
            if fault is None:
                task_status.started(stop)
                await stop.wait()
        finally:
            with anyio.CancelScope(shield=True):  # each has its own bound
                async with anyio.create_task_group() as closing:
                    for server in servers:
                        closing.start_soon(server.close)
            tasks.cancel_scope.cancel()
    if fault is not None:
        raise fault


def _tools(servers: Sequence[Server], portal: BlockingPortal, note: Callable[[str], None]) -> list[Tool]:
    """The servers' tools; one that cannot be shown to a model is left out, and told."""
    found: dict[str, Tool] = {}
    for server in servers:
        entry = server.entry
        for name in entry.effects:
            if name != "*" and name not in server.tools:
                raise entry.fault(
                    f"it has no tool '{name}'.{nearest(name, server.tools)}", hint="see 'effects'"
                )
        for name, said in server.tools.items():
            away = not entry.command
            own = _mcp_text.effects(said.annotations, away=away)
            try:
                if said.execution is not None and said.execution.task_support == "required":
                    raise ValueError("it is a task, which this client does not wait for")
                parameters = _mcp_text.schema(said.input_schema, _mcp_text.line(name, 80))
            except ValueError as error:
                shown = _mcp_text.line(name, 80)
                note(f"{entry.who}: its tool '{shown}' is left out: {_mcp_text.line(str(error))}")
                continue
            called = _mcp_text.named(entry.name, name, found)
            about = entry.hide(said.description or "")
            found[called] = Tool(
                name=called, parameters=parameters, source=entry.name,
                description=_mcp_text.clean(about, _mcp_text.DESCRIPTION).strip(),
                effects=entry.effects.get(name, entry.effects.get("*", own)),
                call=_Call(server, name, portal),
            )  # fmt: skip
    return list(found.values())


class _Call:
    """Calls of one tool, from any thread; they wait for the loop of the servers."""

    def __init__(self, server: Server, name: str, portal: BlockingPortal) -> None:
        self._server, self._name, self._portal = server, name, portal

    def __call__(self, arguments: Mapping[str, Any], seconds: float, cancel: Cancel) -> Outcome:
        try:
            future = self._portal.start_task_soon(self._server.call, self._name, arguments)
        except RuntimeError as error:  # the portal's word for a loop that has ended
            raise RemoteError(f"{self._server.entry.who} is closed") from error
        end = time.monotonic() + seconds
        while not futures.wait([future], TICK).done:
            late = time.monotonic() >= end
            if late or cancel.is_set():
                future.cancel()  # the server is told, and not waited for
                note = f"stopped after {seconds:g} seconds" if late else "stopped, since it was cancelled"
                return Outcome(stderr=note, exit_code=LATE if late else CANCELLED)
        if future.cancelled():
            raise RemoteError(f"{self._server.entry.who} is closed")
        return future.result()
