"""Universal logit distillation: the two lists of probabilities, sorted, are as alike as can be.

    loss = sum_i |p_teacher(i-th likeliest) - p_student(i-th likeliest)|

Which token has which probability is not asked, so vocabularies need not be the same: the shorter list is
filled up with zeros. It is the Wasserstein distance with a cost of 1 between any two tokens.

Paper: Boizard et al. 2024, arXiv:2402.12030, eq. 6.
Differs: nothing.
"""

from __future__ import annotations

from tinygpt.core.backend import mx

APART = True  # it compares distributions over different events


def losses(student: mx.array, teacher: mx.array, config: None = None) -> mx.array:
    """The distance (...) of log-probabilities (..., V) and (..., W)."""
    p, q = (mx.sort(mx.exp(side), axis=-1)[..., ::-1] for side in (teacher, student))
    n = max(p.shape[-1], q.shape[-1])
    p, q = (mx.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, n - x.shape[-1])]) for x in (p, q))
    return mx.abs(p - q).sum(axis=-1)
