"""Follows the held-out loss of a run: which step was the best one, and when to stop waiting for a better.

A loss counts as progress when it is more than `min_delta` below the last one that counted, so that slow
progress adds up; after `patience` evaluations without any the run is over. All of it is saved with the
run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


class Watch:
    """Sees one loss an evaluation. `patience` 0: never over; `keep`: better checkpoints are to be saved."""

    def __init__(self, *, name: str = "held_out", patience: int = 0, min_delta: float = 0.0, keep: bool):
        self.name, self.patience, self.min_delta, self.keep = name, patience, min_delta, keep
        self.best, self.step = math.inf, 0
        self.mark, self.waited = math.inf, 0

    @property
    def over(self) -> bool:
        """Whether the run has waited long enough."""
        return 0 < self.patience <= self.waited

    def see(self, step: int, name: str, metrics: Mapping[str, float]) -> bool:
        """Take note of an evaluation; True when it is the best so far and is to be kept."""
        loss = metrics.get("loss", math.nan)
        if name != self.name:
            return False
        progress = loss < self.mark - self.min_delta
        self.mark, self.waited = (loss, 0) if progress else (self.mark, self.waited + 1)
        if not loss < self.best:  # a loss that is no number is never the best
            return False
        self.best, self.step = loss, step
        return self.keep

    def metrics(self) -> dict[str, float]:
        """What a run tells of it at its end."""
        return {"best_loss": self.best, "best_step": self.step} if self.step else {}

    def state(self) -> dict[str, Any]:
        """For a resumable checkpoint; before the first evaluation there is nothing to say."""
        if self.mark == math.inf:
            return {"waited": self.waited}
        best = {"best": self.best, "step": self.step} if self.step else {}
        return {**best, "mark": self.mark, "waited": self.waited}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self.best, self.step = float(state.get("best", math.inf)), int(state.get("step", 0))
        self.mark, self.waited = float(state.get("mark", math.inf)), int(state.get("waited", 0))
