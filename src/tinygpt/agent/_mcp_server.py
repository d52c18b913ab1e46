"""One MCP server: its connection, the tools that it had at the start, and calls of them.

What a server offers is what it offered at the start, since that is what the person and the model have read. A
tool that takes or does something else later on is not called any more; a new one is for the next run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tinygpt.agent import _mcp_text as text
from tinygpt.agent import _mcp_wire as wires
from tinygpt.agent._mcp_entry import Entry
from tinygpt.agent.tool import Outcome, Refusal
from tinygpt.core.errors import RemoteError, TinyGPTError

if TYPE_CHECKING:
    from anyio.abc import TaskGroup
    from mcp import Client
    from mcp.types import Tool

MOST_TOOLS, MOST_PAGES, MOST_CHANGES = 500, 50, 100
SOON = 0.5  # seconds from the end of a call to that of its connection, where that is why
LONGEST = wires.LEAVE + 3 * wires.STOP  # seconds that an end may take
LEAVE = 3.0  # seconds for the last words of a connection; a program has more, see _mcp_wire
SSE = (400, 404, 405)  # what a server of the older revision answers, by the protocol
CLOSED = -32000  # the package's code for a connection that has ended; a server may send it too


class _Connection:
    """A connection from its start to its end. `client` is there once the server has introduced itself."""

    def __init__(self, entry: Entry, kind: str) -> None:
        import anyio

        self.kind, self.wire = kind, wires.Wire(entry)
        self.client: Client | None = None
        self.error: Exception | None = None
        self.ready, self.ended = anyio.Event(), anyio.Event()
        self.changed, self.listed = anyio.Event(), anyio.Event()
        self.scope = anyio.CancelScope()

    @property
    def alive(self) -> bool:
        return self.client is not None and not self.wire.gone.is_set() and not self.ended.is_set()

    async def close(self) -> None:
        """End it, and wait until it has."""
        import anyio

        self.wire.gone.set()
        self.scope.deadline = anyio.current_time() + LEAVE
        await self.ended.wait()


class Server:
    """A server of the file. Everything here runs in the loop of `tasks`, but `kill`. `note` hears what a
    person should know."""

    def __init__(self, entry: Entry, seconds: float, note: Callable[[str], None]) -> None:
        self.entry, self.seconds = entry, seconds
        self.tools: dict[str, Tool] = {}
        self.wrong: dict[str, str] = {}  # tools that are not what they were, and why
        self.fault: TinyGPTError | None = None
        self._note = lambda said: note(f"{entry.who} {text.line(entry.hide(said))}")
        self._connection: _Connection | None = None
        self._starts = 0
        self._told_new = set[str]()

    def enter(self, tasks: TaskGroup) -> None:
        """Where its connections live."""
        import anyio

        self._tasks = tasks
        self._one = anyio.Lock()

    async def start(self) -> None:
        """Connect, and learn its tools. What went wrong is `fault`."""
        try:
            self._pin(await self._begun())
        except TinyGPTError as error:
            self.fault = error

    async def close(self) -> None:
        """End the connection, and the program."""
        if self._connection is not None:
            await self._connection.close()

    def kill(self) -> None:
        """End the program at once; from any thread."""
        if self._connection is not None and not self._connection.ended.is_set():
            self._connection.wire.kill()

    # The connection

    async def _begun(self) -> list[Tool]:
        """A new connection and the list of its tools, within its time. RemoteError: why there is none."""
        import anyio

        self._starts += 1
        try:
            with anyio.move_on_after(self.seconds):
                return await self._listing(await self._connected())
        except BaseException:
            await self._dropped()
            raise
        wire = self._connection.wire if self._connection is not None else None
        await self._dropped()
        said = wire.last_words if wire is not None else ""
        raise self.entry.failed(
            f"has not answered within {self.seconds:g} seconds{': ' if said else ''}{said}",
            hint="does it speak MCP? try its command by itself",
        )

    async def _listing(self, connection: _Connection) -> list[Tool]:
        try:
            return await self._listed(connection)
        except TinyGPTError:
            raise
        except Exception as error:  # whatever it is, a server that cannot list its tools offers none
            raise await self._failed(connection, error, "does not list its tools") from error

    async def _dropped(self) -> None:
        """End a connection that came to nothing; not graciously, and even where we are cancelled."""
        import anyio

        if (connection := self._connection) is not None:
            connection.scope.cancel()
            with anyio.CancelScope(shield=True):
                await connection.ended.wait()

    async def _connected(self) -> _Connection:
        kind, *older = self.entry.kinds
        connection = await self._tried(kind)
        if older and not connection.alive and connection.wire.status in SSE:
            connection = await self._tried(older[0])
        if connection.alive:
            return connection
        await connection.ended.wait()
        raise await self._failed(connection, connection.error)

    async def _tried(self, kind: str) -> _Connection:
        connection = self._connection = _Connection(self.entry, kind)
        self._tasks.start_soon(self._live, connection)
        await connection.ready.wait()
        return connection

    async def _live(self, connection: _Connection) -> None:
        """A connection in a task of its own. An error of it ends this connection alone."""
        import anyio
        from mcp import Client
        from mcp.types import Implementation

        import tinygpt

        wire = connection.wire
        streams = wires.pipe(wire) if connection.kind == "stdio" else wires.http(wire, connection.kind)

        async def hear(message: Any) -> None:
            if getattr(message, "method", "") == "notifications/tools/list_changed":
                connection.changed.set()

        try:
            with connection.scope:
                about = Implementation(name="tinygpt", version=tinygpt.__version__)
                async with Client(streams, cache=None, message_handler=hear, client_info=about) as client:
                    connection.client, wire.status = client, 0
                    connection.ready.set()
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(self._watch, connection, client)
                        await wire.gone.wait()
                        tasks.cancel_scope.cancel()
        except Exception as error:  # of the program, the network or the protocol: told where it is asked for
            connection.error = error
        finally:
            wire.gone.set()
            connection.ended.set()
            connection.ready.set()

    async def _failed(
        self, connection: _Connection, error: BaseException | None, what: str = "does not speak MCP"
    ) -> RemoteError:
        """Why there is no connection, or no list of tools, as an error."""
        wire, error = connection.wire, _inner(error)
        if wire.status >= 400:
            hint = "is the address right?" if wire.status not in (401, 403) else "'headers' may hold a key"
            return self.entry.failed(f"answers {wire.status} at {self.entry.place}", hint=hint)
        if connection.kind != "stdio":
            what = f"cannot be reached at {self.entry.place}" if _is_network(error) else what
            return self.entry.failed(wire.broken or f"{what}: {_told(error)}", hint="does it run?")
        if wire.pid is None and isinstance(error, OSError):
            return self.entry.failed(f"cannot be started: {error.strerror or error}")
        if wire.broken or error is None or getattr(error, "code", 0) == CLOSED:
            await connection.close()
            return self.entry.failed(f"did not start: {wire.ended}", hint="try its command by itself")
        return self.entry.failed(f"{what}: {_told(error)}")

    # Its tools

    async def _listed(self, connection: _Connection) -> list[Tool]:
        """All its tools, page by page."""
        from mcp import MCPError

        client = connection.client
        assert client is not None
        found: list[Tool] = []
        cursor, seen = None, set[str]()
        while True:
            try:
                page = await client.list_tools(cursor=cursor)
            except MCPError:
                if client.server_capabilities.tools is None and not found:
                    return []  # it says that it has none
                raise
            found += page.tools
            cursor = page.next_cursor
            if not cursor:
                return found
            if cursor in seen or len(found) > MOST_TOOLS or len(seen) >= MOST_PAGES:
                raise self.entry.failed(f"lists more than {MOST_TOOLS} tools, or has no end of them")
            seen.add(cursor)

    def _pin(self, found: list[Tool]) -> None:
        """The tools of the start."""
        for tool in found:
            if tool.name in self.tools:
                self._note(f"lists '{tool.name}' twice; the first is taken")
            self.tools.setdefault(tool.name, tool)
        if not found:
            self._note("offers no tools")
        if self._connection is not None:
            self._connection.listed.set()

    def _compare(self, found: list[Tool]) -> None:
        """What of the tools is not as it was; told once."""
        now = {tool.name: tool for tool in reversed(found)}
        wrong = {name: why for name, tool in self.tools.items() if (why := _change(tool, now.get(name)))}
        for name, why in wrong.items():
            if self.wrong.get(name) != why:
                self._note(f"has changed its tools: '{name}' {why}, so it is not called any more")
        if new := sorted(now.keys() - self.tools.keys() - self._told_new):
            self._told_new.update(new)
            shown = ", ".join(f"'{name}'" for name in new[:5]) + (", ..." if len(new) > 5 else "")
            self._note(f"has changed its tools: new are {shown}, to be had after a new start")
        self.wrong = wrong

    async def _watch(self, connection: _Connection, client: Client) -> None:
        """Look again whenever the server says that its tools have changed."""
        import anyio

        await connection.listed.wait()
        told = client.server_capabilities.tools
        async with anyio.create_task_group() as tasks:
            if told is not None and told.list_changed:
                tasks.start_soon(self._subscribe, connection, client)
            for _ in range(MOST_CHANGES):
                await connection.changed.wait()
                connection.changed = anyio.Event()
                try:
                    self._compare(await self._listed(connection))
                except Exception as error:  # it has gone, or lists nonsense: what was pinned stays
                    self._note(f"has changed its tools, and does not list them: {_told(_inner(error))}")
            self._note(f"has changed its tools {MOST_CHANGES} times; no more is looked")

    async def _subscribe(self, connection: _Connection, client: Client) -> None:
        """From revision 2026-07-28 on a server tells of changes to those who ask."""
        from mcp import MCPError
        from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost

        try:
            async with client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    connection.changed.set()
        except (ListenNotSupportedError, SubscriptionLost, MCPError):
            pass  # an older one tells unasked; one that refuses, or has ended, tells nothing

    # Calls

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Outcome:
        """Call a tool. Refusal: it is not what it was. RemoteError: there is no result, in one line. Where
        this is cancelled the server is told."""
        import anyio
        from mcp import MCPError

        connection = await self._again()
        if why := self.wrong.get(name):
            raise Refusal("tool-changed", f"'{name}' of {self.entry.who} {why} since the start")
        assert connection.client is not None
        connection.wire.status = 0
        try:
            found = text.outcome(await connection.client.call_tool(name, dict(arguments)))
        except Exception as error:  # whatever the server, the network or the package says: no result
            inner = _inner(error)
            if getattr(inner, "code", 0) == CLOSED or not isinstance(inner, MCPError):
                with anyio.move_on_after(SOON if connection.alive else LONGEST):
                    await connection.ended.wait()
            if _is_over(connection.wire):  # its session is over; the next call begins another
                connection.wire.cut("has ended the session")
            if not connection.alive:
                raise self.entry.failed(self._lost(connection)) from error
            if isinstance(inner, MCPError):
                raise self.entry.failed(f"refuses the call: {inner.message}") from error
            raise self.entry.failed(f"answered what is no result: {_told(inner)}") from error
        return Outcome(
            stdout=self.entry.hide(found.stdout), stderr=self.entry.hide(found.stderr),
            exit_code=found.exit_code,
        )  # fmt: skip

    def _lost(self, connection: _Connection) -> str:
        wire = connection.wire
        network = _is_network(_inner(connection.error))
        why = f"cannot be reached: {_told(_inner(connection.error))}" if network else wire.ended
        return f"{why}; it is not known whether the call was carried out"

    async def _again(self) -> _Connection:
        """The connection; where it has ended, a new one, but a program is started again only once."""
        async with self._one:
            connection = self._connection
            if connection is not None and connection.alive:
                return connection
            if connection is not None:
                await connection.close()
            if self.entry.command and self._starts > 1:
                raise self.entry.failed("has ended twice, and is not started again")
            found = await self._begun()
            connection = self._connection
            assert connection is not None
            self._compare(found)
            connection.listed.set()
            self._note("had ended, and was started again" if self.entry.command else "was connected to again")
            return connection


def _is_over(wire: wires.Wire) -> bool:
    return wire.status == 404


def _change(was: Tool, now: Tool | None) -> str:
    """What is another tool now than it was; "" where it is the same. What the model reads is that of the
    start anyhow, so a description may change."""
    if now is None:
        return "is not there any more"
    return "" if text.definition(was) == text.definition(now) else "takes or does something else"


def _inner(error: BaseException | None) -> BaseException | None:
    """The first error of a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _told(error: BaseException | None) -> str:
    """An error of others in a few words."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".lstrip(": ")
    said = str(getattr(error, "message", "") or error or "")
    return said or (type(error).__name__ if error is not None else "it has closed the connection")


def _is_network(error: BaseException | None) -> bool:
    import httpx2

    return isinstance(error, httpx2.TransportError | OSError)
