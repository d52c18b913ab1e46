"""Extract: which tool serves a request, as a router that was trained for it says."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tinygpt.core.config import refuse_idle
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.events import Events, Progress
from tinygpt.data import rows, table
from tinygpt.data.message import text_of
from tinygpt.data.requests import NOTHING

if TYPE_CHECKING:
    from tinygpt.router.router import Router


Asked = tuple[str, str | None]
"""A request, and its tool where the row names one."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which requests are asked, of which router, and what is told."""

    router: Annotated[Path, "Router: a directory, or a run of train-extractor."]
    query: Annotated[str, "One request."] = ""
    stdin: Annotated[bool, "A request a line, from standard input."] = False
    data: Annotated[Path | None, "Rows with a 'query'; with a 'tool' too they can be scored."] = None
    top_k: Annotated[int, "Tools that are told of each request."] = 3
    threshold: Annotated[float, "Leave out tools that are less probable."] = 0.0
    batch: Annotated[int, "Requests of --stdin and --data that go through the router at once."] = 1
    predictions: Annotated[
        Path | None, "File for {method, query, predicted_tool, gold_tool} rows, as eval-router takes them."
    ] = None
    method: Annotated[str, "What these rows call the router; not given: its directory's name."] = ""
    force: Annotated[bool, "Replace an existing --predictions."] = False

    def __post_init__(self) -> None:
        if sum((bool(self.query), self.stdin, self.data is not None)) != 1:
            raise ConfigError("one of --query, --stdin and --data is needed", hint="and one alone")
        for name in ("top_k", "batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.threshold <= 1:
            raise ConfigError(f"--threshold must be from 0 to 1, got {self.threshold:g}")
        refuse_idle(self, {"predictions": "data", "method": "predictions", "force": "predictions"})
        if self.query and self.batch != 1:
            raise ConfigError("--batch means nothing for one --query", hint="leave it out")
        if self.predictions is not None and self.predictions.exists() and not self.force:
            raise ConfigError(f"{self.predictions} exists", hint="choose another, or pass --force")


def run(config: Config, lines: Iterable[str], events: Events) -> Iterator[dict[str, Any]]:
    """{query, predictions: [{tool, prob, class_idx}], latency_ms} of each request, in their order.

    `lines` are those of standard input. With --predictions the rows are written once all are answered."""
    from tinygpt.router.router import Router
    from tinygpt.runs._pieces import model_path

    router = Router.open(model_path(config.router))
    router.probabilities(["a first one, so that no request waits for what is made once"])
    bad, found, n = list[str](), list[dict[str, Any]](), 0
    asked = _asked(config, lines, bad)
    whole = 0 if config.stdin else len(asked := list(asked))  # lines are answered as they come
    if bad:
        events.note(f"{config.data}: {len(bad)} rows left out: {'; '.join(bad[:3])}", "warning")
    if config.predictions is not None and not any(tool is not None for _, tool in asked):
        raise DataError(
            f"no row of {config.data} has a 'tool' to be scored by", hint="leave out --predictions"
        )
    method = config.method or config.router.resolve().name
    for part in _parts(asked, config.batch):
        began = time.perf_counter()
        answers = router.probabilities([query for query, _ in part])
        took = 1000 * (time.perf_counter() - began) / len(part)
        n += len(part)
        for (query, tool), p_C in zip(part, answers, strict=True):
            made = _answer(router, query, p_C, config) | {"latency_ms": round(took, 3)}
            if config.predictions is not None and tool is not None:
                best = router.labels[int(p_C.argmax())]
                told = {"method": method, "query": query, "gold_tool": tool}
                found.append(told | {"predicted_tool": best, "prob": round(float(p_C.max()), 6)})
            yield made
        if whole > 1:
            events.emit(Progress(task="extract", done=n, total=whole, unit="requests"))
    if not n:
        raise DataError("there is no request", hint="a line each, or rows with a 'query'")
    if config.predictions is not None:
        n = rows.write(config.predictions, found)
        events.note(f"{n} rows for eval-router in {config.predictions}")


def _parts(asked: Iterable[Asked], n: int) -> Iterator[list[Asked]]:
    """The requests, up to n at once."""
    rest = iter(asked)
    while part := list(itertools.islice(rest, n)):
        yield part


def _asked(config: Config, lines: Iterable[str], bad: list[str]) -> Iterable[Asked]:
    if config.query:
        yield config.query, None
    elif config.stdin:
        yield from ((line.strip(), None) for line in lines if line.strip())
    else:
        assert config.data is not None
        for number, row in table.records(config.data):
            try:
                told = row()
                query = told.get("query") if isinstance(told, dict) else None
                if not isinstance(query, str) or not query.strip():
                    raise DataError("there is no 'query'")
                text_of(query, "query")
            except DataError as error:
                bad.append(f"{table.unit(config.data)} {number}: {error.message}")
                continue
            named = next((key for key in ("gold_tool", "tool") if key in told), None)
            yield query, None if named is None else str(told[named] or NOTHING)


def _answer(router: Router, query: str, p_C: Any, config: Config) -> dict[str, Any]:
    order = sorted(range(len(p_C)), key=lambda c: (-p_C[c], c))[: config.top_k]
    return {
        "query": query,
        "predictions": [
            {"tool": router.labels[c], "prob": round(float(p_C[c]), 6), "class_idx": c}
            for c in order if p_C[c] >= config.threshold
        ],
    }  # fmt: skip
