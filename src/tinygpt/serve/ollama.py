"""Ollama's surface: every client of /api/* plugs in unchanged.

As Ollama 0.14, with these differences: `num_ctx` and other options of how a model is laid out have no effect
(an open model has its layout), a prompt that does not fit is an error and is never cut, `template` is
refused, and models are not pulled, made or deleted over the network.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import TooLongError, UnknownModel
from tinygpt.data.masking import masked
from tinygpt.infer.config import SampleConfig
from tinygpt.serve import ollama_read as reading
from tinygpt.serve import ollama_write as writing
from tinygpt.serve.cards import capabilities, opened, width
from tinygpt.serve.endpoint import add
from tinygpt.serve.fields import FieldError, Fields, document, read
from tinygpt.serve.job import Chat, Desk, Event, ModelCard, Text
from tinygpt.serve.leaving import begin, collect, stay, stream
from tinygpt.serve.openai.errors import broken

if TYPE_CHECKING:
    from fastapi import APIRouter, Request
    from fastapi.responses import Response

    from tinygpt.serve.limits import Settings

# Clients ask for a least version before they use a feature; 0.14.0 is the first Ollama that has all that is
# here (logprobs 0.12.11, /v1/responses 0.13.3, /v1/messages 0.14.0). A suffix would sort below it.
VERSION = "0.14.0"
TOO_LONG = "the input length exceeds the context length: {n} tokens, the model reads {most}"
NDJSON = "application/x-ndjson"
BOTH = f"{NDJSON} application/json"
MOST_INPUTS = 2048
ADD = "start `tinygpt serve` with the model's path or hf:// address as a further MODEL"


def error(status: int, message: str, *, code: str | None = None, param: str | None = None) -> Response:
    """An error in Ollama's form: a text, never an object, since clients print it."""
    return _json({"error": masked(message)}, status)


def _json(value: Any, status: int = 200) -> Response:
    from fastapi.responses import JSONResponse

    headers = {"retry-after": "1"} if status in (429, 503) else None
    return JSONResponse(value, status_code=status, headers=headers)


class Surface:
    """The routes' functions, over one desk."""

    def __init__(self, desk: Desk, settings: Settings) -> None:
        self.desk, self.settings = desk, settings

    async def find(self, name: str) -> ModelCard:
        """A model's card; UnknownModel in Ollama's words, which clients look for."""
        try:
            return await self.desk.card(name)
        except UnknownModel as wrong:
            raise UnknownModel(f"model '{name}' not found", hint=wrong.hint) from None

    async def open(self, request: Request, name: str) -> ModelCard:
        """The same of a model that is in memory now."""
        _ = await self.find(name)
        return await opened(request, self.desk, name)

    # What there is

    async def root(self, request: Request) -> Response:
        """Say that the server is here."""
        from fastapi.responses import PlainTextResponse

        return PlainTextResponse("Ollama is running")

    async def version(self, request: Request) -> Response:
        """The version of Ollama that this surface is like."""
        return _json({"version": VERSION})

    async def tags(self, request: Request) -> Response:
        """List the models."""
        return _json({"models": [writing.listed(card) for card in self.desk.models()]})

    async def ps(self, request: Request) -> Response:
        """List the models in memory."""
        return _json({"models": [writing.running(card) for card in self.desk.models() if card.loaded]})

    async def show(self, request: Request) -> Response:
        """Describe a model."""
        return _json(writing.shown(await self.find(reading.model(await read(request)))))

    # Answers

    async def chat(self, request: Request) -> Response:
        """Go on with a conversation; without messages, load the model or let go of it."""
        body, start = await read(request), time.perf_counter()
        name = reading.model(body)
        keep, messages = reading.keep_alive(body), reading.messages(body)
        if not messages:
            return await self._loaded(request, await self.find(name), keep, writing.Answer(name, chat=True))
        card = await self.open(request, name)
        answer = writing.Answer(name, chat=True, load_seconds=time.perf_counter() - start)
        job = self._chat(card, body, messages)
        return await self._answer(request, body, start, card, keep, answer, self.desk.chat(job))

    async def generate(self, request: Request) -> Response:
        """Answer a prompt; without one, load the model or let go of it."""
        body, start = await read(request), time.perf_counter()
        name = reading.model(body)
        keep = reading.keep_alive(body)
        if not (body.text("prompt") or body.text("suffix")):
            return await self._loaded(request, await self.find(name), keep, writing.Answer(name, chat=False))
        card = await self.open(request, name)
        answer = writing.Answer(name, chat=False, load_seconds=time.perf_counter() - start)
        job, ids = self._generate(card, body)
        events = self.desk.chat(job) if isinstance(job, Chat) else self.desk.text(job)
        return await self._answer(request, body, start, card, keep, answer, events, ids)

    def _settings(self, card: ModelCard, body: Fields) -> dict[str, Any]:
        """What jobs of both kinds have in common."""
        reading.refuse_images(body)
        return {
            "model": card.name,
            "config": self._config(card, body),
            "stream": body.flag("stream", True),
            "logprobs": reading.logprobs(body),
            "format": reading.format_(body),
        }

    def _config(self, card: ModelCard, body: Fields) -> SampleConfig:
        return reading.config(body, card.context, self.settings.default_max_tokens)

    def _chat(self, card: ModelCard, body: Fields, messages: list[dict[str, Any]]) -> Chat:
        think = reading.think(body)
        if "thinking" not in capabilities(card):
            if think:
                raise FieldError(f'"{card.name}" does not support thinking', param="think")
            think = None
        last = messages[-1] if messages else {}
        return Chat(
            **self._settings(card, body),
            messages=messages,
            tools=reading.tools(body),
            think=think,
            prefill=last.get("role") == "assistant" and not last.get("tool_calls"),
        )

    def _generate(self, card: ModelCard, body: Fields) -> tuple[Chat | Text, list[int] | None]:
        """The job of /api/generate, and where the ids of its prompt will be, for the `context` that comes
        back; None where none does."""
        reading.only_empty(body, "template", "cannot be given: the model's own chat template is used")
        prompt, suffix = body.text("prompt", ""), body.text("suffix", "")
        system, context = body.text("system", ""), reading.context(body)
        raw = body.flag("raw")
        if raw and (system or context):
            raise FieldError("raw mode does not support template, system, or context", param="raw")
        if suffix and (system or context):
            raise body.wrong("suffix", "cannot be given together with 'system' or 'context'")
        if suffix and "insert" not in capabilities(card):
            raise FieldError(f'"{card.name}" does not support insert', param="suffix")
        messages = [{"role": "system", "content": system}] if system else []
        chat = self._chat(card, body, [*messages, {"role": "user", "content": prompt}])
        settings = self._settings(card, body)
        if suffix:
            return Text(**settings, prompt=prompt, suffix=suffix), None
        if raw:
            return Text(**settings, prompt=prompt), None
        ids: list[int] = []
        return replace(chat, context=context, told=ids.extend), ids

    async def _loaded(
        self, request: Request, card: ModelCard, keep: float | None, answer: writing.Answer
    ) -> Response:
        """What a request without a prompt does."""
        await stay(request, self.desk.load(card.name, keep))
        return _json(answer.line(done=True, done_reason="unload" if keep == 0 else "load"))

    async def _answer(
        self,
        request: Request,
        body: Fields,
        start: float,
        card: ModelCard,
        keep: float | None,
        answer: writing.Answer,
        events: AsyncIterator[Event],
        ids: list[int] | None = None,
    ) -> Response:
        """The answer as lines or, not streamed, as one object."""

        async def lines(events: AsyncIterator[Event]) -> AsyncIterator[writing.Line]:
            async for event in events:
                for line in answer.write(event, time.perf_counter() - start):
                    if line["done"] and ids is not None:
                        written = await self.desk.tokenize(card.name, answer.text, special=False)
                        line["context"] = ids + written
                    yield line

        async with self._keeping(request, card, keep):
            if body.flag("stream", True):
                begun = await begin(request, events)
                return stream(_ndjson(lines(begun)), begun, NDJSON)
            return _json(answer.joined(await collect(request, lines(events), events)))

    @contextlib.asynccontextmanager
    async def _keeping(self, request: Request, card: ModelCard, keep: float | None) -> AsyncGenerator[None]:
        """A model stays for `keep` seconds after what is done in here. With 0 it goes, also where the client
        has left: at once, or when the answer that was begun in here is over."""
        if keep:
            await stay(request, self.desk.load(card.name, keep))
        try:
            yield
        finally:
            if keep == 0:
                await self.desk.load(card.name, 0)

    # Embeddings

    async def embed(self, request: Request) -> Response:
        """Embed one text or several; the vectors have length 1."""
        body, start = await read(request), time.perf_counter()
        name = reading.model(body)
        card, keep = await self.find(name), reading.keep_alive(body)
        _ = self._config(card, body)
        texts, cut = reading.inputs(body, MOST_INPUTS), body.flag("truncate", True)
        n_dimensions = body.integer("dimensions", 0) or 0
        async with self._keeping(request, card, keep):
            if n_dimensions and n_dimensions > (known := await width(request, self.desk, card.name)):
                raise body.wrong("dimensions", f"is {n_dimensions}, the model has {known}")
            if not texts:
                await stay(request, self.desk.load(card.name, keep))
            inputs: list[str | list[int]] = []
            for text in texts:
                ids = await self.desk.tokenize(card.name, text)
                if len(ids) > card.context and not cut:
                    raise TooLongError(len(ids), card.context)
                inputs.append(ids[: card.context] if len(ids) > card.context else text)
            found = await stay(request, self.desk.embed(card.name, inputs)) if inputs else ([], 0)
        vectors, n_tokens = found
        reply = {
            "model": name,
            "embeddings": [_unit(vector[: n_dimensions or None]) for vector in vectors],
            "total_duration": writing.nanoseconds(time.perf_counter() - start),
            "load_duration": 0,
            "prompt_eval_count": n_tokens,
        }
        return _json(reply)

    async def embeddings(self, request: Request) -> Response:
        """Embed one text, as older clients ask."""
        body = await read(request)
        card, keep = await self.find(reading.model(body)), reading.keep_alive(body)
        _ = self._config(card, body)
        prompt = body.text("prompt", "")
        async with self._keeping(request, card, keep):
            if not prompt:
                await stay(request, self.desk.load(card.name, keep))
                return _json({"embedding": []})
            vectors, _ = await stay(request, self.desk.embed(card.name, [prompt]))
        return _json({"embedding": vectors[0]})

    # What is not done over the network

    async def pull(self, request: Request) -> Response:
        """Say whether a model is here."""
        body = await read(request)
        streamed, name = body.flag("stream", True), reading.model(body)
        try:
            _ = await self.find(name)
        except UnknownModel:
            raise UnknownModel(f"model '{name}' not found: nothing is pulled here", hint=ADD) from None
        if not streamed:
            return _json({"status": "success"})
        lines = _lines([{"status": "pulling manifest"}, {"status": "success"}])
        return stream(_ndjson(lines), lines, NDJSON)

    async def push(self, request: Request) -> Response:
        """Refuse: models are not sent anywhere."""
        _ = await self.find(reading.model(await read(request)))
        raise FieldError("models are not pushed from here", hint="copy the model's directory")

    async def create(self, request: Request) -> Response:
        """Refuse: models are made by other commands."""
        _ = reading.model(await read(request))
        raise FieldError("models are not made over the network", hint=f"make one with tinygpt, then {ADD}")

    async def delete(self, request: Request) -> Response:
        """Refuse: models are not deleted over the network."""
        card = await self.find(reading.model(await read(request)))
        raise FieldError(f"'{card.name}' is not deleted over the network", hint="delete its directory")

    async def copy(self, request: Request) -> Response:
        """Refuse: a model has the name that it is served under."""
        body = await read(request)
        source, _ = body.needed("source"), body.needed("destination")
        card = await self.find(source)
        raise FieldError(f"'{card.name}' is not copied over the network", hint="copy its directory")

    async def no_blob(self, request: Request) -> Response:
        """Say that there is no such blob."""
        return error(404, f'blob "{request.path_params["digest"][:80]}" not found')

    async def refuse_blob(self, request: Request) -> Response:
        """Refuse: no files are taken."""
        raise FieldError("no files are taken over the network", hint=ADD)


def _unit(vector: list[float]) -> list[float]:
    """A vector of length 1 in the same direction."""
    length = max(math.sqrt(math.fsum(x * x for x in vector)), 1e-12)
    return [x / length for x in vector]


async def _lines(values: list[writing.Line]) -> AsyncIterator[writing.Line]:
    for value in values:
        yield value


async def _ndjson(lines: AsyncIterator[writing.Line]) -> AsyncIterator[bytes]:
    """Lines as bytes. What goes wrong in the middle is a last line, since a status has been sent."""
    try:
        async for line in lines:
            yield json.dumps(line, ensure_ascii=False).encode() + b"\n"
    except Exception as problem:
        yield json.dumps({"error": broken(problem)["message"]}, ensure_ascii=False).encode() + b"\n"


def routes(desk: Desk, settings: Settings) -> APIRouter:
    """Ollama's routes over a desk."""
    from fastapi import APIRouter

    router, surface = APIRouter(tags=["ollama"]), Surface(desk, settings)
    name = document(["model"], model="string")
    answers = {
        "stream": "boolean", "options": "object", "format": "string|object", "keep_alive": "number|string",
        "think": "boolean|string", "logprobs": "boolean", "top_logprobs": "integer", "images": "array",
    }  # fmt: skip
    chat = document(["model"], model="string", messages="array", tools="array", **answers)
    generate = document(
        ["model"], model="string", prompt="string", suffix="string", system="string", template="string",
        raw="boolean", context="array", **answers,
    )  # fmt: skip
    embed = document(
        ["model", "input"], model="string", input="string|array", truncate="boolean", dimensions="integer",
        options="object", keep_alive="number|string",
    )  # fmt: skip
    embeddings = document(
        ["model"], model="string", prompt="string", options="object", keep_alive="number|string"
    )
    put = functools.partial(add, router, error, too_long=TOO_LONG)
    put("GET HEAD", "/", surface.root, media_type="text/plain")
    put("GET HEAD", "/api/version", surface.version)
    put("GET HEAD", "/api/tags", surface.tags)
    put("GET", "/api/ps", surface.ps)
    put("POST", "/api/show", surface.show, name)
    put("POST", "/api/chat", surface.chat, chat, BOTH)
    put("POST", "/api/generate", surface.generate, generate, BOTH)
    put("POST", "/api/embed", surface.embed, embed)
    put("POST", "/api/embeddings", surface.embeddings, embeddings)
    put("POST", "/api/pull", surface.pull, name, BOTH)
    put("POST", "/api/push", surface.push, name)
    put("POST", "/api/create", surface.create, name)
    put("DELETE", "/api/delete", surface.delete, name)
    copy = document(["source", "destination"], source="string", destination="string")
    put("POST", "/api/copy", surface.copy, copy)
    put("HEAD", "/api/blobs/{digest}", surface.no_blob)
    put("POST", "/api/blobs/{digest}", surface.refuse_blob)
    return router
