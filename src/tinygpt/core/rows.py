"""The shared eval row (E0): every evaluator writes it, compare and gate read it.

One JSON object a line. The first block of fields is the original's schema (readers of it keep working); the
second says under which conditions the score was measured. What became of each example is a record of its own,
in a file beside the rows (`beside`), with the row's run_id."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import math
import os
import uuid
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinygpt.core.config import from_dict
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.files import unwritable, write_text

REQUIRED = (
    "run_id",
    "model_path",
    "model_name",
    "baseline",
    "task",
    "metric",
    "score",
    "n_examples",
    "wall_seconds",
    "timestamp",
)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, kw_only=True)
class EvalRow:
    """One metric of one task on one model."""

    model_path: str
    model_name: str
    task: str
    metric: str
    score: float
    n_examples: int
    wall_seconds: float
    run_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    model_step: int | None = None
    baseline: bool = False
    subtask: str | None = None
    timestamp: str = field(default_factory=_now)
    harness_version: str | None = None
    protocol: dict[str, Any] | None = None
    pass_stats: dict[str, Any] | None = None

    model_hash: str | None = None
    adapter_hash: str | None = None
    template_hash: str | None = None
    data_version: str | None = None
    interval: tuple[float, float] | None = None
    seed: int | None = None
    batch_size: int | None = None
    decoding: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    n_failed: int = 0
    n_truncated: int = 0

    def __post_init__(self) -> None:
        if self.interval is not None and len(self.interval) != 2:
            raise ConfigError(f"'interval' must be two numbers, got {self.interval}")
        if self.interval is not None and self.interval[0] > self.interval[1]:
            raise ConfigError(f"'interval' must rise, got {self.interval}")
        for name in ("n_examples", "n_failed", "n_truncated", "wall_seconds"):
            if getattr(self, name) < 0:
                raise ConfigError(f"'{name}' must not be negative, got {getattr(self, name)}")


def wilson(successes: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % Wilson score interval of a proportion (Wilson 1927); (0, 1) when n is 0."""
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def beside(path: Path) -> Path:
    """Where the records of examples lie that a file of rows sums up: rows.jsonl -> rows.examples.jsonl."""
    return path.with_name(f"{path.stem}.examples{path.suffix}")


def write_rows(path: Path, rows: list[EvalRow], *, append: bool = False) -> None:
    """Write rows as JSON lines in one step; `append` keeps what the file held, and what others append
    meanwhile."""
    for row in rows:
        if not math.isfinite(row.score):
            raise DataError(
                f"the {row.metric} of {row.model_name} on {row.task} is {row.score}, which is no measurement",
                hint="look into the model: tinygpt debug-load",
            )
    text = "".join(_line(dataclasses.asdict(row), allow_nan=False) for row in rows)
    if not append:
        write_text(path, text)
        return
    with _alone(path):
        before = path.read_text(encoding="utf-8") if path.is_file() else ""
        write_text(path, before + ("" if _is_ended(path) else "\n") + text)


def append_records(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Append records of examples, as JSON lines. They go before their rows: a row whose records are torn is
    then never seen."""
    text = "".join(_line(one, default=str) for one in records)
    with _alone(path):
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(text if _is_ended(path) else "\n" + text)
        except OSError as error:
            raise unwritable(path, error) from error


def _line(value: Any, **how: Any) -> str:
    """A line of JSON. Half a pair of UTF-16, which a server may send, stays the escape that it was."""
    text = json.dumps(value, ensure_ascii=False, **how)
    return text.encode("utf-8", "backslashreplace").decode() + "\n"


def _is_ended(path: Path) -> bool:
    """Whether what is appended to a file is a line of its own; not where its last one was torn."""
    if not path.is_file() or not path.stat().st_size:
        return True
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


@contextlib.contextmanager
def _alone(path: Path) -> Generator[None]:
    """No other process appends to a file of this folder meanwhile, where its file system can tell them."""
    import fcntl

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(folder, fcntl.LOCK_EX)  # it ends with the descriptor
        yield
    finally:
        os.close(folder)


def rewind(path: Path, step: int) -> None:
    """Drop the rows of a run from this step on, and their records: the run comes by it once more."""
    if not path.is_file():
        return
    kept = [row for row in read_rows(path)[0] if row.model_step is not None and row.model_step < step]
    write_rows(path, kept)
    records, ids = beside(path), {row.run_id for row in kept}
    if records.is_file():
        lines = records.read_text(encoding="utf-8").split("\n")
        write_text(records, "".join(f"{line}\n" for line in lines if _run_id(line) in ids))


def _run_id(line: str) -> str | None:
    """Of a record; None of a line that was torn."""
    try:
        return json.loads(line)["run_id"]
    except (ValueError, KeyError, TypeError):
        return None


def read_rows(path: Path) -> tuple[list[EvalRow], list[str]]:
    """The rows of a file, and one sentence for each line that is not a row (never skipped silently)."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # a name may hold other ends of lines
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read eval rows from {path}: {error}") from error
    names = {f.name for f in dataclasses.fields(EvalRow)}
    rows, invalid = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
        except RecursionError:
            invalid.append(f"{path}:{number}: not JSON that can be read: it is nested too deeply")
            continue
        except ValueError as error:  # the parser's own, or a number of more digits than Python reads
            invalid.append(f"{path}:{number}: not JSON: {error}")
            continue
        missing = [k for k in REQUIRED if not isinstance(data, dict) or data.get(k) is None]
        if missing:
            invalid.append(f"{path}:{number}: not an eval row, lacks {', '.join(missing)}")
            continue
        if isinstance(data["score"], bool) or not isinstance(data["score"], int | float):
            invalid.append(f"{path}:{number}: the score {data['score']!r} is not a number")
            continue
        row = {k: v for k, v in data.items() if k in names and v is not None}
        try:
            rows.append(from_dict(EvalRow, row))
        except ConfigError as error:
            invalid.append(f"{path}:{number}: not an eval row: {error.message}")
    return rows, invalid
