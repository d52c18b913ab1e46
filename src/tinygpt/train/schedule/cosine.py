"""Cosine: linear warm-up, then half a cosine down to a fraction of the peak.

`f(t) = t/W` for t <= W, then `r + (1-r) (1 + cos(pi (t-W)/(T-W))) / 2` with final ratio r at t = T.

Paper: Loshchilov and Hutter, ICLR 2017, arXiv:1608.03983 (eq. 5, one cycle).
Differs: nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from tinygpt.train.schedule._warmup import Falling, progress


@dataclass(frozen=True, kw_only=True)
class Config(Falling):
    """Knobs of the cosine schedule."""

    final: Annotated[float, "Learning rate at the end, as a fraction of the peak."] = 0.1


def at(step: int, steps: int, config: Config) -> float:
    """The factor on the peak learning rate at a step counted from 1 to `steps`."""
    rise, done = progress(step, steps, config)
    return rise * (config.final + (1 - config.final) * (1 + math.cos(math.pi * done)) / 2)
