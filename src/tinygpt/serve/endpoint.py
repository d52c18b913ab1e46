"""A route: a function of the request, what OpenAPI says of it, and no answer when the client has left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import TinyGPTError, TooLongError
from tinygpt.serve.leaving import GONE, Gone
from tinygpt.serve.openai.errors import facts

if TYPE_CHECKING:
    from fastapi import APIRouter, Request
    from fastapi.responses import Response

TOO_LONG = (
    "This model's maximum context length is {most} tokens. However, your {prompt} resulted in {n} tokens. "
    "Please reduce the length of the {prompt}."
)


def add(
    router: APIRouter,
    error: Callable[..., Response],
    methods: str,
    path: str,
    work: Callable[[Request], Awaitable[Response]],
    extra: dict[str, Any] | None = None,
    media_type: str = "application/json",
    *,
    prompt: str | None = None,
    too_long: str = TOO_LONG,
) -> None:
    """Let `work` answer requests for `path`, and `error` where it raises one of ours.

    prompt: the field that may be longer than the context; too_long: the message then, as clients of this
    surface look for it. methods, media_type: one or several, with spaces; a HEAD is not listed. The first
    line of work's docstring is what OpenAPI says of it, and each {name} in the path is a text."""
    from fastapi import Request
    from fastapi.responses import Response

    async def answer(request: Any) -> Response:
        try:
            return await work(request)
        except TooLongError as wrong:
            said = too_long.format(prompt=prompt or "prompt", n=wrong.n, most=wrong.most)
            return error(400, said, code="context_length_exceeded", param=prompt)
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
