"""Models as Anthropic's SDK asks for them: on paths that OpenAI's surface has too, told apart by a header."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tinygpt.serve.endpoint import add
from tinygpt.serve.fields import FieldError
from tinygpt.serve.job import Desk, ModelCard

if TYPE_CHECKING:
    from fastapi import APIRouter, Request
    from fastapi.responses import Response

VERSION = b"anthropic-version"  # the header, which all of Anthropic's clients send
LIMIT, MOST = "20", 1000  # models of a page


def routes(desk: Desk, error: Callable[..., Response]) -> APIRouter:
    """GET /v1/models and /v1/models/{name}, for requests that name Anthropic's version."""
    from fastapi import APIRouter
    from fastapi.responses import JSONResponse
    from fastapi.routing import APIRoute
    from starlette.routing import Match

    class Versioned(APIRoute):
        def matches(self, scope: Any) -> tuple[Match, Any]:
            named = any(name == VERSION for name, _ in scope["headers"])
            return super().matches(scope) if named else (Match.NONE, {})

    async def models(request: Request) -> Response:
        """List the models."""
        query = request.query_params
        limit = query.get("limit", LIMIT)
        if not (len(limit) < 5 and limit.isdecimal() and 1 <= int(limit) <= MOST):
            raise FieldError(f"'limit' must be a whole number from 1 to {MOST}", param="limit")
        return JSONResponse(page(desk.models(), int(limit), query.get("after_id"), query.get("before_id")))

    async def model(request: Request) -> Response:
        """Describe a model."""
        return JSONResponse(shown(await desk.card(request.path_params["name"])))

    router = APIRouter(route_class=Versioned, include_in_schema=False)
    add(router, error, "GET", "/v1/models", models)
    add(router, error, "GET", "/v1/models/{name:path}", model)
    return router


def shown(card: ModelCard) -> dict[str, Any]:
    """A model as Anthropic lists it."""
    return {
        "type": "model",
        "id": card.name,
        "display_name": card.name,
        "created_at": datetime.fromtimestamp(card.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
        "max_input_tokens": card.context,
        "max_tokens": card.context,
    }


def page(cards: Sequence[ModelCard], limit: int, after: str | None, before: str | None) -> dict[str, Any]:
    """At most `limit` models: those that follow one, or those that stand before one."""
    names = [card.name for card in cards]
    for field, name in (("after_id", after), ("before_id", before)):
        if name and name not in names:
            raise FieldError(f"'{field}' names no model: '{name[:80]}'", param=field)
    found = cards[names.index(after) + 1 if after else 0 : names.index(before) if before else None]
    kept = found[-limit:] if before and not after else found[:limit]
    return {
        "data": [shown(card) for card in kept],
        "has_more": len(kept) < len(found),
        "first_id": kept[0].name if kept else None,
        "last_id": kept[-1].name if kept else None,
    }
