"""The server's application: surfaces side by side, each with its own error form, behind one gate.

A surface is a module of this package with

    routes(desk, settings) -> fastapi.APIRouter
    error(status, message, *, code=None, param=None) -> starlette Response

Its errors are written by `error` wherever they arise: in the gate, in routing, in a handler. What no surface
has is the server's own: GET / /health /ready /metrics and /openapi.json.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import importlib.util
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinygpt.core.errors import (
    BusyError,
    ConfigError,
    DataError,
    TinyGPTError,
    UnknownModel,
    UnsupportedError,
)
from tinygpt.data.masking import masked
from tinygpt.serve.document import described
from tinygpt.serve.gate import Gate
from tinygpt.serve.job import Desk
from tinygpt.serve.limits import LimitError, Settings
from tinygpt.serve.metrics import CONTENT_TYPE, Metrics
from tinygpt.serve.registry import Registry
from tinygpt.serve.trace import Folder, Record
from tinygpt.serve.watched import Watched


@dataclass(frozen=True, kw_only=True)
class Surface:
    """A module with `routes` and `error`, and the beginnings of the paths whose errors are in its form."""

    module: Any
    prefixes: tuple[str, ...]


# The longest beginning of a path decides; "" takes all the rest. Anthropic's surface comes before OpenAI's,
# since a header tells it which requests for models are its own.
SURFACES = {
    "anthropic": ("/v1/messages",),
    "openai": ("",),
    "responses": ("/v1/responses",),
    "ollama": ("/api/", "/api"),
}
QUIET = {"/health", "/ready", "/metrics"}  # asked every few seconds by whatever watches the server
STATUS: tuple[tuple[type[TinyGPTError], int], ...] = (
    (UnknownModel, 404),
    (BusyError, 503),
    (LimitError, 413),
    (ConfigError, 400),
    (DataError, 400),
    (UnsupportedError, 400),
)


def surfaces() -> list[Surface]:
    """Those that this build has."""
    return [
        Surface(module=importlib.import_module(f"tinygpt.serve.{name}"), prefixes=prefixes)
        for name, prefixes in SURFACES.items()
        if importlib.util.find_spec(f"tinygpt.serve.{name}") is not None
    ]


def surface_of(path: str) -> str:
    """The name of the surface that a path belongs to."""
    owners = [(prefix, name) for name, prefixes in SURFACES.items() for prefix in prefixes]
    return max((owner for owner in owners if path.startswith(owner[0])), key=lambda owner: len(owner[0]))[1]


def status_of(error: TinyGPTError) -> int:
    """The HTTP status of an error: whose fault it is."""
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


@dataclass(eq=False)
class State:
    """What a server is doing. `failed`: why its default model could not be opened."""

    ready: bool = False
    failed: BaseException | None = None
    started: float = field(default_factory=time.time)

    def word(self, draining: bool) -> str:
        return "ending" if draining else "failed" if self.failed else "ok" if self.ready else "loading"


class App:
    """The ASGI application, and the handles of whoever runs it."""

    def __init__(self, gate: Gate, desk: Watched, metrics: Metrics, state: State, api: Any) -> None:
        self.gate, self.desk, self.metrics, self.state, self.api = gate, desk, metrics, state, api

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.gate(scope, receive, send)

    def drain(self) -> None:
        """Take no new requests."""
        self.gate.draining = True

    def cut(self) -> None:
        """End what is being answered."""
        self.desk.end()


def make_app(
    desk: Desk,
    registry: Registry,
    settings: Settings,
    surfaces: Sequence[Surface],
    *,
    metrics: Metrics | None = None,
    prepare: Callable[[], Awaitable[None]] | None = None,
    failed: Callable[[], None] | None = None,
    traces: Folder | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> App:
    """The application of a server.

    prepare: opens what is to be there before /ready says yes; while it runs the server answers. failed:
    called where it raised, the reason in `state.failed`. traces: where requests leave their times. log: hears
    a line for each request, and what failed."""
    from fastapi import FastAPI

    metrics = metrics or Metrics()
    state, watched = State(ready=prepare is None), Watched(desk, metrics)

    async def begin() -> None:
        assert prepare is not None
        try:
            await prepare()
            state.ready = True
        except Exception as error:
            state.failed = error
            if failed is not None:
                failed()

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncGenerator[None]:
        opening = asyncio.create_task(begin()) if prepare is not None else None
        yield
        if opening is not None:
            opening.cancel()
        await registry.close()

    api = FastAPI(
        title="tinygpt", version=settings.version or "0", lifespan=lifespan, docs_url=None, redoc_url=None,
        redirect_slashes=False, description="Language models of this machine, for clients of several kinds.",
    )  # fmt: skip
    refuse = _errors(surfaces)
    for surface in surfaces:
        api.include_router(surface.module.routes(watched, settings))

    def done(record: Record) -> None:
        if settings.log and not (record.path in QUIET and record.status == 200):
            log(record.line())
        if traces is not None and record.answers:
            asyncio.get_running_loop().run_in_executor(None, traces.write, record)

    gate = Gate(api, settings, metrics, refuse, done, tracing=traces is not None, log=log)
    _figures(metrics, registry, gate)
    _own_routes(api, state, gate, metrics, registry)
    _handlers(api, refuse)
    api.openapi = functools.cache(lambda: described(api, surface_of))  # type: ignore[method-assign]
    return App(gate, watched, metrics, state, api)


def _errors(surfaces: Sequence[Surface]) -> Callable[..., Any]:
    """(path, headers, status, message, code=, param=) -> the error in the form of the path's surface."""
    forms = sorted(
        ((prefix, surface.module.error) for surface in surfaces for prefix in surface.prefixes),
        key=lambda pair: -len(pair[0]),
    )

    def refuse(path: str, headers: Mapping[str, str], status: int, message: str, **more: str | None) -> Any:
        anthropic = "anthropic-version" in headers and path.startswith("/v1/")
        where = "/v1/messages" if anthropic else path  # its SDK also asks paths that OpenAI's has
        write = next((error for prefix, error in forms if where.startswith(prefix)), _error)
        return write(status, masked(message), **more)  # it may name what was sent

    return refuse


def _error(status: int, message: str, *, code: str | None = None, param: str | None = None) -> Any:
    """An error in OpenAI's form, where no surface is responsible."""
    from starlette.responses import JSONResponse

    kind = "server_error" if status >= 500 else "invalid_request_error"
    error = {"message": message, "type": kind, "param": param, "code": code}
    return JSONResponse({"error": error}, status)


def _handlers(api: Any, refuse: Callable[..., Any]) -> None:
    """Have every error that leaves a handler written by its surface."""
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException

    def write(request: Any, status: int, message: str, code: str | None = None) -> Any:
        return refuse(request.url.path, request.headers, status, message, code=code)

    async def expected(request: Any, error: Any) -> Any:
        code = "model_not_found" if isinstance(error, UnknownModel) else None
        return write(request, status_of(error), str(error), code)

    async def http(request: Any, error: Any) -> Any:
        message = str(error.detail)
        if error.status_code == 404 and message == "Not Found":
            message = f"there is no {request.method} {request.url.path} here"
        elif error.status_code == 405:
            message = f"{request.url.path} is not asked with {request.method}"
        response = write(request, error.status_code, message)
        response.headers.update(error.headers or {})
        return response

    async def invalid(request: Any, error: Any) -> Any:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first.get("loc", ()) if part != "body")
        return write(request, 400, f"'{where}': {first.get('msg')}" if where else str(first.get("msg")))

    async def mistake(request: Any, error: Any) -> Any:
        return write(request, 500, "the server made a mistake; its log says more", "internal_error")

    api.add_exception_handler(TinyGPTError, expected)
    api.add_exception_handler(HTTPException, http)
    api.add_exception_handler(RequestValidationError, invalid)
    api.add_exception_handler(Exception, mistake)


def _own_routes(api: Any, state: State, gate: Gate, metrics: Metrics, registry: Registry) -> None:
    """What belongs to no surface. A surface that has one of these paths was asked first."""
    from starlette.responses import JSONResponse, PlainTextResponse, Response

    async def root() -> Response:
        """Whether something answers: clients of Ollama look for these words."""
        return PlainTextResponse("Ollama is running")

    async def health() -> Response:
        """That the process lives, also while models are loading."""
        word = state.word(gate.draining)
        facts = {
            "status": word,
            "uptime_seconds": round(time.time() - state.started, 3),
            "version": api.version,
        }
        return JSONResponse(facts | {"loading": registry.opening})

    async def ready() -> Response:
        """Whether requests would be answered at once: the models named at the start are there and warm."""
        word = state.word(gate.draining)
        return JSONResponse({"ready": word == "ok", "status": word}, 200 if word == "ok" else 503)

    async def figures() -> Response:
        """Figures of this server in Prometheus's text form."""
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    tags = ["server"]
    text = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
    facts = {200: {"content": {"application/json": {"schema": {"type": "object"}}}}}
    not_yet = {503: {"description": "Not yet, or not any more."}}
    add = api.add_api_route
    for path, call, said in (
        ("/", root, text),
        ("/health", health, facts),
        ("/ready", ready, facts | not_yet),
        ("/metrics", figures, text),
    ):
        add(
            path, call, methods=["GET"], tags=tags, response_class=Response, response_model=None,
            responses=said, operation_id=path.strip("/") or "root",
        )  # fmt: skip


def _figures(metrics: Metrics, registry: Registry, gate: Gate) -> None:
    """What is not counted but looked at."""

    def each(value: Callable[[Any], float]) -> Callable[[], list[tuple[dict[str, str], float]]]:
        return lambda: [({"model": served.name}, value(served)) for served in registry.served]

    metrics.gauge("tinygpt_waiting", "Answers that wait in a queue.", each(lambda s: len(s.lane.waiting)))
    metrics.gauge("tinygpt_running", "Answers that are read or written.", each(lambda s: s.lane.n_running))
    metrics.gauge("tinygpt_model_bytes", "Memory of a model.", each(lambda s: s.own_bytes))
    metrics.gauge("tinygpt_open_requests", "Requests not yet over.", lambda: [({}, gate.n_open)])
    metrics.gauge("tinygpt_models_opened", "Models opened so far.", lambda: [({}, registry.n_opened)])
    metrics.gauge("tinygpt_models_dropped", "Models dropped so far.", lambda: [({}, registry.n_dropped)])
    metrics.gauge("tinygpt_device_bytes", "Memory of the device in use.", _device_bytes)
    metrics.gauge("tinygpt_cpu_seconds", "Time of the CPU so far.", lambda: [({}, time.process_time())])


def _device_bytes() -> list[tuple[dict[str, str], float]]:
    from tinygpt.core.backend import mx

    return [({}, mx.get_active_memory())]
