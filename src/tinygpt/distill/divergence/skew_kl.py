"""Skew KL: a KL divergence from a mixture with the other side, so that no ratio of the two can explode.

    forward: KL(p_teacher || alpha p_teacher + (1 - alpha) p_student)
    reverse: KL(p_student || (1 - alpha) p_teacher + alpha p_student)

With alpha = 0 these are the plain divergences; a little of it bounds the gradient where one side is near 0,
which the paper finds to converge faster than KL or the Jensen-Shannon divergence.

Paper: Ko et al. 2024 (DistiLLM), arXiv:2402.03898, section 3.1.
Differs: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.distill.divergence._events import kl, mixture


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which side is measured, and how much of it is mixed into the other."""

    side: Annotated[
        Literal["forward", "reverse"], "From the teacher to the mixture, or from the student."
    ] = "forward"
    alpha: Annotated[float, "Share of the measured side in the mixture, at least 0 and below 1."] = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < 1:
            raise ConfigError(f"alpha must be at least 0 and below 1, got {self.alpha:g}")


def losses(student: mx.array, teacher: mx.array, config: Config) -> mx.array:
    """The divergence (...) of log-probabilities (..., E), in nats."""
    first, second = (teacher, student) if config.side == "forward" else (student, teacher)
    return kl(first, mixture(first, second, config.alpha) if config.alpha else second)
