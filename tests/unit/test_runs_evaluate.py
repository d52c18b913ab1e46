"""Answers that failed to come: each is counted once, whatever rows it stands in."""

from __future__ import annotations

import pytest

from tinygpt.core.errors import RemoteError
from tinygpt.core.rows import EvalRow
from tinygpt.runs.evaluate import n_failed, refuse_errors


def row(
    n: int, subtask: str | None = None, task: str = "t", metric: str = "m", run: str = "r", leaves: str = ""
) -> EvalRow:
    return EvalRow(
        model_path="", model_name="", task=task, metric=metric, score=0.0, n_examples=9, wall_seconds=0.0,
        n_failed=n, subtask=subtask, run_id=run, settings={"leaves": leaves.split()} if leaves else {},
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
        # lm-eval: filters of one task, members of a group, a group within a group, a task in two groups
        ([row(2, "strict", leaves="t"), row(2, "flexible", leaves="t")], 2),
        ([row(3, leaves="a b"), row(2, "a", leaves="a"), row(1, "b", leaves="b")], 3),
        ([row(3, task="u"), row(3, leaves="a b"), row(3, "a/f", leaves="a"), row(0, "b/f", leaves="b")], 6),
        ([row(3, "f", leaves="a b"), row(3, "g", leaves="a b"), row(1, "c", leaves="c")], 4),
        ([row(2, "a", "g", leaves="a"), row(2, "a", "h", leaves="a"), row(2, task="a", leaves="a")], 2),
        ([row(2, leaves="a"), row(2, leaves="a", run="s")], 4),
    ],
)
def test_each_is_counted_once(rows: list[EvalRow], n: int) -> None:
    assert n_failed(rows) == n
    refuse_errors(rows, n)
    if n:
        with pytest.raises(RemoteError, match=f"{n} answers failed to come"):
            refuse_errors(rows, n - 1)
