"""The search for a mixture: what to try next, what was tried already, what it comes to."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core import files
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.events import Events, Progress
from tinygpt.data import rows
from tinygpt.runs import _surrogate

Row = dict[str, Any]
Measure = Callable[[tuple[float, ...], int, str], Row | None]
"""measure(shares, seed, task): at least {bits_per_byte}, or None when it was stopped."""
CANDIDATES = 1024
# Bits a byte that count as a gain at all: two seeds may agree by accident, in rounding errors even.
LEAST = 1e-3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long to search."""

    proxy_runs: Annotated[int, "Mixtures drawn before any is proposed; the first is the even one."] = 6
    max_iters: Annotated[int, "Mixtures proposed by the surrogate, one after another."] = 4
    ei_threshold: Annotated[float, "Stop when a proposal promises to gain fewer bits a byte than this."] = 0.0
    max_minutes: Annotated[float, "Begin no proxy run that would end after this long; 0: no bound."] = 0.0
    check: Annotated[bool, "Train on the best and the even mixture with a second seed too."] = True
    seed: Annotated[int, "Seed of drawn mixtures, weights and data order."] = 42

    def __post_init__(self) -> None:
        for name, least in {"proxy_runs": 1, "max_iters": 0, "ei_threshold": 0, "max_minutes": 0}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least {least}")

    @property
    def most(self) -> int:
        """Proxy runs at most."""
        return self.proxy_runs + self.max_iters + (2 if self.check else 0)


class Report:
    """A JSONL file of proxy runs. Runs of the same settings and data are found again, others are refused."""

    def __init__(self, path: Path, key: str, *, force: bool = False) -> None:
        self.path, self.key = path, key
        self.rows: list[Row] = []
        if path.is_dir() or (path.is_file() and path.stat().st_size):
            found = self._read()
            if not force and any(row["settings"] != key for row in found):
                raise ConfigError(
                    f"{path} is the report of other settings or other data",
                    hint="choose another --out, or replace it with --force",
                )
            self.rows = [] if force else found
        stem = path.stem.removesuffix("-report")
        self.beside = path.with_name(f"{stem}-recommendation.json")
        if self.beside.exists() and not {"ratio", "runs", "proxy_steps"} <= set(files.peek_json(self.beside)):
            raise DataError(
                f"{self.beside} is no recommendation of automix", hint="move it away, or choose another --out"
            )

    def _read(self) -> list[Row]:
        """The rows; a file that is no report is refused."""
        try:
            return rows.read(self.path, _row, strict=True)[0]
        except DataError as error:
            raise DataError(
                f"{self.path} is no automix report: {error.message}", hint="choose another --out"
            ) from error

    def find(self, ratio: dict[str, float], seed: int) -> Row | None:
        """The run of a mixture and a seed."""
        return next((r for r in self.rows if r["ratio"] == ratio and r["seed"] == seed), None)

    def add(self, row: Row) -> None:
        """Write a finished run, whole or not at all."""
        self.rows.append(row)
        rows.write(self.path, self.rows)

    def recommend(self, found: Row) -> None:
        """Write the recommendation beside the report."""
        files.write_json(self.beside, found)


def _row(value: Any) -> Row:
    if not isinstance(value, dict) or not {"settings", "ratio", "seed", "score"} <= set(value):
        raise DataError("not a proxy run")
    return value


class Search:
    """Draw mixtures, then try where the surrogate expects most, then check the best one with another seed."""

    def __init__(
        self,
        config: Plan,
        names: Sequence[str],
        report: Report,
        measure: Measure | None,
        events: Events,
        began: float = 0.0,
    ) -> None:
        self.config, self.names, self.report, self.measure = config, list(names), report, measure
        self.events, self.began = events, began or time.monotonic()
        self.rows: list[Row] = []
        self.times: list[float] = []
        self.even = _surrogate.tidy(_even(len(names)))

    def drawn(self) -> list[Row]:
        """The mixtures of the first iteration: the even one, then draws that depend on the seed alone."""
        n = self.config.proxy_runs - 1
        mixtures = [
            self.even,
            *map(_surrogate.tidy, _surrogate.drawn(n, len(self.names), self.config.seed, 0)),
        ]
        return [{"iter": 0, "source": "sample", "ratio": self._ratio(m)} for m in mixtures]

    def run(self) -> str:
        """How it ended: done, converged, time or interrupted. The report has a row as soon as it is known."""
        for row in self.drawn():
            if status := self._try(row, self.config.seed):
                return status
        for iteration in range(1, self.config.max_iters + 1):
            row, gain = self._propose(iteration)
            if row is None or gain < self.config.ei_threshold:
                return self._check() or "converged"
            if status := self._try(row, self.config.seed):
                return status
        return self._check() or "done"

    def _check(self) -> str:
        """The best mixture and the even one with another seed; what stopped that, or nothing."""
        if not self.config.check:
            return ""
        for ratio in (self._ratio(self.even), self.best()["ratio"]):
            row: Row = {"iter": self.config.max_iters + 1, "source": "check", "ratio": ratio}
            if status := self._try(row, self.config.seed + 1):
                return status
        return ""

    def _propose(self, iteration: int) -> tuple[Row | None, float]:
        """What the surrogate would try next, and what it expects to gain; None when all was tried."""
        import numpy as np

        tried = [row for row in self.rows if row["source"] != "check"]
        known = np.array([[row["ratio"][n] for n in self.names] for row in tried])
        surrogate = _surrogate.Surrogate(known, np.array([row["score"] for row in tried]))
        spread = _surrogate.drawn(CANDIDATES, len(self.names), self.config.seed, iteration)
        mixtures = {_surrogate.tidy(m) for m in [*np.eye(len(self.names)), *spread]}
        fresh = sorted(mixtures - {tuple(row["ratio"].values()) for row in tried})
        if not fresh:
            return None, 0.0
        i, predicted, gain = surrogate.propose(np.array(fresh))
        ratio = self._ratio(fresh[i])
        row = {"iter": iteration, "source": "propose", "ratio": ratio, "predicted": predicted, "gain": gain}
        return row, gain

    def _try(self, row: Row, seed: int) -> str:
        """Train and measure, or find it in the report; what stopped the search, or nothing."""
        if any(r["ratio"] == row["ratio"] and r["seed"] == seed for r in self.rows):
            return ""  # the best mixture is the even one
        found = self.report.find(row["ratio"], seed)
        if found is None:
            budget = 60 * self.config.max_minutes
            took = math.fsum(self.times) / max(1, len(self.times))
            if budget and self.rows and time.monotonic() - self.began + took > budget:
                return "time"
            assert self.measure is not None
            task = f"proxy run {len(self.rows) + 1}"
            measured = self.measure(tuple(row["ratio"].values()), seed, task)
            if measured is None:
                return "interrupted"
            self.times.append(measured["seconds"])
            found = {**row, "score": -measured["bits_per_byte"], "seed": seed, **measured}
            found["settings"] = self.report.key
            self.report.add(found)
        self.rows.append({**found, **row})
        done = Progress(task="proxy runs", done=len(self.rows), total=self.config.most, unit="runs")
        self.events.emit(done)
        return ""

    def best(self) -> Row:
        """The best of the runs with the search's own seed."""
        return max((r for r in self.rows if r["source"] != "check"), key=lambda row: row["score"])

    def recommendation(self) -> Row:
        """The best mixture, and how much better than the even one it reads the target, in bits a byte.

        With two seeds `gain` is the mean and `noise` its standard error, from the difference between them;
        it is clear when it is more than twice the noise, and more than LEAST.
        The mixture was chosen by the first seed, which flatters it; `gains[1]` is the second one's."""
        if not self.rows:
            return {"runs": 0}
        best, even = self.best()["ratio"], self._ratio(self.even)
        score = {(tuple(r["ratio"].values()), r["seed"]): r["score"] for r in self.rows}
        gains = [
            score[tuple(best.values()), seed] - score[tuple(even.values()), seed]
            for seed in (self.config.seed, self.config.seed + 1)
            if {(tuple(best.values()), seed), (tuple(even.values()), seed)} <= set(score)
        ]
        gain = math.fsum(gains) / len(gains) if gains else None
        noise = abs(gains[0] - gains[1]) / 2 if len(gains) == 2 else None
        clear = gain is not None and noise is not None and gain > max(2 * noise, LEAST) and gains[-1] > 0
        return {
            "best_score": self.best()["score"], "ratio": best, "runs": len(self.rows), "gain": gain,
            "gains": gains, "noise": noise,
            "clear": clear,
        }  # fmt: skip

    def _ratio(self, mixture: Sequence[float]) -> dict[str, float]:
        return dict(zip(self.names, mixture, strict=True))


def _even(n: int) -> Any:
    import numpy as np

    return np.full(n, 1 / n)
