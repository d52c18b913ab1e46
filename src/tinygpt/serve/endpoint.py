"""A route: a function of the request, what OpenAPI says of it, and no answer when the client has left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import TinyGPTError
from tinygpt.serve.leaving import GONE, Gone
from tinygpt.serve.openai.errors import facts

if TYPE_CHECKING:
    from fastapi import APIRouter, Request
    from fastapi.responses import Response


def add(
    router: APIRouter,
    error: Callable[..., Response],
    methods: str,
    path: str,
    work: Callable[[Request], Awaitable[Response]],
    extra: dict[str, Any] | None = None,
    media_type: str = "application/json",
) -> None:
    """Let `work` answer requests for `path`, and `error` where it raises one of ours.

    methods, media_type: one or several, with spaces; a HEAD is not listed. The first line of work's docstring
    is what OpenAPI says of it, and each {name} in the path is a text."""
    from fastapi import Request
    from fastapi.responses import Response

    async def answer(request: Any) -> Response:
        try:
            return await work(request)
        except TinyGPTError as wrong:
            return error(**facts(wrong))
        except Gone:
            return Response(status_code=GONE)

    answer.__annotations__ = {"request": Request}  # fastapi reads it, and here alone the name is known
    names = [part[1:-1].partition(":")[0] for part in path.split("/") if part.startswith("{")]
    parameters = [{"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in names]
    extra = {**(extra or {}), **({"parameters": parameters} if names else {})}
    for method in methods.split():
        router.add_api_route(
            path,
            answer,
            methods=[method],
            name=work.__name__,
            summary=(work.__doc__ or work.__name__).partition("\n")[0].rstrip("."),
            response_model=None,
            response_class=Response,
            responses={200: {"content": {kind: {} for kind in media_type.split()}}},
            openapi_extra=extra,
            include_in_schema=method != "HEAD",
        )
