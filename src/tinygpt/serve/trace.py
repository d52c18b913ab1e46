"""What became of each request: for the log, for figures, and, where a folder is given, as a file a request.

A file holds {request_id, route, model, status, started, total_ms, prompt_tokens, generated_tokens,
cache {enabled, hit, prefix_tokens}, spans [{name, answer, start_ms, ms}], tokens [{answer, index, model_ms,
constraint_ms, decode_ms}]}; `tinygpt infer-heatmap` draws it. Times count from the request's arrival. A
token's time is that since the one before it: in its constraint, in handing it on (decode), and the rest,
which is the model's. No file holds what was asked or answered.
"""

from __future__ import annotations

import contextvars
import datetime
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinygpt.core import files
from tinygpt.core.errors import DataError
from tinygpt.infer.lane import Lane
from tinygpt.infer.request import Answer, Constraint, Piece, Request
from tinygpt.infer.worker import Worker
from tinygpt.serve.metrics import Metrics

if TYPE_CHECKING:
    import numpy as np


@dataclass(eq=False)
class Record:
    """One request of a client. `answers` are filled by the worker's thread, the rest by the event loop."""

    request_id: str
    method: str = ""
    path: str = ""
    client: str = ""
    tracing: bool = False
    route: str = ""
    model: str = ""
    decision: str = ""  # which model was chosen, and why: see serve/routed.py
    status: int = 0
    gone: bool = False
    started_at: float = field(default_factory=time.time)
    started: float = field(default_factory=time.perf_counter)
    ended: float = 0.0
    answers: list[Watch] = field(default_factory=list["Watch"])

    @property
    def seconds(self) -> float:
        return (self.ended or time.perf_counter()) - self.started

    @property
    def prompt_tokens(self) -> int:
        """Tokens of its prompts, one that has several answers counted once."""
        prompts = {tuple(w.answer.request.prompt) for w in self.answers if w.answer is not None}
        return sum(map(len, prompts))

    @property
    def generated_tokens(self) -> int:
        return sum(watch.n_tokens for watch in self.answers)

    def line(self) -> str:
        """The request in a log: nothing of its body, its query or its keys."""
        when = datetime.datetime.fromtimestamp(self.started_at, datetime.UTC).isoformat(
            timespec="milliseconds"
        )
        status = f"{self.status or '-'}{' client gone' if self.gone else ''}"
        text = f"{when} {self.client or '-'} {self.method} {self.path} {status} {self.seconds:.3f}s"
        if self.answers:
            text += f" in={self.prompt_tokens} out={self.generated_tokens} model={self.model or '-'}"
        return f"{text} id={self.request_id}"

    def facts(self) -> dict[str, Any]:
        """The request as a trace file holds it."""
        spans: list[dict[str, Any]] = []
        tokens: list[dict[str, Any]] = []
        for i, watch in enumerate(self.answers):
            spans += [{**span, "answer": i} for span in watch.spans(self.started)]
            tokens += [{"answer": i, **token} for token in watch.tokens]
        begun = [span["start_ms"] for span in spans]
        total = round(1e3 * self.seconds, 3)
        if begun:
            ends = [span["start_ms"] + span["ms"] for span in spans]
            spans.insert(0, {"name": "read", "answer": None, "start_ms": 0.0, "ms": round(min(begun), 3)})
            rest = max(0.0, total - max(ends))
            spans.append(
                {"name": "write", "answer": None, "start_ms": round(total - rest, 3), "ms": round(rest, 3)}
            )
        cached = [w.answer.n_cached for w in self.answers if w.answer is not None]
        return {
            "request_id": self.request_id,
            "route": self.route or self.path,
            "model": self.model,
            "status": self.status,
            "client_gone": self.gone,
            "started": datetime.datetime.fromtimestamp(self.started_at, datetime.UTC).isoformat(),
            "total_ms": total,
            "prompt_tokens": self.prompt_tokens,
            "generated_tokens": self.generated_tokens,
            "cache": {
                "enabled": any(watch.caches for watch in self.answers),
                "hit": any(cached),
                "prefix_tokens": max(cached, default=0),
            },
            "spans": spans,
            "tokens": tokens,
        }


CURRENT: contextvars.ContextVar[Record | None] = contextvars.ContextVar("tinygpt_request", default=None)


class Watch:
    """One answer as it grows, seen from the worker's thread."""

    def __init__(self, metrics: Metrics, record: Record | None) -> None:
        self.metrics, self.record = metrics, record
        self.tracing = record is not None and record.tracing
        self.answer: Answer | None = None
        self.caches = False
        self.n_tokens = 0
        self.tokens: list[dict[str, Any]] = []
        self.queued = self.last = time.perf_counter()
        self._timed: Timed | None = None

    def made(self, make: Callable[[], Request]) -> Callable[[], Request]:
        """`make`, whose constraint is timed where that is asked for."""

        def timed() -> Request:
            request = make()
            if not self.tracing or request.constraint is None:
                return request
            self._timed = Timed(request.constraint)
            return replace(request, constraint=self._timed)

        return timed if self.tracing else make

    def seen(self, deliver: Callable[[Piece], None]) -> Callable[[Piece], None]:
        """`deliver`, watched."""

        def see(piece: Piece) -> None:
            now = time.perf_counter()
            # Counted before it is told: who hears the last piece may ask for the figures at once.
            token = self._count(now) if piece.token >= 0 else {}
            if piece.finish_reason is not None:
                self._end(piece.finish_reason)
            deliver(piece)
            token["decode_ms"] = round(1e3 * (time.perf_counter() - now), 4)

        return see

    def failed(self, tell: Callable[[BaseException], None]) -> Callable[[BaseException], None]:
        """`failed`, counted."""

        def see(error: BaseException) -> None:
            self.metrics.answers.add(finish_reason="error")
            tell(error)

        return see

    def got(self, future: Future[Answer]) -> None:
        """The answer is queued, or refused."""
        if not future.cancelled() and future.exception() is None:
            self.answer = future.result()

    def _count(self, now: float) -> dict[str, Any]:
        """One more token: what the trace will say of it."""
        whole = now - self.last
        (self.metrics.between if self.n_tokens else self.metrics.first).see(
            whole if self.n_tokens else now - self.queued
        )
        token: dict[str, Any] = {}
        if self.tracing:
            constraint = self._timed.spent() if self._timed is not None else 0.0
            times = {"model_ms": max(0.0, whole - constraint), "constraint_ms": constraint, "decode_ms": 0.0}
            token = {"index": self.n_tokens} | {k: round(1e3 * v, 4) for k, v in times.items()}
            self.tokens.append(token)
        self.n_tokens += 1
        self.last = now
        return token

    def _end(self, reason: str) -> None:
        m = self.metrics
        m.answers.add(finish_reason=reason)
        m.answer_tokens.add(self.n_tokens)
        if self.answer is not None:
            m.prompt_tokens.add(len(self.answer.request.prompt))
            m.cached_tokens.add(self.answer.n_cached)
            m.cache_hits.add(bool(self.answer.n_cached))

    def spans(self, start: float) -> list[dict[str, Any]]:
        """Waiting, reading the prompt, writing the answer; in ms from `start`."""
        if self.answer is None:
            return []
        times = self.answer.times
        marks = [times.queued, times.started, times.first, times.ended]
        found: list[dict[str, Any]] = []
        for name, begun, ended in zip(("queue", "prefill", "decode"), marks, marks[1:]):
            if begun:
                ms = 1e3 * ((ended or time.perf_counter()) - begun)
                found.append({"name": name, "start_ms": round(1e3 * (begun - start), 3), "ms": round(ms, 3)})
            if not ended:
                break
        return found


class Timed:
    """A constraint whose work is timed."""

    def __init__(self, constraint: Constraint) -> None:
        self._of, self._seconds = constraint, 0.0

    def spent(self) -> float:
        """Seconds since this was last asked."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def mask(self) -> np.ndarray:
        start = time.perf_counter()
        found = self._of.mask()
        self._seconds += time.perf_counter() - start
        return found

    def take(self, token: int) -> None:
        start = time.perf_counter()
        self._of.take(token)
        self._seconds += time.perf_counter() - start

    def rollback(self, n: int) -> None:
        self._of.rollback(n)


class Watching(Worker):
    """A worker that counts what it is given, and ties it to the client's request that it is for."""

    def __init__(self, metrics: Metrics, report: Callable[[Exception], None] | None = None) -> None:
        self._metrics = metrics
        super().__init__(report)

    def submit(
        self,
        lane: Lane,
        make: Callable[[], Request],
        deliver: Callable[[Piece], None],
        failed: Callable[[BaseException], None],
    ) -> Future[Answer]:
        record = CURRENT.get()
        watch = Watch(self._metrics, record)
        watch.caches = getattr(lane, "prefixes", None) is not None
        if record is not None:
            record.answers.append(watch)
        future = super().submit(lane, watch.made(make), watch.seen(deliver), watch.failed(failed))
        future.add_done_callback(watch.got)
        return future


class Folder:
    """Where traces are written, one file a request, beside the event loop. What cannot be written is counted
    and told once."""

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        self.path, self._tell = path, tell
        self.n_lost = 0
        self._lock = threading.Lock()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{path} cannot be made: {error}", hint="choose another --trace-times") from error

    def write(self, record: Record) -> None:
        """One request's file: TIME-ID.json."""
        when = datetime.datetime.fromtimestamp(record.started_at, datetime.UTC).strftime("%Y%m%dT%H%M%S.%f")
        try:
            files.write_text(
                self.path / f"{when}-{record.request_id}.json", json.dumps(record.facts()) + "\n"
            )
        except (OSError, DataError) as error:
            with self._lock:
                self.n_lost += 1
                first = self.n_lost == 1
            if first:
                self._tell(f"traces cannot be written to {self.path}: {error}")
