"""Anthropic's surface: POST /v1/messages, its count of tokens, and the models as its SDK asks for them.

Differences that a client can see: `cache_control` has no effect (every prompt is looked up in the prefix
cache), nor have `effort`, `budget_tokens`, `context_management` and `service_tier`; models that cannot reason
are not told to; a thinking block has no signature, and none is asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tinygpt.data.masking import masked
from tinygpt.serve import anthropic_models as models
from tinygpt.serve import anthropic_read as reading
from tinygpt.serve import anthropic_write as writing
from tinygpt.serve.cards import opened
from tinygpt.serve.endpoint import add
from tinygpt.serve.fields import document, read
from tinygpt.serve.job import Desk, Done, Event
from tinygpt.serve.leaving import begin, collect, stay, stream
from tinygpt.serve.openai.errors import broken

if TYPE_CHECKING:
    from fastapi import APIRouter, Request
    from fastapi.responses import Response

    from tinygpt.serve.limits import Settings

TOO_LONG = "prompt is too long: {n} tokens > {most} maximum"
EVENTS = "text/event-stream"
TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
    404: "not_found_error", 408: "timeout_error", 413: "request_too_large", 429: "rate_limit_error",
    503: "overloaded_error", 504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip


def _error(status: int, message: str) -> dict[str, Any]:
    kind = TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": masked(message)}, "request_id": None}


def error(status: int, message: str, *, code: str | None = None, param: str | None = None) -> Response:
    """An error in Anthropic's form; its type follows from the status."""
    from fastapi.responses import JSONResponse

    headers = {"retry-after": "1"} if status in (429, 503) else None
    return JSONResponse(_error(status, message), status_code=status, headers=headers)


def routes(desk: Desk, settings: Settings) -> APIRouter:
    """Anthropic's routes over a desk."""
    from fastapi import APIRouter
    from fastapi.responses import JSONResponse

    async def create(request: Request) -> Response:
        """Go on with a conversation."""
        body = await read(request)
        name = body.needed("model")
        card = await opened(request, desk, name)
        job = reading.chat(body, card)
        answer = writing.Answer(name, job, hide=reading.hides_thinking(body))
        ids: list[int] = []
        events = desk.chat(replace(job, told=ids.extend))
        if job.stream:
            begun = await begin(request, events)
            return stream(_stream(answer, begun, len(ids)), begun, EVENTS)
        done = None
        for event in await collect(request, events):
            _ = list(answer.take(event))
            done = event if isinstance(event, Done) else done
        return JSONResponse(answer.message(done))

    async def count(request: Request) -> Response:
        """Count the tokens of a conversation."""
        body = await read(request)
        card = await opened(request, desk, body.needed("model"))
        job = reading.chat(body, card, counting=True)
        return JSONResponse({"input_tokens": len(await stay(request, desk.prompt(job)))})

    router = APIRouter(tags=["anthropic"])
    router.include_router(models.routes(desk, error))
    fields = {
        "model": "string", "messages": "array", "system": "string|array", "tools": "array",
        "tool_choice": "object", "thinking": "object", "output_config": "object",
    }  # fmt: skip
    more = {
        "max_tokens": "integer", "stop_sequences": "array", "temperature": "number", "top_p": "number",
        "top_k": "integer", "stream": "boolean", "metadata": "object",
    }  # fmt: skip
    whole = document(["model", "messages", "max_tokens"], **fields, **more)
    kinds = f"application/json {EVENTS}"
    add(router, error, "POST", "/v1/messages", create, whole, kinds, too_long=TOO_LONG)
    add(router, error, "POST", "/v1/messages/count_tokens", count, document(["model", "messages"], **fields))
    return router


async def _stream(
    answer: writing.Answer, events: AsyncIterator[Event], n_prompt: int
) -> AsyncIterator[bytes]:
    """An answer as server-sent events. What goes wrong in the middle is an event, since a status was sent."""
    yield writing.sse({"type": "message_start", "message": answer.message(n_prompt=n_prompt)})
    yield writing.sse({"type": "ping"})
    try:
        async for event in events:
            for found in answer.take(event):
                yield writing.sse(found)
    except Exception as problem:
        found = broken(problem)
        yield writing.sse(_error(found["status"], found["message"]))
