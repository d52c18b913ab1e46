"""Cosine: linear warm-up, then half a cosine down to a fraction of the peak.

`f(t) = t/W` for t <= W, then `r + (1-r) (1 + cos(pi (t-W)/(T-W))) / 2` with final ratio r at t = T.

Paper: Loshchilov and Hutter, ICLR 2017, arXiv:1608.03983 (eq. 5, one cycle).
Differs: nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config:
    """Knobs of the cosine schedule."""

    warmup: Annotated[float, "Warm-up length: steps when 1 or more, else a fraction of the run."] = 0.05
    final: Annotated[float, "Learning rate at the end, as a fraction of the peak."] = 0.1

    def __post_init__(self) -> None:
        if self.warmup < 0:
            raise ConfigError(f"the schedule's warmup must not be negative, got {self.warmup:g}")
        if not 0 <= self.final <= 1:
            raise ConfigError(f"the schedule's final must be from 0 to 1, got {self.final:g}")


def at(step: int, steps: int, config: Config) -> float:
    """The factor on the peak learning rate at a step counted from 1 to `steps`."""
    warmup = min(config.warmup if config.warmup >= 1 else config.warmup * steps, steps)
    if step <= warmup:
        return step / warmup
    progress = min(1.0, (step - warmup) / max(1e-9, steps - warmup))
    return config.final + (1 - config.final) * (1 + math.cos(math.pi * progress)) / 2
