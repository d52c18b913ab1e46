"""Serve models to clients of OpenAI's, Ollama's and Anthropic's APIs, until the process is asked to end.

The socket listens before anything is opened, so /health answers while models load; the models named on the
command line are opened and warm before /ready says yes.
"""

from __future__ import annotations

import asyncio
import functools
import traceback
from collections.abc import Callable
from typing import Any

from tinygpt import __version__
from tinygpt.core.errors import DependencyError
from tinygpt.core.events import Events
from tinygpt.core.lock import gpu_lock
from tinygpt.data.corrections import Corrections
from tinygpt.runs import _desk, _routes, _served
from tinygpt.runs._lanes import Lanes
from tinygpt.runs._serve_settings import Config
from tinygpt.runs._traced import Facts
from tinygpt.serve import connection, security
from tinygpt.serve.app import App, make_app, surfaces
from tinygpt.serve.limits import Limits, Settings
from tinygpt.serve.metrics import Metrics
from tinygpt.serve.registry import Registry
from tinygpt.serve.trace import Folder, Watching

SPARE_FILES = 128  # open files that are no connections
GB = 1e9


Log = Callable[[str], None]


def run(config: Config, events: Events, tell: Callable[[dict[str, Any]], None], log: Log) -> None:
    """Serve until SIGINT or SIGTERM. `tell` hears {url, host, port, models} once the socket listens and
    signals are heeded, `log` a line for each request."""
    settings = settings_of(config)
    lanes = Lanes(config, events)
    plan = None if config.route is None else _routes.read(config.route, config.source)
    models = _served.Models(plan.source if plan else config.source, lanes, events)
    models.check()
    if plan is not None:
        plan.tell(events)
    known = Facts(models.open, lanes) if config.trace_dir is not None else None
    if config.api_key is not None:
        events.note("--api-key can be seen by every user of this machine: better a file", "warning")
    with gpu_lock("serve", wait=config.wait, enabled=config.lock, events=events):
        sock = connection.listen(config.host, config.port)
        try:
            host, port = sock.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            facts = {
                "url": f"http://{shown}:{port}", "host": host, "port": port, "models": list(models.known()),
                **({"routes": plan.facts} if plan else {}),
            }  # fmt: skip
            begun = functools.partial(tell, facts)  # not before: who hears it may end the process at once
            asyncio.run(_serve(config, settings, models, known, plan, sock, events, log, begun))
        finally:
            sock.close()


def settings_of(config: Config) -> Settings:
    """How the server behaves; ConfigError where everybody could use it."""
    keys = security.read_keys(config.api_key, config.api_key_file)
    security.refuse_open(config.host, keys)
    own = () if security.is_loopback(config.host) else (config.host,)
    limits = Limits()
    files = connection.raise_file_limit(limits.connections + SPARE_FILES)
    connections = max(8, min(limits.connections, files - SPARE_FILES))
    limits = Limits(connections=connections, alternatives=config.max_logprobs)
    return Settings(
        limits=limits, keys=keys, hosts=(*own, *config.allow_host), origins=config.cors_origin,
        grace=config.grace, log=config.access_log, version=__version__,
        corrections=None if config.corrections_dir is None else Corrections(config.corrections_dir),
    )  # fmt: skip


async def _serve(
    config: Config,
    settings: Settings,
    models: _served.Models,
    facts: Facts | None,
    plan: _routes.Plan | None,
    sock: Any,
    events: Events,
    log: Log,
    begun: Callable[[], None],
) -> None:
    metrics = Metrics()

    def report(error: Exception) -> None:
        log("an answer could not be ended:\n" + "".join(traceback.format_exception(error)).rstrip())

    with Watching(metrics, report) as worker:
        memory = int(config.memory_limit * GB) or None
        open_ = facts.open if facts else models.open
        registry = Registry(worker, open_, models.known, memory=memory, keep=config.keep)

        async def prepare() -> None:
            if plan is not None:
                desk.routes = await asyncio.to_thread(plan.open, registry)
            for name in (*config.source.models, *(plan.armed if plan else ())):
                await registry.load(name)

        def warn(text: str) -> None:
            events.note(text, "warning")

        times = None if config.times is None else Folder(config.times, warn)
        desk = _desk.desk_of(config, registry, warn, facts)
        app: App = make_app(
            desk, registry, settings, surfaces(), metrics=metrics, prepare=prepare,
            failed=lambda: server.end(), log=log, traces=times,
        )  # fmt: skip
        server = _running(app, sock, settings)
        metrics.gauge("tinygpt_connections", "Open connections.", lambda: [({}, server.n_connections)])
        try:
            await server.serve(begun)
        finally:
            desk.close()
            with connection.ends_at_once():
                worker.close()  # it may be opening a model
        if app.state.failed is not None:
            raise app.state.failed


def _running(app: App, sock: Any, settings: Settings) -> connection.Running:
    try:
        return connection.Running(
            app, sock, settings.limits, grace=settings.grace, drain=app.drain, cut=app.cut
        )
    except ImportError as error:
        raise DependencyError("uvicorn", "serve", "a server") from error
