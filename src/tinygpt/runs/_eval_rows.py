"""The rows of several files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tinygpt.core.errors import DataError
from tinygpt.core.rows import EvalRow, read_rows


def read(files: Sequence[Path], *, strict: bool = False) -> tuple[list[EvalRow], list[str]]:
    """The rows of files, and a sentence for each line that is none."""
    rows: list[EvalRow] = []
    invalid: list[str] = []
    for path in files:
        found, bad = read_rows(path)
        rows += found
        invalid += bad
    if strict and invalid:
        raise DataError(f"{len(invalid)} lines are not eval rows; first: {invalid[0]}")
    if not rows:
        why = "; ".join(invalid[:3]) or "`tinygpt eval --out rows.jsonl` writes some"
        raise DataError("no line of the files is an eval row", hint=why)
    once = {
        (row.run_id, row.model_name, row.model_step, row.task, row.subtask, row.metric): row for row in rows
    }
    if more := len(rows) - len(once):
        invalid.append(f"{more} rows are there twice, and count once: no run has two of one metric")
    return list(once.values()), invalid
