"""Reverse KL: the student keeps to what the teacher finds likely, and may leave some of it out.

    loss = KL(p_student || p_teacher) = sum_v p_S(v) (log p_S(v) - log p_T(v))

Probability that the student puts where the teacher has none costs most, so a small student drops modes
rather than inventing text between them.

Paper: Gu et al. 2024 (MiniLLM), arXiv:2306.08543, eq. 1.
Differs: the divergence at each place is computed exactly over the vocabulary; the paper estimates that of
whole answers from samples by policy gradient. With answers that the student samples (`--on-policy`) it is
that divergence but for what a token does to later ones.
"""

from __future__ import annotations

from tinygpt.core.backend import mx
from tinygpt.distill.divergence._events import kl


def losses(student: mx.array, teacher: mx.array, config: None = None) -> mx.array:
    """KL(student || teacher) (...) of log-probabilities (..., E), in nats."""
    return kl(student, teacher)
