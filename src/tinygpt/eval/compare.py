"""Rows side by side: tasks against models, steps against tasks, or a ranking, as plain data for any renderer.

Unlike things are never averaged: a line is one task, subtask, metric and version of the data. Several rows of
one model in one line (reruns, seeds) become their mean with its 95 % interval; one row keeps the interval it
was measured with. Where the records of two models tell of the same examples, the models are compared example
by example (`differences`).
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from tinygpt.core.errors import ConfigError, DataError, unknown
from tinygpt.core.rows import EvalRow, wilson
from tinygpt.eval import paired, pooled
from tinygpt.eval.gate.evidence import Key, Side
from tinygpt.eval.pooled import Pooled

K = TypeVar("K")

VIEWS = ("model", "step", "task")
# A metric whose name holds one of these words gets better as it falls.
LOWER = (
    "ppl", "perplexity", "loss", "nll", "bits_per_byte", "brier", "mse", "rmse", "mae", "ter", "latency",
    "seconds", "ms", "ttft", "itl", "rss", "memory", "error", "wer", "cer", "over_escalation", "kept_ratio",
    "bias", "verbatim",
)  # fmt: skip
# Such a metric is no share of examples either, even where it lies between 0 and 1.
UNBOUNDED = tuple(word for word in LOWER if word not in ("error", "wer", "cer", "verbatim"))


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number: a score, the mean of `n_rows` scores, or a difference with its two-sided `p`. `n` counts
    examples (of one row, when they agree)."""

    score: float
    low: float | None
    high: float | None
    n: int
    n_rows: int
    n_failed: int
    n_truncated: int
    p: float | None = None


@dataclass(frozen=True, kw_only=True)
class Line:
    """One task, or one step or model in the other views. `cells` follow the table's columns; None: not
    measured."""

    label: str
    metric: str
    lower_is_better: bool
    cells: tuple[Cell | None, ...]
    best: int | None
    """Column of the best score; None when fewer than two columns have one."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A view of rows. In the task view each table ranks the models of one task."""

    title: str
    first: str
    """Heading of the labels."""
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()
    kind: str = "scores"
    """Or "differences"."""


@dataclass(frozen=True)
class _Key:
    """What may share a line."""

    task: str
    subtask: str | None
    metric: str
    data_version: str | None


def lower_is_better(metric: str) -> bool:
    """Whether a smaller score of this metric is the better one."""
    return _names(metric, LOWER)


def unbounded(metric: str) -> bool:
    """Whether its scores are amounts (a loss, seconds, memory), of which a difference is no percentage
    points."""
    return _names(metric, UNBOUNDED)


def _names(metric: str, words: Sequence[str]) -> bool:
    name = metric.lower().replace("-", "_")
    return any(name == word or f"_{word}_" in f"_{name}_" for word in words)


def compare(rows: Sequence[EvalRow], by: str = "model", *, sort: bool = False) -> list[Table]:
    """Tables of rows: by "model" (task x model, baselines first), "step" (step x task of the model with most
    rows) or "task" (a ranking of models for each task). `sort` orders the models by their name instead of
    first seen.
    """
    if by not in VIEWS:
        raise unknown("view", by, VIEWS)
    if not rows:
        raise DataError("there is no eval row to compare", hint="`tinygpt eval --out rows.jsonl` writes some")
    return {"model": _by_model, "step": _by_step, "task": _by_task}[by](rows, sort)


def _by_model(rows: Sequence[EvalRow], sort: bool) -> list[Table]:
    models = _models(rows, sort)
    label = _labels(rows)
    lines = []
    for key, mine in _groups(rows, _key):
        cells = [_cell([r for r in mine if r.model_name == model]) for model in models]
        lines.append(_line(label[key], key.metric, cells))
    return [Table(title="", first="task", columns=tuple(models), lines=tuple(lines), notes=_notes(rows))]


def _by_step(rows: Sequence[EvalRow], sort: bool) -> list[Table]:
    with_step = [r for r in rows if r.model_step is not None]
    if not with_step:
        raise ConfigError("no row says at which step its model was", hint="compare by model or task")
    counts = {model: len(mine) for model, mine in _groups(with_step, lambda r: r.model_name)}
    model = max(counts, key=lambda name: counts[name])
    mine = [r for r in with_step if r.model_name == model]
    label, keys = _labels(mine), list(dict.fromkeys(map(_key, mine)))
    lines = []
    for step in sorted({r.model_step for r in mine if r.model_step is not None}):
        here = [r for r in mine if r.model_step == step]
        cells = tuple(_cell([r for r in here if _key(r) == key]) for key in keys)
        # The columns are different metrics: no cell of a line is better than its neighbour.
        lines.append(Line(label=str(step), metric="", lower_is_better=False, cells=cells, best=None))
    columns = tuple(f"{label[key]} {key.metric}" for key in keys)
    others = sorted(set(counts) - {model})
    notes = (f"shown is the model with most rows; left out: {', '.join(others)}",) if others else ()
    notes += tuple(_rose(lines, i, name, keys[i].metric) for i, name in enumerate(columns))
    return [Table(title=model, first="step", columns=columns, lines=tuple(lines), notes=notes + _notes(mine))]


def _rose(lines: Sequence[Line], column: int, name: str, metric: str) -> str:
    """When an ability appeared: the first step from which on every interval is clear of the first step's."""
    cells = [(line.label, cell) for line in lines if (cell := line.cells[column]) is not None]
    sign = -1 if lower_is_better(metric) else 1
    known = [(label, min(sign * c.low, sign * c.high), max(sign * c.low, sign * c.high)) for label, c in cells
             if c.low is not None and c.high is not None]  # fmt: skip
    since = ""
    for label, low, _ in reversed(known[1:]):
        if low <= known[0][2]:
            break
        since = label
    if not known:
        return f"{name}: no intervals, so nothing says when it rose"
    first = f"that of step {known[0][0]}"
    return f"{name}: clear of {first} from step {since} on" if since else f"{name}: not clear of {first}"


def _by_task(rows: Sequence[EvalRow], sort: bool) -> list[Table]:
    label, tables = _labels(rows), []
    for key, mine in _groups(rows, _key):
        lower = lower_is_better(key.metric)
        ranked = [(model, _cell(group)) for model, group in _groups(mine, lambda r: r.model_name)]
        ranked.sort(key=lambda item: item[1].score if item[1] else 0.0, reverse=not lower)
        lines = tuple(
            Line(label=model, metric=key.metric, lower_is_better=lower, cells=(cell,), best=None)
            for model, cell in ranked
        )
        tables.append(
            Table(title=label[key], first="model", columns=(key.metric,), lines=lines, notes=_notes(mine))
        )
    return tables


def differences(
    rows: Sequence[EvalRow], records: Sequence[dict[str, Any]], *, sort: bool = False
) -> list[Table]:
    """Each model minus the first one (baselines come first), paired by example, where records of both tell of
    the same examples: the difference, its 95 % interval, and p. Nothing where no two models share any."""
    models, label = _models(rows, sort), _labels(rows)
    lines: list[Line] = []
    notes: dict[str, None] = {}
    for key, mine in _groups(rows, _key):
        scores: dict[str, Any] = {}
        for model, group in _groups(mine, lambda r: r.model_name):
            try:
                side = Side(rows=group, records=records)
                key_of = Key.of(group[0])
                scores[model] = side.scores(key_of, group) or side.pooled(key_of, group)
            except DataError as error:
                notes[f"{label[key]} of {model}: {error.message}"] = None
        first = scores.get(models[0])
        cells = [_minus(scores.get(model), first) for model in models[1:]]
        if any(cells):
            lower = lower_is_better(key.metric)
            line = Line(
                label=label[key], metric=key.metric, lower_is_better=lower, cells=tuple(cells), best=None
            )
            lines.append(line)
    if not lines:
        return []
    told = ("paired by example; p is two-sided and of each comparison alone", *notes)
    title, columns = f"difference from {models[0]}", tuple(models[1:])
    return [
        Table(title=title, first="task", columns=columns, lines=tuple(lines), notes=told, kind="differences")
    ]


Told = dict[str, float] | Pooled | None


def _minus(new: Told, old: Told) -> Cell | None:
    if isinstance(new, Pooled) and isinstance(old, Pooled):
        new, old = new.only(old), old.only(new)
        ids = list(old.passes[0])
        found = pooled.change(new, old) if ids and new.how == old.how else None
    elif isinstance(new, dict) and isinstance(old, dict):
        ids = [id for id in old if id in new]
        found = paired.change([new[id] for id in ids], [old[id] for id in ids]) if ids else None
    else:
        return None
    if found is None:
        return None
    return Cell(
        score=found.value, low=found.low, high=found.high, p=found.p,
        n=len(ids), n_rows=1, n_failed=0, n_truncated=0,
    )  # fmt: skip


def with_intervals(rows: Sequence[EvalRow], records: Sequence[dict[str, Any]]) -> list[EvalRow]:
    """The rows; one without an interval gets that of its records: Wilson's of right and wrong, a bootstrap's
    of other scores."""
    from tinygpt.eval.suites._result import bootstrap

    side, found = Side(rows=rows, records=records), list[EvalRow]()
    for row in rows:
        try:
            scores = None if row.interval else side.scores(Key.of(row), [row])
        except DataError:
            scores = None  # `differences` says what is wrong with them
        values = list((scores or {}).values())
        if values and set(values) <= {0.0, 1.0}:
            row = dataclasses.replace(row, interval=wilson(sum(values), len(values)))
        elif values:
            row = dataclasses.replace(row, interval=bootstrap(values))
        found.append(row)
    return found


def _models(rows: Sequence[EvalRow], sort: bool) -> list[str]:
    """Model names, baselines first."""
    names = dict.fromkeys(r.model_name for r in rows)
    ordered = sorted(names) if sort else list(names)
    baselines = {r.model_name for r in rows if r.baseline}
    return sorted(ordered, key=lambda name: name not in baselines)


def _key(row: EvalRow) -> _Key:
    return _Key(row.task, row.subtask, row.metric, row.data_version)


def _labels(rows: Iterable[EvalRow]) -> dict[_Key, str]:
    """task/subtask, with the data's version only where the same task was measured on several."""
    keys = list(dict.fromkeys(map(_key, rows)))
    labels = {}
    for key in keys:
        alike = [k for k in keys if (k.task, k.subtask, k.metric) == (key.task, key.subtask, key.metric)]
        name = f"{key.task}/{key.subtask}" if key.subtask else key.task
        labels[key] = f"{name} @{key.data_version or 'unknown data'}" if len(alike) > 1 else name
    return labels


def _groups(rows: Iterable[EvalRow], key: Callable[[EvalRow], K]) -> list[tuple[K, list[EvalRow]]]:
    """Rows by key, in the order of first sight."""
    found: dict[K, list[EvalRow]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return list(found.items())


def _cell(rows: Sequence[EvalRow]) -> Cell | None:
    """One row as it is, or the mean of several: mean +- 1.96 s / sqrt(k), and no narrower than the mean of
    their own intervals, since runs that agree say nothing about other examples."""
    if not rows:
        return None
    scores = [r.score for r in rows]
    if len(rows) == 1:
        low, high = rows[0].interval or (None, None)
    else:
        half = 1.96 * _spread(scores) / len(rows) ** 0.5
        low, high = _mean(scores) - half, _mean(scores) + half
        if len(own := [row.interval for row in rows if row.interval]) == len(rows):
            lows, highs = zip(*own)
            low, high = min(low, _mean(lows)), max(high, _mean(highs))
        if not (math.isfinite(low) and math.isfinite(high)):
            low, high = None, None
    return Cell(
        score=_mean(scores),
        low=low,
        high=high,
        n=max(r.n_examples for r in rows),
        n_rows=len(rows),
        n_failed=sum(r.n_failed for r in rows),
        n_truncated=sum(r.n_truncated for r in rows),
    )


def _mean(values: Sequence[float]) -> float:
    """Also of numbers whose sum is beyond all floats."""
    try:
        return statistics.fmean(values)
    except OverflowError:
        return math.fsum(value / len(values) for value in values)


def _spread(values: Sequence[float]) -> float:
    """The standard deviation; infinite where it is beyond all floats."""
    try:
        return statistics.stdev(values)
    except OverflowError:
        return math.inf


def _line(label: str, metric: str, cells: Sequence[Cell | None]) -> Line:
    lower = lower_is_better(metric)
    scored = [(cell.score, i) for i, cell in enumerate(cells) if cell is not None]
    best = None
    if len(scored) > 1:
        score = min(scored)[0] if lower else max(scored)[0]
        # A tie has no winner.
        winners = [i for value, i in scored if value == score]
        best = winners[0] if len(winners) == 1 else None
    return Line(label=label, metric=metric, lower_is_better=lower, cells=tuple(cells), best=best)


def _notes(rows: Sequence[EvalRow]) -> tuple[str, ...]:
    """What a reader must know before believing the numbers."""
    failed, cut = sum(r.n_failed for r in rows), sum(r.n_truncated for r in rows)
    found = []
    if failed or cut:
        found.append(f"{failed} answers failed and {cut} were cut off; they count as they are")
    hashes: dict[str, set[str | None]] = {}
    for row in rows:
        hashes.setdefault(row.model_name, set()).add(row.model_hash)
    mixed = sorted(name for name, values in hashes.items() if len(values - {None}) > 1)
    if mixed:
        found.append(f"rows of different weights share a name: {', '.join(mixed)}")
    return tuple(found)
