"""OpenAI's surface: chats, completions, embeddings, models, and the tokenizer as vLLM shows it."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import TinyGPTError
from tinygpt.serve.fields import Fields, document, read
from tinygpt.serve.job import Desk
from tinygpt.serve.leaving import GONE, Gone
from tinygpt.serve.limits import Settings
from tinygpt.serve.openai import chat, completions, errors, listing
from tinygpt.serve.openai.errors import error

if TYPE_CHECKING:
    from fastapi import APIRouter, Request, Response

__all__ = ["error", "routes"]

Handler = Callable[["Request", Fields, Desk, Settings], Awaitable["Response"]]
# path -> (what answers, fields that must be there, all fields)
POSTS: dict[str, tuple[Handler, tuple[str, ...], dict[str, str]]] = {
    "/v1/chat/completions": (chat.answer, ("messages",), chat.DOCUMENT),
    "/v1/completions": (completions.answer, ("prompt",), completions.DOCUMENT),
    "/v1/fim/completions": (completions.fill, ("prompt",), completions.FIM_DOCUMENT),
    "/v1/embeddings": (listing.embeddings, ("input",), listing.EMBEDDINGS),
    **dict.fromkeys(("/tokenize", "/v1/tokenize"), (listing.tokenize, (), listing.TOKENIZE)),
    **dict.fromkeys(("/detokenize", "/v1/detokenize"), (listing.detokenize, ("tokens",), listing.DETOKENIZE)),
}  # fmt: skip
STREAMED = {"text/event-stream": {"schema": {"type": "string"}}}


def routes(desk: Desk, settings: Settings) -> APIRouter:
    """Every route of this surface."""
    from fastapi import APIRouter

    router = APIRouter(tags=["OpenAI"])
    for path, (handler, required, fields) in POSTS.items():
        about = document(required, **fields)
        made = functools.partial(_posted, handler, desk, settings)
        _add(router, "POST", path, made, handler.__doc__, about, streams="stream" in fields)

    async def models(request: Request) -> Response:
        return await listing.models(desk)

    async def model(request: Request) -> Response:
        return await listing.model(desk, request.path_params["name"])

    async def tokenizer_info(request: Request) -> Response:
        return await listing.tokenizer_info(desk, request.query_params.get("model", ""))

    named = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    _add(router, "GET", "/v1/models", models, "Every served model.")
    _add(router, "GET", "/v1/models/{name:path}", model, "One model.", {"parameters": [named]})
    for path in ("/tokenizer_info", "/v1/tokenizer_info"):
        _add(router, "GET", path, tokenizer_info, listing.tokenizer_info.__doc__)
    return router


async def _posted(handler: Handler, desk: Desk, settings: Settings, request: Request) -> Response:
    return await handler(request, await read(request), desk, settings)


def _add(
    router: APIRouter,
    method: str,
    path: str,
    handler: Callable[[Request], Awaitable[Response]],
    summary: str | None,
    about: dict[str, Any] | None = None,
    *,
    streams: bool = False,
) -> None:
    """One route; errors of ours become OpenAI's error object."""
    from fastapi import Request
    from fastapi.responses import Response

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except TinyGPTError as problem:
            return error(**errors.facts(problem))
        except Gone:
            return Response(status_code=GONE)

    # FastAPI reads annotations as objects, and these names are known in here only
    answer.__annotations__ = {"request": Request, "return": Response}
    wrong = {
        status: {"description": why}
        for status, why in ((400, "wrong"), (404, "no such model"), (503, "busy"))
    }
    good: dict[str, Any] = {"description": "the answer", "content": {"application/json": {}}}
    if streams:
        good["content"] |= STREAMED
    router.add_api_route(
        path,
        answer,
        methods=[method],
        name=f"openai {method} {path}",
        summary=(summary or "").partition("\n")[0],
        response_class=Response,
        response_model=None,
        responses={200: good, **wrong},
        openapi_extra=about,
    )
