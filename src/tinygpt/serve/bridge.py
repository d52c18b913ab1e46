"""From the thread that owns the device to the event loop: the pieces of a job's answers, as they come.

Pieces gather in a queue, and the loop is woken once for as many as there are by then: at 128 answers a step
that is one call instead of 128. What nobody takes is bounded: a reader who falls far behind loses its
answers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType

from tinygpt.core.errors import BusyError
from tinygpt.infer.lane import Lane
from tinygpt.infer.request import Answer, Piece, Request
from tinygpt.infer.worker import Worker

UNREAD = 1 << 14  # pieces that may wait for their reader


class Feed:
    """The answers of one job, told apart by `index`. Leaving its block ends those that still grow."""

    def __init__(self, worker: Worker, lane: Lane) -> None:
        self._worker, self._lane = worker, lane
        self._loop = asyncio.get_running_loop()
        self._pieces: deque[tuple[int, int, Piece | BaseException]] = deque()
        self._there = asyncio.Event()
        self._told = False  # the loop knows already that there is something
        self._closed = False
        self._asked: list[Future[Answer]] = []
        self._answers: dict[int, Answer] = {}
        self._tickets: dict[int, int] = {}  # of the last request under each index

    async def __aenter__(self) -> Feed:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def submit(self, makes: dict[int, Callable[[], Request]]) -> dict[int, Answer]:
        """Queue requests, made on the device's thread. What is wrong with one of them, or BusyError, is
        raised here."""
        self._tickets |= {index: self._tickets.get(index, 0) + 1 for index in makes}
        try:
            futures = {
                index: self._worker.submit(self._lane, make, self._deliver(index), self._failed(index))
                for index, make in makes.items()
            }
        except RuntimeError as error:  # the worker is closed
            raise BusyError("the server is shutting down", hint="try again later") from error
        self._asked += futures.values()
        found = {index: await asyncio.wrap_future(future) for index, future in futures.items()}
        self._answers |= found
        return found

    async def next(self) -> list[tuple[int, Piece]]:
        """What came since the last time, at least one piece. What broke the lane is raised, and so is the
        end of the server."""
        batch: list[tuple[int, Piece]] = []
        while not batch:
            while not self._pieces:
                self._there.clear()
                await self._there.wait()
            while self._pieces:
                index, ticket, piece = self._pieces.popleft()
                if isinstance(piece, BusyError):
                    raise piece
                if isinstance(piece, BaseException):
                    raise RuntimeError(f"the model failed: {piece}") from piece
                if ticket != self._tickets[index]:
                    continue  # of an answer that was dropped
                if piece.finish_reason == "cancelled":
                    raise BusyError("the server is shutting down", hint="try again later")
                batch.append((index, piece))
        return batch

    def drop(self, index: int) -> None:
        """End one answer; nothing more is heard of it."""
        self._tickets[index] += 1
        self._answers[index].cancel()
        self._worker.wake()

    def close(self) -> None:
        """End all answers, queued and being read too. Any thread may ask for it."""
        self._closed = True
        for future in list(self._asked):
            if not future.cancel():
                future.add_done_callback(_cancel)
        self._worker.wake()

    def _deliver(self, index: int) -> Callable[[Piece], None]:
        ticket = self._tickets[index]

        def deliver(piece: Piece) -> None:
            if len(self._pieces) >= UNREAD and piece.finish_reason is None:
                self._put(index, ticket, BusyError("the answer was not read as fast as it was written"))
                self.close()
            else:
                self._put(index, ticket, piece)

        return deliver

    def _failed(self, index: int) -> Callable[[BaseException], None]:
        return lambda error: self._put(index, -1, error)

    def _put(self, index: int, ticket: int, piece: Piece | BaseException) -> None:
        """On the device's thread."""
        if self._closed:
            return
        self._pieces.append((index, ticket, piece))
        if not self._told:
            self._told = True
            try:
                self._loop.call_soon_threadsafe(self._tell)
            except RuntimeError:  # the loop has ended, and with it whoever listened
                self.close()

    def _tell(self) -> None:
        self._told = False
        self._there.set()


def _cancel(future: Future[Answer]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().cancel()
