"""A desk that answers from a script, and a real server on loopback with a surface on it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

from tinygpt.core.errors import TooLongError, UnknownModel
from tinygpt.serve.calls import name_of
from tinygpt.serve.formats import choice_of
from tinygpt.serve.job import CallPart, Chat, Delta, Done, Event, ModelCard, Text, Token, Usage
from tinygpt.serve.limits import Limits

CARD = ModelCard(
    name="tiny", created=1_760_000_000, context=128, size_bytes=4_200_000, n_parameters=1_234_567,
    digest="sha256:" + "ab" * 32, family="llama", template="{{ messages }}", loaded=True,
    memory_bytes=5_000_000, details={
        "hidden_size": 4, "num_hidden_layers": 2,
        "capabilities": ["completion", "tools", "thinking", "embedding"],
    },
)  # fmt: skip
BASE = replace(CARD, name="base", loaded=False, details={"capabilities": ["completion", "insert"]})
USAGE = Usage(
    prompt_tokens=11, cached_tokens=3, completion_tokens=5, reasoning_tokens=2, load_seconds=0.5,
    prompt_seconds=0.25, write_seconds=0.125,
)  # fmt: skip


def text(*pieces: str, reason: str = "stop", stop_text: str | None = None) -> list[Event]:
    """The events of an answer of these pieces."""
    return [
        *(Delta(text=piece) for piece in pieces),
        Done(finish_reason=reason, usage=USAGE, stop_text=stop_text),
    ]


def calls(*found: tuple[str, str], reason: str = "tool_calls", before: str = "") -> list[Event]:
    """The events of an answer with tool calls (name, arguments), each in two parts."""
    events: list[Event] = [Delta(text=before)] if before else []
    for i, (name, arguments) in enumerate(found):
        half = len(arguments) // 2
        events.append(
            Delta(calls=(CallPart(index=i, id=f"call_{i}", name=name, arguments=arguments[:half]),))
        )
        events.append(Delta(calls=(CallPart(index=i, arguments=arguments[half:]),)))
    return [*events, Done(finish_reason=reason, usage=USAGE)]


def token(text: str, logprob: float) -> Token:
    other = Token(66, "B", b"B", -2.0)
    return Token(65, text, text.encode(), logprob, ((other, -2.0),))


def _ids(job: Chat) -> list[int]:
    written = (ord(letter) for message in job.messages for letter in str(message["content"]))
    return [*job.context, 1, *written]


@dataclass
class FakeDesk:
    """Says `script` to every job. With `hang` it sets `begun` and never ends; `closed` counts iterators that
    were closed."""

    script: Callable[[Chat | Text], Sequence[Event]] = lambda job: text("Hel", "lo")
    hang: bool = False
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    jobs: list[Any] = field(default_factory=list[Any])
    loads: list[tuple[str, float | None]] = field(default_factory=list[Any])
    embedded: list[Any] = field(default_factory=list[Any])
    closed: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    cards: tuple[ModelCard, ...] = (CARD, BASE)
    rendered: int = 0  # prompts that were asked for beside an answer
    own: tuple[str, ...] = ()  # names of the server's tools

    def chat(self, job: Chat) -> AsyncIterator[Event]:
        return self._say(job)

    def text(self, job: Text) -> AsyncIterator[Event]:
        return self._say(job)

    async def _say(self, job: Chat | Text) -> AsyncIterator[Event]:
        await self.card(job.model)
        if isinstance(job, Chat):
            choice_of(job.tool_choice, [*self.own, *map(name_of, job.tools)])
        self.jobs.append(job)
        ids = _ids(job) if isinstance(job, Chat) else [*map(ord, job.prompt)]
        if len(ids) >= CARD.context:
            raise TooLongError(len(ids), CARD.context)
        if job.told is not None:
            job.told(ids)
        try:
            for event in self.script(job):
                yield event
                await asyncio.sleep(0)
                await self._hang()
        finally:
            self.closed.release()

    async def prompt(self, job: Chat) -> list[int]:
        self.rendered += 1
        return _ids(job)

    async def _hang(self) -> None:
        if self.hang:
            self.begun.set()
            await asyncio.Event().wait()

    async def embed(self, model: str, inputs: Sequence[Any]) -> tuple[list[list[float]], int]:
        self.embedded.append(list(inputs))
        await self._hang()
        return [[3.0, 4.0, 0.0, 0.0] for _ in inputs], 7 * len(inputs)

    async def tokenize(
        self, model: str, text: str, *, special: bool = True, control: bool = False
    ) -> list[int]:
        return [1] * special + [ord(letter) for letter in text]

    async def detokenize(self, model: str, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))

    def models(self) -> list[ModelCard]:
        return list(self.cards)

    async def card(self, model: str) -> ModelCard:
        found = [card for card in self.cards if card.name == (model.removesuffix(":latest") or "tiny")]
        if not found:
            raise UnknownModel(f"the model '{model}' does not exist", hint="known: tiny, base")
        return found[0]

    async def load(self, model: str, keep: float | None = None) -> None:
        self.loads.append((model, keep))


@dataclass(frozen=True)
class Settings:
    default_max_tokens: int | None = None
    limits: Limits = field(default_factory=Limits)


def app(module: ModuleType, desk: FakeDesk, settings: Any = None) -> Any:
    """The surface alone, with errors as the whole server has them."""
    from fastapi import FastAPI

    found = FastAPI()
    found.include_router(module.routes(desk, settings or Settings()))
    return found


@contextlib.contextmanager
def served(app: Any) -> Generator[str]:
    """The app on a port of loopback; gives its address."""
    import uvicorn

    ready = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            ready.set()

    server = Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert ready.wait(20)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


@functools.cache
def client(module: ModuleType) -> Any:
    """One client for all tests that leave nothing behind."""
    from fastapi.testclient import TestClient

    return TestClient(app(module, FakeDesk()))
