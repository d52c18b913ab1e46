"""Answers that failed to come: each is counted once, whatever rows it stands in."""

from __future__ import annotations

import pytest

from tinygpt.core.errors import RemoteError
from tinygpt.core.rows import EvalRow
from tinygpt.runs.evaluate import n_failed, refuse_errors


def row(n: int, subtask: str | None = None, task: str = "t", metric: str = "m", run: str = "r") -> EvalRow:
    return EvalRow(
        model_path="", model_name="", task=task, metric=metric, score=0.0, n_examples=9, wall_seconds=0.0,
        n_failed=n, subtask=subtask, run_id=run,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "n"),
    [
        ([], 0),
        ([row(2), row(2, metric="other")], 2),
        ([row(3), row(2, "a"), row(1, "b")], 3),
        ([row(2, "a"), row(2, "b"), row(2, "a/1"), row(2, "b/x")], 4),
        ([row(1), row(5, "a", task="u")], 6),
        ([row(1), row(1, run="s")], 2),
    ],
)
def test_each_is_counted_once(rows: list[EvalRow], n: int) -> None:
    assert n_failed(rows) == n
    refuse_errors(rows, n)
    if n:
        with pytest.raises(RemoteError, match=f"{n} answers failed to come"):
            refuse_errors(rows, n - 1)
