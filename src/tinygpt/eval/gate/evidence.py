"""What rows and records of examples say about one score, and every reason not to believe them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tinygpt.core.errors import DataError
from tinygpt.core.rows import EvalRow
from tinygpt.eval.pooled import Pooled, figure


@dataclass(frozen=True, order=True)
class Key:
    """What is judged: one metric of one task or subtask."""

    task: str
    subtask: str
    metric: str

    @staticmethod
    def of(row: EvalRow) -> Key:
        return Key(row.task, row.subtask or "", row.metric)

    def __str__(self) -> str:
        return "::".join((self.task, self.subtask, self.metric))


@dataclass(frozen=True, kw_only=True)
class Side:
    """The candidate or the baseline: rows, and records of their examples. A suite that is run K times has K
    rows for each key."""

    rows: Sequence[EvalRow]
    records: Sequence[dict[str, Any]] = ()
    _by_run: dict[str, list[dict[str, Any]]] = field(default_factory=dict[str, list[dict[str, Any]]])

    def __post_init__(self) -> None:
        for record in self.records:
            self._by_run.setdefault(str(record.get("run_id")), []).append(record)

    def scored(self) -> list[Key]:
        """In the order of first sight."""
        return list(dict.fromkeys(map(Key.of, self.rows)))

    def passes(self, key: Key, *, last: bool = False) -> list[EvalRow]:
        """The rows of a key; with `last` those of the model that was measured last."""
        found = [row for row in self.rows if Key.of(row) == key]
        return [row for row in found if _who(row) == _who(found[-1])] if last and found else found

    def scores(self, key: Key, rows: Sequence[EvalRow]) -> dict[str, float] | None:
        """Each example's part of the score, the mean over the passes: its own score, times its weight over
        the mean one where they weigh unlike. None where records do not tell. DataError where they contradict
        the rows."""
        try:
            found = [self._of_pass(key, row) for row in rows]
        except OverflowError as error:
            raise DataError(f"the records' scores of {key.metric} are too large for a mean") from error
        if not found or not all(found):
            return None
        if any(one.keys() != found[0].keys() for one in found):
            raise DataError("the passes have different examples")
        return {id: statistics.fmean(one[id] for one in found) for id in found[0]}

    def pooled(self, key: Key, rows: Sequence[EvalRow]) -> Pooled | None:
        """The parts of a figure over all examples, in each pass. None where records do not tell. DataError
        where they contradict the rows."""
        found = [self._records(key, row, "pooled") for row in rows]
        if not found or not all(found):
            return None
        told = [one["pooled"][key.metric] for records in found for one in records.values()]
        if not all(isinstance(one, dict) and {"how", "part"} <= one.keys() for one in told):
            raise DataError(f"the records' parts of {key.metric} have no 'how' and 'part'")
        if len(hows := {str(one["how"]) for one in told}) > 1:
            raise DataError(f"the records name several statistics of {key.metric}: {', '.join(sorted(hows))}")
        passes = [{id: one["pooled"][key.metric]["part"] for id, one in records.items()} for records in found]
        if any(one.keys() != passes[0].keys() for one in passes):
            raise DataError("the passes have different examples")
        for parts, row in zip(passes, rows):
            again = figure(min(hows), list(parts.values()))
            if not math.isclose(again, row.score, rel_tol=1e-6, abs_tol=1e-6):
                raise DataError(f"the records give {again:.6g}, the row {row.score:.6g}")
        return Pooled(how=min(hows), passes=passes)

    def _records(self, key: Key, row: EvalRow, field: str) -> dict[str, dict[str, Any]]:
        """The records of a row that tell of its metric under `field`, by id."""
        found: dict[str, dict[str, Any]] = {}
        for record in self._by_run.get(row.run_id, []):
            told = record.get(field)
            mine = record.get("task") == key.task and key.subtask in [
                s or "" for s in record.get("subtasks") or [None]
            ]
            if not mine or not isinstance(told, dict) or key.metric not in told:
                continue
            id = str(record.get("id"))
            if id in found:
                raise DataError(f"two records of one run have the id {id}")
            found[id] = record
        if found and len(found) != row.n_examples:
            raise DataError(f"there are records of {len(found)} examples, the row has {row.n_examples}")
        return found

    def _of_pass(self, key: Key, row: EvalRow) -> dict[str, float]:
        found: dict[str, float] = {}
        weights: dict[str, float] = {}
        for id, record in self._records(key, row, "scores").items():
            score = record["scores"][key.metric]
            if not isinstance(score, int | float) or not math.isfinite(score):
                raise DataError(f"the record of example {id} has the score {score!r}")
            found[id], weights[id] = float(score), float((record.get("weights") or {}).get(key.metric, 1))
        if not found:
            return found
        usual = statistics.fmean(weights.values())
        if not (math.isfinite(usual) and usual > 0):
            raise DataError(f"the records of {key.metric} have no weight")
        found = {id: score * weights[id] / usual for id, score in found.items()}
        mean = statistics.fmean(found.values())
        if not math.isclose(mean, row.score, rel_tol=1e-6, abs_tol=1e-6):
            raise DataError(f"the records' mean is {mean:.6g}, the row's {row.score:.6g}")
        return found


def _who(row: EvalRow) -> tuple[Any, ...]:
    return row.model_name, row.model_hash, row.adapter_hash, row.model_step


def trouble(rows: Sequence[EvalRow]) -> str:
    """Why rows of one key are no measurement; empty where they are one."""
    failed = sum(row.n_failed for row in rows)
    if failed:
        return f"{failed} answers failed to come"
    if any(row.n_examples < 1 for row in rows):
        return "a row has no examples"
    for what, values in {
        "models": {_who(row) for row in rows},
        "numbers of examples": {row.n_examples for row in rows},
        "versions of the data": {row.data_version for row in rows},
    }.items():
        if len(values) > 1:
            return f"its rows have different {what}: {', '.join(sorted(map(_told, values)))}"
    ids = [row.run_id for row in rows]
    if len(set(ids)) < len(ids):
        return "one run has two rows of it"
    return ""


def _told(value: Any) -> str:
    return "/".join(str(v)[:12] for v in value if v is not None) if isinstance(value, tuple) else str(value)


def unlike(candidate: EvalRow, baseline: EvalRow) -> str:
    """Why two rows cannot be compared; empty where they can."""
    if candidate.data_version != baseline.data_version:
        return f"its data has the version {candidate.data_version}, the baseline's {baseline.data_version}"
    if candidate.n_examples < baseline.n_examples:
        return f"it has {candidate.n_examples} examples, the baseline {baseline.n_examples}"
    return ""


def conditions(candidate: EvalRow, baseline: EvalRow) -> list[str]:
    """What was not alike when the two were measured, for the reader."""
    found = ["it is the baseline's own run"] if candidate.run_id == baseline.run_id else []
    for name in ("decoding", "template_hash", "harness_version", "seed"):
        was, now = getattr(baseline, name), getattr(candidate, name)
        if was and now and was != now:
            found.append(f"another {name.replace('_', ' ')} than the baseline's")
    settings = sorted(
        k for k in baseline.settings.keys() & candidate.settings.keys()
        if k != "notes" and baseline.settings[k] != candidate.settings[k]
    )  # fmt: skip
    return [*found, *([f"other settings than the baseline's: {', '.join(settings)}"] if settings else [])]
