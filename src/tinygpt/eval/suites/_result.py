"""What suites share: examples with a version, rows with an interval, a record of every example."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import tinygpt
from tinygpt.core.errors import DataError
from tinygpt.core.rows import EvalRow, wilson
from tinygpt.eval.endpoint import GREEDY, Identity, Reply, Sampling
from tinygpt.eval.pooled import figure


@dataclass(frozen=True, kw_only=True)
class Examples:
    """What a suite asks. `version` hashes the content, so that scores on other data are never mixed up."""

    items: list[dict[str, Any]]
    version: str
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ids = Counter(item["id"] for item in self.items if "id" in item)
        if twice := next((id for id, n in ids.items() if n > 1), None):
            raise DataError(
                f"two examples have the id {twice}, so no comparison could tell them apart",
                hint="give each an id of its own, or leave one out",
            )

    @staticmethod
    def of(items: list[dict[str, Any]], notes: Sequence[str] = ()) -> Examples:
        """Examples of JSON data."""
        return Examples(items=items, version=version(items), notes=tuple(notes))


@dataclass(frozen=True, kw_only=True)
class SuiteResult:
    """Rows for comparison and gates, and what happened to each example: "scores" says what it counts for
    in which metric, "weights" how much where not all count the same, "pooled" what it brings to a figure
    over all examples, "task" and "subtasks" in which rows."""

    rows: list[EvalRow]
    examples: list[dict[str, Any]] = field(default_factory=list)


def version(items: Any) -> str:
    """12 hex digits of the content. DataError where it holds what no tokenizer could read."""
    text = json.dumps(items, ensure_ascii=False, sort_keys=True, default=str)
    try:
        return hashlib.sha256(text.encode()).hexdigest()[:12]
    except UnicodeEncodeError as error:
        near = ascii(text[max(0, error.start - 30) : error.end])
        raise DataError(
            f"the examples hold half of a surrogate pair: {near}", hint="repair the text there"
        ) from error


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def seconds(self) -> float:
        return round(time.perf_counter() - self._start, 3)


def row(
    endpoint: Identity,
    task: str,
    metric: str,
    score: float,
    n: int,
    seconds: float,
    data_version: str,
    sampling: Sampling = GREEDY,
    **more: Any,
) -> EvalRow:
    """A row about an endpoint."""
    return EvalRow(
        model_path=endpoint.path, model_name=endpoint.name, model_step=endpoint.step,
        model_hash=endpoint.model_hash, baseline=endpoint.baseline,
        task=task, metric=metric, score=score, n_examples=n, wall_seconds=seconds, data_version=data_version,
        harness_version=f"tinygpt {tinygpt.__version__}", seed=sampling.seed,
        decoding={"temperature": sampling.temperature, "top_p": sampling.top_p}, **{**endpoint.facts, **more},
    )  # fmt: skip


def share(
    endpoint: Identity,
    task: str,
    metric: str,
    examples: Sequence[dict[str, Any]],
    seconds: float,
    data_version: str,
    *,
    key: str = "correct",
    **more: Any,
) -> EvalRow:
    """A row with the share of examples whose `key` is true, with its Wilson interval.

    Failed and truncated examples count as what they are (nearly always wrong); how many there were is in the
    row.
    """
    right = sum(bool(e[key]) for e in examples)
    interval = wilson(right, len(examples))
    return mean(endpoint, task, metric, examples, seconds, data_version, key=key, interval=interval, **more)


def mean(
    endpoint: Identity,
    task: str,
    metric: str,
    examples: Sequence[dict[str, Any]],
    seconds: float,
    data_version: str,
    *,
    key: str,
    subtask: str | None = None,
    interval: tuple[float, float] | None = None,
    bounded: bool = True,
    **more: Any,
) -> EvalRow:
    """A row with the mean of what examples have under `key`; the interval is a bootstrap's where none is
    given. `bounded`: the values are from 0 to 1. The examples are marked with the row that they count in."""
    values = [float(e[key]) for e in examples]
    for example, value in zip(examples, values, strict=True):
        example.setdefault("scores", {})[metric] = value
    n = len(values)
    score = math.fsum(values) / n if n else 0.0
    interval = interval or _honest(bootstrap(values), n, bounded)
    return row(
        endpoint, task, metric, score, n, seconds, data_version, interval=interval,
        **_counted(examples, task, subtask), **more,
    )  # fmt: skip


def of_all(
    endpoint: Identity,
    task: str,
    metric: str,
    examples: Sequence[dict[str, Any]],
    seconds: float,
    data_version: str,
    how: str,
    part: Callable[[dict[str, Any]], Any],
    *,
    subtask: str | None = None,
    draws: int = 400,
    bounded: bool = True,
    **more: Any,
) -> EvalRow:
    """A row with a figure that is no mean over examples, such as a pooled precision: a statistic of `pooled`
    and each example's part of it, which its record says; the interval is that of the figure over examples
    drawn again (Efron 1979). `bounded`: it is from 0 to 1."""
    import numpy as np

    parts, n, generator = [part(example) for example in examples], len(examples), np.random.default_rng(0)
    for example, mine in zip(examples, parts):
        example.setdefault("pooled", {})[metric] = {"how": how, "part": mine}
    score = figure(how, parts)
    interval = None
    if n > 1:
        drawn = [figure(how, [parts[i] for i in generator.integers(0, n, n)]) for _ in range(draws)]
        low, high = (float(x) for x in np.quantile(drawn, [0.025, 0.975]))
        interval = _honest((min(low, score), max(high, score)), n, bounded)  # it is biased in samples
    return row(
        endpoint, task, metric, score, n, seconds, data_version, interval=interval,
        **_counted(examples, task, subtask), **more,
    )  # fmt: skip


def _honest(interval: tuple[float, float] | None, n: int, bounded: bool) -> tuple[float, float] | None:
    """The interval; where examples are all right or all wrong, so that drawing them again tells nothing, that
    of a share."""
    if not bounded or interval not in ((0.0, 0.0), (1.0, 1.0)):
        return interval
    score, (low, high) = interval[0], wilson(interval[0] * n, n)
    return min(low, score), max(high, score)


def _counted(examples: Sequence[dict[str, Any]], task: str, subtask: str | None) -> dict[str, Any]:
    """Mark the examples with the row that they count in; its fields about them."""
    for example in examples:
        example["task"] = task
        marked = example.setdefault("subtasks", [])
        if subtask not in marked:
            marked.append(subtask)
    ended = [example["finish_reason"] for example in examples]
    return {"subtask": subtask, "n_failed": ended.count("error"), "n_truncated": ended.count("length")}


def bootstrap(
    values: Sequence[float], weights: Sequence[float] | None = None, *, draws: int = 2000, seed: int = 0
) -> tuple[float, float] | None:
    """The 95 % percentile interval of a (weighted) mean by bootstrap (Efron 1979); None of fewer than two
    values."""
    import numpy as np

    if len(values) < 2:
        return None
    weight = np.ones(len(values)) if weights is None else np.asarray(weights, float)
    total, generator = np.asarray(values, float) * weight, np.random.default_rng(seed)
    means: list[float] = []
    for _ in range(draws):  # one after the other: memory does not grow with draws times values
        drawn = generator.integers(0, len(total), len(total))
        means.append(float(total[drawn].sum() / max(weight[drawn].sum(), 1e-12)))
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def record(id: str, correct: bool, reply: Reply, **more: Any) -> dict[str, Any]:
    """What happened to one example; an answer that did not come is never right."""
    correct = correct and not reply.error
    found = {"id": id, "correct": correct, "finish_reason": reply.finish_reason, "n_tokens": reply.n_tokens}
    return found | ({"error": reply.error} if reply.error else {}) | more
