"""Forward KL: the student covers all that the teacher finds likely.

    loss = KL(p_teacher || p_student) = sum_v p_T(v) (log p_T(v) - log p_S(v))

It is the cross-entropy against the teacher's soft labels, less their entropy, so its gradient is that of
Hinton's. Where the student cannot hold all of the teacher's modes it spreads over them. With a temperature
both distributions are flattened by it, and the run multiplies the loss by its square, so that the size of
the gradients stays the same.

Paper: Hinton et al. 2015, arXiv:1503.02531, section 2 (temperature, T squared).
Differs: nothing.
"""

from __future__ import annotations

from tinygpt.core.backend import mx
from tinygpt.distill.divergence._events import kl


def losses(student: mx.array, teacher: mx.array, config: None = None) -> mx.array:
    """KL(teacher || student) (...) of log-probabilities (..., E), in nats."""
    return kl(teacher, student)
