"""The files of a gate: rows with their records, the baseline, and what may be overwritten."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinygpt.core.config import flag
from tinygpt.core.errors import ConfigError
from tinygpt.core.files import write_text
from tinygpt.core.rows import beside, read_rows, write_rows
from tinygpt.eval.gate.evidence import Key, Side
from tinygpt.eval.gate.report import SUMMARY_MARKS

TOLD = 3  # bad lines that are shown; all are counted
# How the files of a gate begin, any gate's: they may be replaced.
STARTS = {
    "summary": tuple(f"## {mark} Eval gate: " for mark in SUMMARY_MARKS),
    "junit": ('<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>',),
}


def side(path: Path) -> tuple[Side, list[str]]:
    """Rows and the records beside them, and a sentence for each line that is neither."""
    rows, bad = read_rows(path)
    records, unread = read_records(beside(path))
    if more := len(bad) - TOLD:
        bad = [*bad[:TOLD], f"{path}: {more} more lines are no rows"] if more > 0 else bad
    return Side(rows=rows, records=records), bad + unread[:TOLD]


def read_records(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The records of a file, none where there is no file, and a sentence for each line that is not one."""
    if not path.is_file():
        return [], []
    found: list[dict[str, Any]] = []
    bad: list[str] = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        return [], [f"{path}: {error}"]
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            bad.append(f"{path}:{number}: not JSON: {error}")
            continue
        if isinstance(record, dict) and {"run_id", "id"} <= record.keys():
            found.append(record)
        else:
            bad.append(f"{path}:{number}: no record of an example, it lacks run_id or id")
    return found, bad


def check_outputs(files: Mapping[str, Path], read: Mapping[str, Path]) -> None:
    """No file that is not a gate's result is replaced by one, and none is named twice."""
    for name, path in files.items():
        if path.is_dir():
            raise ConfigError(f"{flag(name)}: {path} is a directory", hint="name a file")
        for other, its in {**files, **read}.items():
            if other != name and its.resolve() == path.resolve():
                raise ConfigError(
                    f"{flag(name)} and {flag(other)} both name {path}", hint="give each its own"
                )
    for name, path in files.items():
        if path.is_file() and path.stat().st_size and not _is_result(name, path):
            raise ConfigError(
                f"{flag(name)}: {path} exists and is no result of a gate", hint="give another file"
            )


def _is_result(name: str, path: Path) -> bool:
    """Whether a gate wrote it: its JSON, its summary or its XML."""
    try:
        text = path.read_text(encoding="utf-8")
        if name != "out":
            return text.startswith(STARTS[name])
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {"suites", "passed"} <= found.keys()


def check_baseline(path: Path) -> None:
    """Before anything is measured: no file that never held rows is replaced by a baseline."""
    if path.is_dir():
        raise ConfigError(f"the baseline {path} is a directory", hint="name a file")
    if path.is_file() and path.stat().st_size and not read_rows(path)[0]:
        raise ConfigError(f"the baseline {path} exists and holds no eval row", hint="give another file")


def update(path: Path, new: Side, keys: Sequence[Key]) -> list[Path]:
    """Replace a baseline by the gated rows, and its records by what is needed to compare each example; the
    files that were written."""
    rows = [row for row in new.rows if Key.of(row) in keys]
    runs = {row.run_id for row in rows}
    lines: list[str] = []
    for record in new.records:
        task = record.get("task")
        if record["run_id"] not in runs:
            continue
        subtasks = [
            s for s in record.get("subtasks") or [None] if any(_of(k) == (task, s or "") for k in keys)
        ]
        metrics = {key.metric for key in keys if key.task == task}
        mine = {field: _part(record.get(field), metrics) for field in ("scores", "pooled", "weights")}
        if subtasks and (mine["scores"] or mine["pooled"]):
            told = {"run_id": record["run_id"], "id": record["id"], "task": task, "subtasks": subtasks}
            told |= {field: part for field, part in mine.items() if part}
            lines.append(json.dumps(told, ensure_ascii=False) + "\n")
    write_text(beside(path), "".join(lines))
    write_rows(path, rows)
    return [path, beside(path)]


def _part(told: Any, metrics: Collection[str]) -> dict[str, Any]:
    """Of what a record says by metric, that of these."""
    return {m: value for m, value in told.items() if m in metrics} if isinstance(told, dict) else {}


def _of(key: Key) -> tuple[str, str]:
    return key.task, key.subtask
