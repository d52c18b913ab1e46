"""Trapezoid: warm-up, a constant stretch, a straight line down; `wsd` with its linear shape, by name.

`f(t) = t/W` for t <= W, 1 until the decay of D steps begins, then `r + (1-r) (T-t)/D` with final ratio r.

Paper: Xing et al. 2018, arXiv:1802.08770 (the shape); Hägele et al., NeurIPS 2024, arXiv:2405.18392 (for
language models).
Differs: ends at 1 % of the peak unless told otherwise, so that the last step still learns; the line to zero
is `--set schedule.final=0`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tinygpt.train.schedule import wsd
from tinygpt.train.schedule._warmup import Falling


@dataclass(frozen=True, kw_only=True)
class Config(Falling):
    """Knobs of the trapezoid."""

    decay: Annotated[float, "Decay length: steps when 1 or more, else a fraction of the run."] = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        _as_wsd(self)


def _as_wsd(config: Config) -> wsd.Config:
    return wsd.Config(warmup=config.warmup, decay=config.decay, shape="linear", final=config.final)


def at(step: int, steps: int, config: Config) -> float:
    """The factor on the peak learning rate at a step counted from 1 to `steps`."""
    return wsd.at(step, steps, _as_wsd(config))
