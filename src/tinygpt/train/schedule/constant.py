"""Constant: linear warm-up, then the peak learning rate to the end.

`f(t) = min(1, t/W)`.

Paper: none; the plain baseline.
Differs: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinygpt.train.schedule._warmup import Warmup, progress


@dataclass(frozen=True, kw_only=True)
class Config(Warmup):
    """Knobs of the constant schedule."""


def at(step: int, steps: int, config: Config) -> float:
    """The factor on the peak learning rate at a step counted from 1 to `steps`."""
    return progress(step, steps, config)[0]
