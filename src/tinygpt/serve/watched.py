"""A desk whose jobs can be ended from outside, and that notes what they used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from tinygpt.core.errors import BusyError
from tinygpt.serve.job import Chat, Desk, Done, Event, Job, ModelCard, Text
from tinygpt.serve.metrics import Metrics
from tinygpt.serve.trace import CURRENT


class Watched:
    """The desk behind it, as every surface sees it."""

    def __init__(self, desk: Desk, metrics: Metrics) -> None:
        self._desk, self._metrics = desk, metrics
        self._waiting: set[asyncio.Task[object]] = set()
        self._ending = False
        self.n_running = 0

    def end(self) -> None:
        """End all jobs now: each one raises BusyError where its next event would be."""
        self._ending = True
        for task in list(self._waiting):
            task.cancel()

    def chat(self, job: Chat) -> AsyncIterator[Event]:
        return self._watch(job, self._desk.chat(job))

    def text(self, job: Text) -> AsyncIterator[Event]:
        return self._watch(job, self._desk.text(job))

    async def prompt(self, job: Chat) -> list[int]:
        return await self._desk.prompt(job)

    async def embed(self, model: str, inputs: Sequence[str | Sequence[int]]) -> tuple[list[list[float]], int]:
        return await self._desk.embed(model, inputs)

    async def tokenize(
        self, model: str, text: str, *, special: bool = True, control: bool = False
    ) -> list[int]:
        return await self._desk.tokenize(model, text, special=special, control=control)

    async def detokenize(self, model: str, ids: Sequence[int]) -> str:
        return await self._desk.detokenize(model, ids)

    def models(self) -> list[ModelCard]:
        return self._desk.models()

    async def card(self, model: str) -> ModelCard:
        return await self._desk.card(model)

    async def load(self, model: str, keep: float | None = None) -> None:
        await self._desk.load(model, keep)

    async def _watch(self, job: Job, events: AsyncIterator[Event]) -> AsyncGenerator[Event]:
        if (record := CURRENT.get()) is not None and not record.model:
            record.model = job.model
        self.n_running += 1
        try:
            while True:
                try:
                    event = await self._next(events)
                except StopAsyncIteration:
                    return
                if isinstance(event, Done):
                    self._metrics.drafted.add(event.usage.drafted_tokens)
                    self._metrics.accepted.add(event.usage.accepted_tokens)
                yield event
        finally:
            self.n_running -= 1
            if isinstance(events, AsyncGenerator):
                await events.aclose()  # which cancels the work

    async def _next(self, events: AsyncIterator[Event]) -> Event:
        """The next event; BusyError where jobs are ended."""
        task = asyncio.current_task()
        assert task is not None
        if self._ending:
            raise _ended()
        self._waiting.add(task)
        try:
            return await anext(events)
        except asyncio.CancelledError:
            if not self._ending or task.uncancel():
                raise
            raise _ended() from None
        finally:
            self._waiting.discard(task)


def _ended() -> BusyError:
    return BusyError("the server is ending, so this answer was cut short", hint="ask again later")
