"""Requests to an ASGI application without a socket, and a desk and a surface to answer them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, StreamingResponse

from tinygpt.core.errors import BusyError, UnknownModel
from tinygpt.serve.app import Surface
from tinygpt.serve.job import Chat, Delta, Done, Event, ModelCard, Text, Usage

CARD = ModelCard(
    name="tiny", created=1, context=64, size_bytes=100, n_parameters=10, digest="d" * 64, family="llama"
)


class FakeDesk:
    """Says `words`, each of which takes one of `gate`, where that is set; `full` makes it too busy."""

    def __init__(self, words: Sequence[str] = ("one", " two")) -> None:
        self.words, self.full = words, False
        self.gate: asyncio.Semaphore | None = None
        self.closed = 0
        self.jobs: list[Any] = []

    def chat(self, job: Chat) -> AsyncIterator[Event]:
        return self._say(job)

    async def _say(self, job: Chat | Text) -> AsyncIterator[Event]:
        self.jobs.append(job)
        if job.model not in ("", "tiny"):
            raise UnknownModel(f"the model '{job.model}' does not exist")
        if self.full:
            raise BusyError("2 requests wait already")
        try:
            for word in self.words:
                if self.gate is not None:
                    await self.gate.acquire()
                yield Delta(text=word)
            used = Usage(completion_tokens=len(self.words), drafted_tokens=5, accepted_tokens=3)
            yield Done(finish_reason="stop", usage=used)
        finally:
            self.closed += 1

    def text(self, job: Text) -> AsyncIterator[Event]:
        return self._say(job)

    async def embed(self, model: str, inputs: Sequence[Any]) -> tuple[list[list[float]], int]:
        raise ZeroDivisionError("a mistake of the server's")

    async def tokenize(
        self, model: str, text: str, *, special: bool = True, control: bool = False
    ) -> list[int]:
        return list(text.encode())

    async def detokenize(self, model: str, ids: Sequence[int]) -> str:
        return bytes(ids).decode()

    def models(self) -> list[ModelCard]:
        return [CARD]

    async def card(self, model: str) -> ModelCard:
        return CARD

    async def load(self, model: str, keep: float | None = None) -> None:
        return None


def fake_registry() -> Any:
    """What an application asks of a registry itself."""

    async def close() -> None:
        return None

    return SimpleNamespace(served=[], opening=[], n_opened=0, n_dropped=0, close=close)


def surface(prefix: str, name: str) -> Surface:
    """A surface with POST prefix/chat, which streams words, and an error form that says its name."""

    def error(status: int, message: str, *, code: str | None = None, param: str | None = None) -> Any:
        return JSONResponse({name: {"message": message, "code": code, "param": param}}, status)

    def routes(desk: Any, settings: Any) -> Any:
        router = APIRouter()

        async def chat(request: Request) -> Any:
            body = json.loads(await request.body())
            events = desk.chat(Chat(messages=[], model=body.get("model", "")))
            first = await anext(events)
            if not body.get("stream"):
                words = [first.text] + [e.text async for e in events if isinstance(e, Delta)]
                return JSONResponse({"text": "".join(words)})

            async def lines() -> AsyncIterator[str]:
                yield first.text + "\n"
                try:
                    async for event in events:
                        if isinstance(event, Delta):
                            yield event.text + "\n"
                except BusyError as error:
                    yield f"error: {error}\n"
                yield "end\n"

            return StreamingResponse(lines(), media_type="text/plain")

        async def broken(request: Request) -> Any:
            await desk.embed("", [])

        router.add_api_route(f"{prefix}/chat", chat, methods=["POST"])
        router.add_api_route(f"{prefix}/broken", broken, methods=["POST"])
        return router

    return Surface(module=SimpleNamespace(routes=routes, error=error), prefixes=(prefix,))


@dataclass
class Reply:
    """What an application answered."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def ask(
    app: Any,
    method: str,
    path: str,
    body: bytes | Any = b"",
    headers: dict[str, str] | None = None,
    *,
    leave: asyncio.Event | None = None,
    slow: bool = False,
    heard: asyncio.Event | None = None,
) -> Reply:
    """One request. leave: the client goes when this is set; slow: its body never ends; heard: set when the
    first part of the answer's body is there."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply, sent = Reply(), False
    pairs = {"host": "127.0.0.1:8080"} | (headers or {})

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": body, "more_body": slow}
        if leave is not None:
            await leave.wait()
            return {"type": "http.disconnect"}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            reply.status = message["status"]
            reply.headers = {k.decode(): v.decode() for k, v in message["headers"]}
        else:
            reply.body += message.get("body", b"")
            if heard is not None:
                heard.set()

    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [(k.encode(), v.encode()) for k, v in pairs.items()], "client": ("127.0.0.1", 5),
        "server": ("127.0.0.1", 8080), "scheme": "http", "http_version": "1.1", "root_path": "",
        "asgi": {"version": "3.0", "spec_version": "2.3"}, "state": {},
    }  # fmt: skip
    await app(scope, receive, send)
    return reply
