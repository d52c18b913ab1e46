"""What every schedule shares: a linear warm-up, and for those that fall a ratio to end at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Warmup:
    """The knob of every schedule."""

    warmup: Annotated[float, "Warm-up length: steps when 1 or more, else a fraction of the run."] = 0.05

    def __post_init__(self) -> None:
        if self.warmup < 0:
            raise ConfigError(f"the schedule's warmup must not be negative, got {self.warmup:g}")


@dataclass(frozen=True, kw_only=True)
class Falling(Warmup):
    """The knobs of schedules that fall: a run ends somewhere between nothing and its peak."""

    final: Annotated[float, "Learning rate at the end, as a fraction of the peak."] = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.final <= 1:
            raise ConfigError(f"the schedule's final must be from 0 to 1, got {self.final:g}")


def length(given: float, steps: int) -> float:
    """Steps of a stretch that is given in steps, or as a fraction of the run; at most the run."""
    return min(given if given >= 1 else given * steps, steps)


def progress(step: int, steps: int, config: Warmup) -> tuple[float, float]:
    """What the warm-up leaves of the rate, 1 after it, and how much of the steps after it is done, 0 to 1."""
    warmup = length(config.warmup, steps)
    if step <= warmup:
        return step / warmup, 0.0
    return 1.0, min(1.0, (step - warmup) / max(1e-9, steps - warmup))
