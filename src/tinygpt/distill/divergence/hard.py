"""Hard labels: the token that the teacher finds likeliest is the target.

    loss = - log p_student(argmax_v p_teacher(v))

It uses the least of what a teacher knows, and needs the least of it: one token a place.

Paper: Kim and Rush 2016, arXiv:1606.07947, section 3.1 (word-level distillation with the teacher's mode).
Differs: nothing.
"""

from __future__ import annotations

from tinygpt.core.backend import mx


def losses(student: mx.array, teacher: mx.array, config: None = None) -> mx.array:
    """The cross-entropy (...) of log-probabilities (..., E), in nats."""
    best = mx.argmax(teacher, axis=-1, keepdims=True)
    return -mx.take_along_axis(student, best, axis=-1)[..., 0]
