"""WSD: linear warm-up, a long stable stretch at the peak, and a short decay at the end.

`f(t) = t/W` for t <= W, 1 until the decay of D steps begins, then `r + (1-r) g(p)` with `p = (t-T+D)/D`
and final ratio r. The shape g falls from 1 to 0: `1-sqrt` is `1 - sqrt(p)`, `linear` is `1 - p`, `cosine`
is `(1 + cos(pi p))/2`. With the warm-up given in steps nothing before the decay depends on the run's
length, so a checkpoint of the stable stretch can go on for longer, or be decayed on its own. With the
linear shape it is the trapezoid of Xing et al. 2018, arXiv:1802.08770.

Paper: Hu et al. 2024, arXiv:2404.06395 (the three stages); Hägele et al., NeurIPS 2024, arXiv:2405.18392
(the shapes; 1-sqrt did best).
Differs: ends at 1 % of the peak unless told otherwise, so that the last step still learns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from tinygpt.core.errors import ConfigError
from tinygpt.train.schedule._warmup import Falling, length

Shape = Literal["1-sqrt", "linear", "cosine"]
SHAPES = {
    "1-sqrt": lambda p: 1 - math.sqrt(p),
    "linear": lambda p: 1 - p,
    "cosine": lambda p: (1 + math.cos(math.pi * p)) / 2,
}


@dataclass(frozen=True, kw_only=True)
class Config(Falling):
    """Knobs of the warm-up, stable, decay schedule."""

    decay: Annotated[float, "Decay length: steps when 1 or more, else a fraction of the run."] = 0.2
    shape: Annotated[Shape, "How the decay falls."] = "1-sqrt"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decay <= 0:
            raise ConfigError(
                f"the schedule's decay must be positive, got {self.decay:g}",
                hint="the constant schedule never decays",
            )


def at(step: int, steps: int, config: Config) -> float:
    """The factor on the peak learning rate at a step counted from 1 to `steps`.

    A decay that is longer than what the warm-up leaves starts where the warm-up ends."""
    warmup = length(config.warmup, steps)
    if step <= warmup:
        return step / warmup
    decay = min(length(config.decay, steps), steps - warmup)
    progress = min(1.0, max(0.0, (step - steps + decay) / decay))
    return config.final + (1 - config.final) * SHAPES[config.shape](progress)
