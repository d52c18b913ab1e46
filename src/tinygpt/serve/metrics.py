"""What a server counts of itself, as Prometheus reads it.

Source: the text format 0.0.4, prometheus.io/docs/instrumenting/exposition_formats.
"""

from __future__ import annotations

import bisect
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = tuple[tuple[str, str], ...]
FIRST = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # seconds until a first token
BETWEEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)  # seconds between two tokens
WHOLE = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0)  # seconds of a request


class Counter:
    """A number that only grows, one for each set of labels."""

    kind = "counter"

    def __init__(self, name: str, text: str) -> None:
        self.name, self.text = name, text
        self._lock = threading.Lock()
        self._values: dict[Labels, float] = {}

    def add(self, amount: float = 1.0, **labels: str) -> None:
        key = tuple(sorted(labels.items()))
        with self._lock:
            self._values[key] = self._values.get(key, 0.0) + amount

    def value(self, **labels: str) -> float:
        """What it has come to."""
        return self._values.get(tuple(sorted(labels.items())), 0.0)

    def lines(self) -> Iterable[str]:
        with self._lock:
            values = dict(self._values) or {(): 0.0}
        for key, value in values.items():
            yield _line(self.name, key, value)


class Gauge:
    """Numbers that are asked for when they are read: `read` gives (labels, value) of each."""

    kind = "gauge"

    def __init__(
        self, name: str, text: str, read: Callable[[], Iterable[tuple[dict[str, str], float]]]
    ) -> None:
        self.name, self.text, self._read = name, text, read

    def lines(self) -> Iterable[str]:
        for labels, value in self._read():
            yield _line(self.name, tuple(sorted(labels.items())), value)


class Histogram:
    """How many values were at most each bound, one for each set of labels."""

    kind = "histogram"

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self.name, self.text, self.bounds = name, text, tuple(bounds)
        self._lock = threading.Lock()
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def see(self, value: float, **labels: str) -> None:
        key = tuple(sorted(labels.items()))
        at = bisect.bisect_left(self.bounds, value)
        with self._lock:
            if key not in self._counts:
                self._counts[key] = [0] * (len(self.bounds) + 1)
            self._counts[key][at] += 1
            self._sums[key] = self._sums.get(key, 0.0) + value

    def count(self, **labels: str) -> int:
        """How many were seen."""
        return sum(self._counts.get(tuple(sorted(labels.items())), ()))

    def lines(self) -> Iterable[str]:
        with self._lock:
            seen = [(key, list(counts), self._sums[key]) for key, counts in self._counts.items()]
        for key, counts, total in seen:
            for bound, n in zip((*map(str, self.bounds), "+Inf"), itertools.accumulate(counts), strict=True):
                yield _line(f"{self.name}_bucket", (*key, ("le", bound)), n)
            yield _line(f"{self.name}_sum", key, total)
            yield _line(f"{self.name}_count", key, sum(counts))


class Metrics:
    """All of a server's figures."""

    def __init__(self) -> None:
        self.started = time.time()
        self.requests = Counter("tinygpt_requests_total", "Requests by route and status.")
        self.seconds = Histogram("tinygpt_request_seconds", "Time of a request, stream included.", WHOLE)
        self.prompt_tokens = Counter("tinygpt_prompt_tokens_total", "Tokens of prompts.")
        self.cached_tokens = Counter("tinygpt_cached_tokens_total", "Of these, taken from the prefix cache.")
        self.answer_tokens = Counter("tinygpt_answer_tokens_total", "Tokens that were written.")
        self.answers = Counter("tinygpt_answers_total", "Answers by how they ended.")
        self.cache_hits = Counter("tinygpt_prefix_hits_total", "Prompts of which a part was cached.")
        self.drafted = Counter("tinygpt_drafted_tokens_total", "Tokens proposed by speculation.")
        self.accepted = Counter("tinygpt_accepted_tokens_total", "Of these, accepted.")
        self.first = Histogram("tinygpt_first_token_seconds", "From queueing to the first token.", FIRST)
        self.between = Histogram("tinygpt_token_seconds", "Between two tokens of an answer.", BETWEEN)
        self.gauges: list[Gauge] = [
            Gauge("tinygpt_start_time_seconds", "When the server began.", lambda: [({}, self.started)])
        ]

    def gauge(self, name: str, text: str, read: Callable[[], Iterable[tuple[dict[str, str], float]]]) -> None:
        """One more figure that is asked for when it is read."""
        self.gauges.append(Gauge(name, text, read))

    def text(self) -> str:
        """Everything, in Prometheus's form."""
        out: list[str] = []
        for one in [v for v in vars(self).values() if isinstance(v, Counter | Histogram)] + self.gauges:
            out += [f"# HELP {one.name} {one.text}", f"# TYPE {one.name} {one.kind}", *one.lines()]
        return "\n".join(out) + "\n"


def _line(name: str, labels: Labels, value: float) -> str:
    inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
    number = str(int(value)) if float(value).is_integer() else repr(float(value))
    return f"{name}{{{inside}}} {number}" if inside else f"{name} {number}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
