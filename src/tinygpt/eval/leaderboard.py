"""A leaderboard of small models: how often right, how fast, how much memory, and one figure of the three.

The figure is the original's: accuracy x (decoded tokens a second / 50) x (2 / peak memory in GB), so a model
that answers everything at 50 tokens a second in 2 GB has 1. It is no quality of its own: the columns that it
is made of are shown beside it. A model without one of the three has no figure, and stands below those with
one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.rows import EvalRow
from tinygpt.eval.compare import lower_is_better

SPEED, MEMORY = "decode_tok_s", "peak_memory_bytes"
TOK_S, GB = 50.0, 2.0
# A metric with one of these words in its name is a share of examples, told as 0.5 or as 50.
SHARES = {
    "acc", "accuracy", "correct", "em", "exact", "f1", "match", "pass", "precision", "rate", "recall",
    "share", "success",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model's line. score: of the chosen task, with its interval; tok_s: of one stream; memory_gb: at its
    peak."""

    model: str
    baseline: bool
    score: float
    low: float | None
    high: float | None
    n: int
    tok_s: float | None
    memory_gb: float | None

    @property
    def composite(self) -> float | None:
        if self.tok_s is None or not self.memory_gb:
            return None
        return self.score * (self.tok_s / TOK_S) * (GB / self.memory_gb)


@dataclass(frozen=True, kw_only=True)
class Board:
    """The lines, best first, and what they are about."""

    task: str
    metric: str
    data_version: str | None
    entries: tuple[Entry, ...]


def board(rows: Sequence[EvalRow], task: str = "", metric: str = "") -> Board:
    """The leaderboard of one task and metric; "": the only one there is. Of several rows of a model the last
    counts. ConfigError where more than one could be meant, DataError where there is none."""
    asked = [r for r in rows if r.task != "bench" and r.subtask is None and not lower_is_better(r.metric)]
    asked = [r for r in asked if task in ("", r.task) and metric in ("", r.metric)]
    found = sorted({(r.task, r.metric, r.data_version or "") for r in asked})
    if not found:
        raise DataError(
            "no row is about such a task and metric", hint="look at them: tinygpt eval-compare ROWS"
        )
    if len({(t, m) for t, m, _ in found}) > 1:
        names = ", ".join(f"--task {t} --metric {m}" for t, m, _ in found)
        raise ConfigError("there is more than one figure to rank by", hint=f"choose: {names}")
    if len(found) > 1:
        raise DataError(
            f"the rows of {found[0][0]} are of {len(found)} versions of its data, which do not compare",
            hint="measure all models on one",
        )
    if failed := next((r for r in asked if r.n_failed), None):
        raise DataError(
            f"{failed.n_failed} answers of {failed.model_name} failed to come", hint="measure it again"
        )
    last = {r.model_name: r for r in asked}
    if two := _two_scales(last.values()):
        raise DataError(two, hint="measure both in the same way")
    entries = [_entry(r, [s for s in rows if s.model_name == name]) for name, r in last.items()]
    entries.sort(key=lambda e: (e.composite is None, -(e.composite or 0.0), -e.score))
    return Board(
        task=found[0][0], metric=found[0][1], data_version=found[0][2] or None, entries=tuple(entries)
    )


def _two_scales(rows: Iterable[EvalRow]) -> str:
    """Why scores of one metric are of two scales, a share on one side and percents on the other; empty where
    they are not. A share of 1 or 0 may be one percent or none, and tells nothing."""
    shares = [r for r in rows if 0 < r.score < 1]
    large = [r for r in rows if r.score > 1]
    if not shares or not large or not SHARES & set(re.split("[^a-z0-9]+", large[0].metric.lower())):
        return ""
    one, other = large[0], shares[0]
    return (
        f"the {one.metric} of {one.model_name} is {one.score:g}, that of {other.model_name} {other.score:g}, "
        "as if one were told in percent"
    )


def _entry(row: EvalRow, mine: Sequence[EvalRow]) -> Entry:
    timed = [r for r in mine if r.task == "bench" and r.batch_size == 1]
    speed = [r.score for r in timed if r.metric == SPEED]
    memory = [r.score for r in timed if r.metric == MEMORY]
    low, high = row.interval or (None, None)
    return Entry(
        model=row.model_name, baseline=row.baseline, score=row.score, low=low, high=high, n=row.n_examples,
        tok_s=speed[-1] if speed else None, memory_gb=memory[-1] / 1e9 if memory else None,
    )  # fmt: skip
