"""A desk that answers from a script, and a real server in front of it, for tests of surfaces."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import threading
from collections.abc import AsyncIterator, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinygpt.core.errors import BusyError, ConfigError, TooLongError, UnknownModel
from tinygpt.serve.calls import name_of
from tinygpt.serve.formats import choice_of
from tinygpt.serve.job import CallPart, Chat, Delta, Done, Event, Job, ModelCard, Text, Token, Usage

NAMES = ("tiny", "tiny+poet", "org/tiny")
WIDTH = 4


def token(text: str, logprob: float | None = -0.5, *others: str) -> Token:
    """A token of a byte or more, with alternatives that are less likely."""
    top = tuple((Token(ord(o[0]), o, o.encode(), -1.0 - i), -1.0 - i) for i, o in enumerate(others))
    mine = () if logprob is None else ((Token(ord(text[0]), text, text.encode(), logprob), logprob),)
    return Token(ord(text[0]), text, text.encode(), logprob, mine + top)


@dataclass
class ScriptedDesk:
    """Writes "Hello." in three pieces, calls the first tool where one must be called, and goes by a few words
    in the last message or prompt: `fail` (a job that is wrong), `endless` (one that is too long), `break`
    (fails after the first piece), `hang` (never ends), `slow` (waits for `go`)."""

    jobs: list[Job] = field(default_factory=list[Job])
    pieces: tuple[str, ...] = ("Hel", "lo", ".")
    go: asyncio.Event = field(default_factory=asyncio.Event)
    closed: threading.Event = field(default_factory=threading.Event)
    own: tuple[str, ...] = ()  # names of the server's tools
    embedded: list[Any] = field(default_factory=list[Any])
    active: int = 0
    most: int = 0

    async def chat(self, job: Chat) -> AsyncIterator[Event]:
        choice_of(job.tool_choice, [*self.own, *map(name_of, job.tools)])
        self.jobs.append(job)
        last = str(job.messages[-1]["content"])
        calls = job.tools and (isinstance(job.tool_choice, dict) or job.tool_choice == "required")
        async for event in self._write(job, last, len(last), bool(calls)):
            yield event

    async def text(self, job: Text) -> AsyncIterator[Event]:
        self.jobs.append(job)
        prompt = job.prompt if isinstance(job.prompt, str) else bytes(job.prompt).decode()
        if job.echo:
            shown = [token(c, None if i == 0 else -0.25, "x") for i, c in enumerate(prompt)]
            yield Delta(text=prompt, tokens=tuple(shown) if job.logprobs is not None else ())
        if job.score_only:
            yield Done(finish_reason="length", usage=Usage(prompt_tokens=len(prompt)))
            return
        async for event in self._write(job, prompt, len(prompt), False):
            yield event

    async def _write(self, job: Job, last: str, n_prompt: int, calls: bool) -> AsyncIterator[Event]:
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            if "endless" in last:
                raise TooLongError(70, 64)
            if "fail" in last:
                raise ConfigError("this job is wrong")
            if "slow" in last:
                await self.go.wait()
            for index in range(job.n):
                async for event in self._one(job, index, last, n_prompt, calls):
                    yield event
        finally:
            self.active -= 1
            self.closed.set()

    async def _one(self, job: Job, index: int, last: str, n_prompt: int, calls: bool) -> AsyncIterator[Event]:
        used = Usage(prompt_tokens=n_prompt, cached_tokens=1, completion_tokens=3, reasoning_tokens=1)
        if isinstance(job, Chat) and job.think:
            yield Delta(index=index, reasoning="Let me think")
        if calls:
            assert isinstance(job, Chat)
            name = job.tools[0]["function"]["name"]
            yield Delta(index=index, calls=(CallPart(index=0, id="call_a", name=name),))
            for part in ('{"on"', ": true}"):
                yield Delta(index=index, calls=(CallPart(index=0, arguments=part),))
            yield Done(index=index, finish_reason="tool_calls", usage=used)
            return
        pieces = ('{"on": ', "true}") if job.format else self.pieces
        for piece in pieces:
            tokens = (token(piece, -0.5, "y"),) if job.logprobs is not None else ()
            yield Delta(index=index, text=piece, tokens=tokens)
            if "break" in last:
                raise BusyError("the lane broke")
            if "crash" in last:
                raise RuntimeError("a mistake")
            if "hang" in last:
                await asyncio.Event().wait()
            await asyncio.sleep(0)
        yield Done(index=index, finish_reason="stop", usage=used)

    async def embed(self, model: str, inputs: Sequence[str | Sequence[int]]) -> tuple[list[list[float]], int]:
        self.embedded.append(list(inputs))
        return [[float(len(text)), 0.5, -0.25, 1.0] for text in inputs], sum(map(len, inputs))

    async def prompt(self, job: Chat) -> list[int]:
        return list("".join(str(m["content"]) for m in job.messages).encode())

    async def tokenize(
        self, model: str, text: str, *, special: bool = True, control: bool = False
    ) -> list[int]:
        return list(text.encode())

    async def detokenize(self, model: str, ids: Sequence[int]) -> str:
        return bytes(ids).decode()

    def models(self) -> list[ModelCard]:
        return [self._card(name) for name in NAMES]

    async def card(self, model: str) -> ModelCard:
        if model == "busy":
            raise BusyError("all memory is in use")
        if model and model not in NAMES:
            raise UnknownModel(f"there is no model '{model}'", hint=f"known: {', '.join(NAMES)}")
        return self._card(model or NAMES[0])

    def _card(self, name: str) -> ModelCard:
        return ModelCard(
            name=name, created=1_700_000_000, context=64, size_bytes=1, n_parameters=2,
            digest="sha256:0123abc", base="tiny" if "+" in name else "", template="{{ messages }}",
            details={"eos_token": "<end>"}, loaded=True,
        )  # fmt: skip

    async def load(self, model: str, keep: float | None = None) -> None:
        await self.card(model)


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of server-sent events but the last, which is [DONE]."""
        lines = [line for line in self.body.decode().split("\n\n") if line.startswith("data: ")]
        assert lines[-1] == "data: [DONE]"
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


@dataclass(frozen=True)
class Served:
    """A running server; `desk` belongs to its thread."""

    port: int
    desk: Any

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: Any = None) -> Reply:
        """One request; bytes go as they are, anything else as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            connection.request(method, path, raw)
            reply = connection.getresponse()
            return Reply(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())
        finally:
            connection.close()


@contextlib.contextmanager
def running(app: Any, desk: Any) -> Generator[Served]:
    """An ASGI application on a port of the loopback interface."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off"))
    begun, ports = threading.Event(), list[int]()

    async def serve() -> None:
        serving = asyncio.create_task(server.serve())
        while not server.started and not serving.done():
            await asyncio.sleep(0.005)
        if server.started:
            ports.append(server.servers[0].sockets[0].getsockname()[1])
        begun.set()
        await serving

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    begun.wait()
    try:
        yield Served(ports[0], desk)
    finally:
        server.should_exit = True
        thread.join()
