"""Generalised Jensen-Shannon divergence: between forward and reverse KL, and never infinite.

    m    = beta p_teacher + (1 - beta) p_student
    loss = beta KL(p_teacher || m) + (1 - beta) KL(p_student || m)

At beta = 0.5 it is the Jensen-Shannon divergence, at most log 2. Divided by beta it tends to the forward KL
for beta to 0, and divided by 1 - beta to the reverse KL for beta to 1.

Paper: Agarwal et al. 2024 (GKD), arXiv:2306.13649, eq. 1.
Differs: beta of exactly 0 and 1 is refused, where the formula is 0: forward_kl and reverse_kl are its limits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.distill.divergence._events import kl, mixture


@dataclass(frozen=True, kw_only=True)
class Config:
    """How the two are weighed."""

    beta: Annotated[float, "Share of the teacher in the mixture, above 0 and below 1."] = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.beta < 1:
            raise ConfigError(
                f"beta must be above 0 and below 1, got {self.beta:g}",
                hint="its limits are --loss forward_kl and --loss reverse_kl",
            )


def losses(student: mx.array, teacher: mx.array, config: Config) -> mx.array:
    """The divergence (...) of log-probabilities (..., E), in nats."""
    m = mixture(teacher, student, config.beta)
    return config.beta * kl(teacher, m) + (1 - config.beta) * kl(student, m)
