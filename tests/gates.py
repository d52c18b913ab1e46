"""Measurements for tests of the gate: rows of a score, and the records of its examples."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Measured:
    """A row and the records that it sums up."""

    row: dict[str, Any]
    records: list[dict[str, Any]]


def measured(
    right: int | Collection[int] = 160,
    n: int = 200,
    *,
    task: str = "t",
    metric: str = "accuracy",
    records: bool = True,
    run_id: str = "",
    record: dict[str, Any] | None = None,
    **more: Any,
) -> Measured:
    """A share: the first `right` examples of `n`, or those that are named, are right."""
    correct = set(range(right)) if isinstance(right, int) else set(right)
    values = [float(i in correct) for i in range(n)]
    subtask, run_id = more.get("subtask"), run_id or str(uuid.uuid4())
    row = score(sum(values) / n, n, task=task, metric=metric, run_id=run_id, **more)
    told = [
        {"run_id": run_id, "id": str(i), "task": task, "subtasks": [subtask], "scores": {metric: value},
         **(record or {})}
        for i, value in enumerate(values)
    ]  # fmt: skip
    return Measured(row.row, told if records else [])


def score(value: float, n: int = 200, *, task: str = "t", metric: str = "loss", **more: Any) -> Measured:
    """A row without records."""
    row = {
        "run_id": str(uuid.uuid4()), "model_path": "m", "model_name": "m", "baseline": False, "task": task,
        "metric": metric, "score": value, "n_examples": n, "wall_seconds": 1.0, "data_version": "v1",
        "timestamp": "2026-01-01T00:00:00+00:00", "decoding": {"temperature": 0.0, "top_p": 1.0}, "seed": 0,
    }  # fmt: skip
    return Measured({**row, **more}, [])


def write(path: Path, given: Sequence[Measured]) -> Path:
    """The rows, and their records beside them."""
    path.write_text("".join(json.dumps(one.row) + "\n" for one in given), encoding="utf-8")
    records = [json.dumps(record) + "\n" for one in given for record in one.records]
    path.with_name(f"{path.stem}.examples.jsonl").write_text("".join(records), encoding="utf-8")
    return path
