"""What suites share: examples with a version, rows with an interval, a record of every example."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import tinygpt
from tinygpt.core.rows import EvalRow, wilson
from tinygpt.eval.endpoint import Endpoint, Reply


@dataclass(frozen=True, kw_only=True)
class Examples:
    """What a suite asks. `version` hashes the content, so that scores on other data are never mixed up."""

    items: list[dict[str, Any]]
    version: str
    notes: tuple[str, ...] = ()

    @staticmethod
    def of(items: list[dict[str, Any]], notes: Sequence[str] = ()) -> Examples:
        """Examples of JSON data."""
        return Examples(items=items, version=version(items), notes=tuple(notes))


@dataclass(frozen=True, kw_only=True)
class SuiteResult:
    """Rows for comparison and gates, and what happened to each example."""

    rows: list[EvalRow]
    examples: list[dict[str, Any]] = field(default_factory=list)


def version(items: Any) -> str:
    """12 hex digits of the content."""
    text = json.dumps(items, ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def seconds(self) -> float:
        return round(time.perf_counter() - self._start, 3)


def row(
    endpoint: Endpoint,
    task: str,
    metric: str,
    score: float,
    n: int,
    seconds: float,
    data_version: str,
    **more: Any,
) -> EvalRow:
    """A row about an endpoint."""
    return EvalRow(
        model_path=endpoint.path, model_name=endpoint.name, model_step=endpoint.step,
        model_hash=endpoint.model_hash, baseline=endpoint.baseline,
        task=task, metric=metric, score=score, n_examples=n, wall_seconds=seconds, data_version=data_version,
        harness_version=f"tinygpt {tinygpt.__version__}", **more,
    )  # fmt: skip


def share(
    endpoint: Endpoint,
    task: str,
    metric: str,
    examples: Sequence[dict[str, Any]],
    seconds: float,
    data_version: str,
    **more: Any,
) -> EvalRow:
    """A row with the share of examples whose "correct" is true, with its Wilson interval.

    Failed and truncated examples count as what they are (nearly always wrong); how many there were is in the
    row.
    """
    n, right = len(examples), sum(bool(e["correct"]) for e in examples)
    return row(
        endpoint, task, metric, right / n if n else 0.0, n, seconds, data_version, interval=wilson(right, n),
        n_failed=sum(e["finish_reason"] == "error" for e in examples),
        n_truncated=sum(e["finish_reason"] == "length" for e in examples), **more,
    )  # fmt: skip


def record(id: str, correct: bool, reply: Reply, **more: Any) -> dict[str, Any]:
    """What happened to one example."""
    found = {"id": id, "correct": correct, "finish_reason": reply.finish_reason, "n_tokens": reply.n_tokens}
    return found | ({"error": reply.error} if reply.error else {}) | more
