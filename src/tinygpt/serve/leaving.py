"""Work for a client ends when the client leaves: before its answer has begun, and while it is streamed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from fastapi import Request
    from fastapi.responses import Response

T = TypeVar("T")
GONE = 499  # nginx's number for "the client closed the request"; nobody reads it


class Gone(Exception):
    """The client has left; nobody waits for an answer."""


async def _left(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _race(receive: Any, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives; Gone, with the work cancelled, where the client leaves before."""
    task, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait((task, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Gone
        return task.result()
    finally:
        for each in (task, leaving):
            each.cancel()
        await asyncio.gather(task, leaving, return_exceptions=True)


async def stay(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """`work`, as long as the client waits for it; Gone where it left. The request's body has been read."""
    return await _race(request.receive, work)


class Begun(AsyncIterator[T]):
    """Events of which the first is there already. Closing it closes the iterator, read or not."""

    def __init__(self, first: T | None, events: AsyncIterator[T]) -> None:
        self._first, self._events = first, events

    async def __anext__(self) -> T:
        if self._first is None:
            return await anext(self._events)
        first, self._first = self._first, None
        return first

    async def aclose(self) -> None:
        await close(self._events)


async def begin(request: Request, events: AsyncIterator[T]) -> Begun[T]:
    """The same events, once the first is there: what is wrong with a job is raised here, while a status can
    still be sent."""

    async def first() -> T | None:
        return await anext(events, None)

    try:
        return Begun(await stay(request, first()), events)
    except BaseException:
        await close(events)
        raise


async def collect(
    request: Request, pieces: AsyncIterator[T], events: AsyncIterator[Any] | None = None
) -> list[T]:
    """All pieces; Gone where the client leaves before the last. They are closed then, and so are the events
    that they are made of."""

    async def gather() -> list[T]:
        return [piece async for piece in pieces]

    try:
        return await stay(request, gather())
    finally:
        await close(pieces)
        if events is not None:
            await close(events)  # a generator that was never started closes nothing


async def close(events: AsyncIterator[Any]) -> None:
    """End an iterator's work."""
    if (aclose := getattr(events, "aclose", None)) is not None:
        await aclose()


def stream(pieces: AsyncIterator[bytes], events: AsyncIterator[Any], media_type: str) -> Response:
    """A response of pieces as they come, which are made of events. Both are closed when it ends, also because
    the client leaves."""
    from fastapi.responses import Response

    class Stream(Response):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def write() -> None:
                start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
                await send(start)
                async for piece in pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})

            try:
                await _race(receive, write())
            except Gone:
                return
            finally:
                await close(pieces)
                await close(events)

    response = Stream(media_type=media_type, headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
    del response.headers["content-length"]
    return response
