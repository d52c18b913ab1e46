"""The desk's events as a reply: gathered into one, or sent as they come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from tinygpt.serve.job import Delta, Done, Event, Token
from tinygpt.serve.leaving import close, stay, stream
from tinygpt.serve.openai import errors

if TYPE_CHECKING:
    from fastapi import Request, Response

Item = tuple[int, Event] | None  # (which of the jobs, what came), or None: nothing for a while
KEEP_ALIVE = 10.0  # seconds without a token, after which a stream says that it is alive
TOGETHER = 8  # prompts of one request that are worked on at once
AHEAD = 64  # events that may wait for a slow reader, before the work itself waits


@dataclass
class Heard:
    """What came of one answer so far."""

    text: str = ""
    reasoning: str = ""
    tokens: list[Token] = field(default_factory=list[Token])
    calls: dict[int, dict[str, str]] = field(default_factory=dict[int, dict[str, str]])
    done: Done | None = None

    def take(self, event: Event) -> None:
        if isinstance(event, Done):
            self.done = event
            return
        self.text += event.text
        self.reasoning += event.reasoning
        self.tokens += event.tokens
        for part in event.calls:
            call = self.calls.setdefault(part.index, {"id": "", "name": "", "arguments": ""})
            call["id"] = call["id"] or part.id
            call["name"] = call["name"] or part.name
            call["arguments"] += part.arguments


class Form(Protocol):
    """How a kind of reply is written. `chunks` is called with every event of a stream, and `last` at its end;
    `whole` where it is not streamed. `heard` keeps what came of answer (job, index)."""

    heard: dict[tuple[int, int], Heard]

    def chunks(self, job: int, event: Event) -> list[dict[str, Any]]: ...

    def last(self) -> list[dict[str, Any]]: ...

    def whole(self) -> dict[str, Any]: ...


async def gather(
    jobs: Sequence[AsyncIterator[Event]], *, together: int, pause: float | None = None
) -> AsyncGenerator[Item]:
    """The events of several jobs as they come, so many of them worked on at once; None when nothing came for
    `pause` seconds. The first error ends all. Closing it closes every job."""
    queue: asyncio.Queue[tuple[int, Event | BaseException | None]] = asyncio.Queue(AHEAD)
    turn = asyncio.Semaphore(together)

    async def pump(i: int, events: AsyncIterator[Event]) -> None:
        ending: Exception | None = None
        try:
            async with turn:
                async for event in events:
                    await queue.put((i, event))
        except Exception as problem:
            ending = problem  # raised below, by whoever reads
        finally:
            await close(events)
        await queue.put((i, ending))

    tasks = [asyncio.create_task(pump(i, events)) for i, events in enumerate(jobs)]
    try:
        waiting = len(tasks)
        while waiting:
            try:
                i, event = await asyncio.wait_for(queue.get(), pause)
            except TimeoutError:
                yield None
                continue
            if isinstance(event, BaseException):
                raise event
            if event is None:
                waiting -= 1
            else:
                yield i, event
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for events in jobs:  # one whose turn never came, too
            await close(events)


async def respond(
    request: Request, jobs: Sequence[AsyncIterator[Event]], form: Form, *, streamed: bool
) -> Response:
    """The reply to a request. What is wrong with a job is raised, unless a stream had to begin before."""
    pause = KEEP_ALIVE if streamed else None
    items = gather(jobs, together=TOGETHER, pause=pause)
    if not streamed:
        try:
            await stay(request, _all(items, form))
        finally:
            await items.aclose()
        return reply(form.whole())
    try:
        first = await stay(request, anext(items, None))
    except BaseException:
        await items.aclose()
        raise
    return stream(_frames(first, items, form), items, "text/event-stream; charset=utf-8")


async def _all(items: AsyncGenerator[Item], form: Form) -> None:
    async for item in items:
        if item is not None:
            hear(form, *item)


def hear(form: Form, job: int, event: Event) -> Heard:
    """Keep what came, and give what is kept of that answer."""
    heard = form.heard.setdefault((job, event.index), Heard())
    heard.take(event)
    return heard


async def _frames(first: Item, items: AsyncGenerator[Item], form: Form) -> AsyncIterator[bytes]:
    """Server-sent events. An error after the first of them is one itself, and the last."""
    try:
        for line in _written(first, form):
            yield line
        async for item in items:
            for line in _written(item, form):
                yield line
        for chunk in form.last():
            yield _data(chunk)
        yield b"data: [DONE]\n\n"
    except Exception as problem:
        yield _data(errors.body(**errors.broken(problem)))
    finally:
        await items.aclose()


def _written(item: Item, form: Form) -> list[bytes]:
    if item is None:
        return [b": still at work\n\n"]
    return [_data(chunk) for chunk in form.chunks(*item)]


def _data(chunk: dict[str, Any]) -> bytes:
    return b"data: " + _json(chunk) + b"\n\n"


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def reply(value: Any, **headers: str) -> Response:
    """A JSON response."""
    from fastapi import Response

    return Response(_json(value), headers=headers, media_type="application/json")


def said(delta: Delta) -> bool:
    """Whether there is anything in it that a stream must show."""
    return bool(delta.text or delta.reasoning or delta.calls or delta.tokens)
