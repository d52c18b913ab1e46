"""Constant: linear warm-up, then the peak learning rate to the end.

`f(t) = min(1, t/W)`.

Paper: none; the plain baseline.
Differs: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config:
    """Knobs of the constant schedule."""

    warmup: Annotated[float, "Warm-up length: steps when 1 or more, else a fraction of the run."] = 0.05

    def __post_init__(self) -> None:
        if self.warmup < 0:
            raise ConfigError(f"the schedule's warmup must not be negative, got {self.warmup:g}")


def at(step: int, steps: int, config: Config) -> float:
    """The factor on the peak learning rate at a step counted from 1 to `steps`."""
    warmup = config.warmup if config.warmup >= 1 else config.warmup * steps
    return min(1.0, step / warmup) if warmup else 1.0
