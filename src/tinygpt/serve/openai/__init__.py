"""OpenAI's surface: chats, completions, embeddings, models, corrections, the tokenizer as vLLM shows it."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from tinygpt.data import corrections as store
from tinygpt.serve.fields import Fields, document, read
from tinygpt.serve.job import Desk
from tinygpt.serve.limits import Settings
from tinygpt.serve.openai import chat, completions, corrections, listing
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
    "/v1/corrections": (corrections.answer, store.NEEDED, corrections.DOCUMENT),
    **dict.fromkeys(("/tokenize", "/v1/tokenize"), (listing.tokenize, (), listing.TOKENIZE)),
    **dict.fromkeys(("/detokenize", "/v1/detokenize"), (listing.detokenize, ("tokens",), listing.DETOKENIZE)),
}
JSON = "application/json"


def routes(desk: Desk, settings: Settings) -> APIRouter:
    """Every route of this surface."""
    from fastapi import APIRouter

    from tinygpt.serve.endpoint import add  # which itself needs this package's errors

    router = APIRouter(tags=["OpenAI"])
    for path, (handler, required, fields) in POSTS.items():
        media = f"{JSON} text/event-stream" if "stream" in fields else JSON
        work, body = _posted(handler, desk, settings), document(required, **fields)
        add(router, error, "POST", path, work, body, media, prompt=required[0] if required else None)

    async def models(request: Request) -> Response:
        """Every served model."""
        return await listing.models(desk)

    async def model(request: Request) -> Response:
        """One model."""
        name = request.path_params["name"]
        return await (listing.model(desk, name) if name else listing.models(desk))  # "" is no model's name

    async def tokenizer_info(request: Request) -> Response:
        """Control tokens and template."""
        return await listing.tokenizer_info(request, desk)

    add(router, error, "GET", "/v1/models", models)
    add(router, error, "GET", "/v1/models/{name:path}", model)
    for path in ("/tokenizer_info", "/v1/tokenizer_info"):
        add(router, error, "GET", path, tokenizer_info)
    return router


def _posted(handler: Handler, desk: Desk, settings: Settings) -> Callable[[Request], Awaitable[Response]]:
    """A handler that is given the body's fields."""

    @functools.wraps(handler)
    async def work(request: Request) -> Response:
        return await handler(request, await read(request), desk, settings)

    return work
