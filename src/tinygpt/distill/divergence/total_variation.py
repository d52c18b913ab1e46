"""Total variation: half the sum of how far the two distributions are apart, event by event.

    loss = 1/2 sum_v |p_teacher(v) - p_student(v)|

It lies between 0 and 1, treats both sides alike, and its gradient does not grow where a probability is
small.

Paper: Wen et al. 2023 (f-DISTILL), arXiv:2307.15190.
Differs: nothing.
"""

from __future__ import annotations

from tinygpt.core.backend import mx


def losses(student: mx.array, teacher: mx.array, config: None = None) -> mx.array:
    """The distance (...) of log-probabilities (..., E)."""
    return 0.5 * mx.abs(mx.exp(teacher) - mx.exp(student)).sum(axis=-1)
