"""OpenAI's newer surface: POST /v1/responses, and responses that are kept to be asked for or gone on with.

Differences that a client can see: responses are kept in memory, the latest ones, and not for 30 days; a level
of `reasoning.effort` other than "none" and "minimal" is a yes; what chats take for sampling beside OpenAI's
fields (`seed`, `stop`, `top_k`, ...) is taken here, too; `verbosity`, `service_tier` and keys of prompt
caches have no effect; tools are functions, since this server runs none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from tinygpt.serve import responses_read as reading
from tinygpt.serve import responses_write as writing
from tinygpt.serve.cards import opened
from tinygpt.serve.endpoint import add
from tinygpt.serve.fields import FieldError, Fields, document, read
from tinygpt.serve.job import Desk, Done, Event
from tinygpt.serve.leaving import begin, collect, stay, stream
from tinygpt.serve.openai.ask import SAMPLED
from tinygpt.serve.openai.errors import broken, error
from tinygpt.serve.responses_store import Kept, Store

if TYPE_CHECKING:
    from fastapi import APIRouter, Request
    from fastapi.responses import Response

    from tinygpt.serve.limits import Settings

__all__ = ["error", "routes"]

EVENTS = "text/event-stream"


class Surface:
    """The routes' functions, over one desk and a store of its own."""

    def __init__(self, desk: Desk, settings: Settings) -> None:
        self.desk, self.settings, self.store = desk, settings, Store()

    async def _ask(self, request: Request, body: Fields) -> reading.Asked:
        card = await opened(request, self.desk, body.needed("model"))
        earlier = []
        if previous := body.text("previous_response_id"):
            if (kept := self.store.get(previous)) is None:
                raise body.wrong(
                    "previous_response_id",
                    f"names no kept response: '{previous[:80]}'",
                    hint="the latest ones are kept while the server runs; send the conversation as 'input'",
                    code="previous_response_not_found",
                )
            earlier = kept.messages
        most, limits = self.settings.default_max_tokens, self.settings.limits
        return reading.ask(body, card, earlier, self.store.item, most, limits)

    async def create(self, request: Request) -> Response:
        """Go on with a conversation."""
        from fastapi.responses import JSONResponse

        body = await read(request)
        asked = await self._ask(request, body)
        answer = writing.Answer(body.needed("model"), asked.echo, asked.store)
        events = self.desk.chat(asked.job)
        if asked.job.stream:
            begun = await begin(request, events)
            return stream(self._stream(asked, answer, begun), begun, EVENTS)
        done = None
        for event in await collect(request, events):
            _ = list(answer.take(event))
            done = event if isinstance(event, Done) else done
        response = answer.response(done)
        self._keep(asked, answer, response)
        return JSONResponse(response)

    def _keep(self, asked: reading.Asked, answer: writing.Answer, response: dict[str, Any]) -> None:
        if asked.store:
            items = [item | {"id": item.get("id") or writing.new_id("msg")} for item in asked.items]
            self.store.put(response, items, [*asked.messages, answer.message()])

    async def _stream(
        self, asked: reading.Asked, answer: writing.Answer, events: AsyncIterator[Event]
    ) -> AsyncIterator[bytes]:
        """An answer as server-sent events. What goes wrong in the middle is an event, since a status was
        sent."""
        for found in answer.begin():
            yield writing.sse(found)
        try:
            async for event in events:
                for found in answer.take(event):
                    if isinstance(event, Done) and "response" in found:
                        self._keep(asked, answer, found["response"])
                    yield writing.sse(found)
        except Exception as problem:
            for found in answer.fail(broken(problem)["message"]):
                yield writing.sse(found)

    async def count(self, request: Request) -> Response:
        """Count the tokens of an input."""
        from fastapi.responses import JSONResponse

        asked = await self._ask(request, await read(request))
        ids = await stay(request, self.desk.prompt(asked.job))
        return JSONResponse({"object": "response.input_tokens", "input_tokens": len(ids)})

    # Kept responses

    def _kept(self, request: Request) -> Kept | None:
        return self.store.get(request.path_params["response_id"])

    def _missing(self, request: Request) -> Response:
        id = request.path_params["response_id"][:80]
        return error(404, f"there is no response with the id '{id}'", param="response_id")

    async def retrieve(self, request: Request) -> Response:
        """Give a kept response again."""
        from fastapi.responses import JSONResponse

        if request.query_params.get("stream", "false") != "false":
            raise FieldError("a kept response is not streamed again; leave 'stream' out", param="stream")
        kept = self._kept(request)
        return self._missing(request) if kept is None else JSONResponse(kept.response)

    async def items(self, request: Request) -> Response:
        """List the input of a kept response, the latest first or, with order=asc, as it came."""
        from fastapi.responses import JSONResponse

        if (kept := self._kept(request)) is None:
            return self._missing(request)
        found = kept.items if request.query_params.get("order") == "asc" else kept.items[::-1]
        ends = {"first_id": found[0]["id"], "last_id": found[-1]["id"]} if found else {}
        return JSONResponse({"object": "list", "data": found, "has_more": False, **ends})

    async def delete(self, request: Request) -> Response:
        """Forget a kept response."""
        from fastapi.responses import JSONResponse

        id = request.path_params["response_id"]
        if not self.store.drop(id):
            return self._missing(request)
        return JSONResponse({"id": id, "object": "response", "deleted": True})

    async def cancel(self, request: Request) -> Response:
        """Refuse: no response is written in the background."""
        if self._kept(request) is None:
            return self._missing(request)
        raise FieldError("no response is written in the background; close the connection to end one")


def routes(desk: Desk, settings: Settings) -> APIRouter:
    """The routes of /v1/responses over a desk."""
    from fastapi import APIRouter

    router, surface = APIRouter(tags=["openai"]), Surface(desk, settings)
    body = document(
        ["model"], model="string", input="string|array", instructions="string", tools="array", text="object",
        tool_choice="string|object", parallel_tool_calls="boolean", max_output_tokens="integer",
        top_logprobs="integer", include="array", reasoning="object",
        store="boolean", previous_response_id="string", metadata="object", stream="boolean", user="string",
        truncation="string", max_tool_calls="integer", safety_identifier="string",
        **SAMPLED,
    )  # fmt: skip
    one = "/v1/responses/{response_id}"
    kinds = f"application/json {EVENTS}"
    add(router, error, "POST", "/v1/responses", surface.create, body, kinds, prompt="input")
    add(router, error, "POST", "/v1/responses/input_tokens", surface.count, body)
    add(router, error, "GET", one, surface.retrieve)
    add(router, error, "DELETE", one, surface.delete)
    add(router, error, "GET", f"{one}/input_items", surface.items)
    add(router, error, "POST", f"{one}/cancel", surface.cancel)
    return router
