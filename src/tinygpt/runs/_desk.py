"""Who answers the jobs of a server's surfaces."""

from __future__ import annotations

from collections.abc import Callable

from tinygpt.runs import _constrained
from tinygpt.runs._serve_settings import Config
from tinygpt.runs._traced import Facts
from tinygpt.serve import toolbox
from tinygpt.serve.desk import FrontDesk
from tinygpt.serve.job import Format
from tinygpt.serve.registry import Registry
from tinygpt.serve.traced import Traces

Log = Callable[[str], None]


def desk_of(config: Config, registry: Registry, warn: Log, facts: Facts | None = None) -> FrontDesk:
    """Who answers the surfaces' jobs."""
    grammar = None
    if config.grammar is not None:
        kind, value = _constrained.of_file(config.grammar)
        grammar = Format(kind=kind, value=value)
    return FrontDesk(
        registry,
        tools=None if config.tools is None else toolbox.load(config.tools, config.tool_mode),
        metrics=None if config.tool_metrics_out is None else toolbox.Metrics(config.tool_metrics_out, warn),
        grammar=grammar,
        traces=Traces(config.trace_dir, facts.of, warn) if facts and config.trace_dir else None,
    )
