"""Locally typical sampling: keep the tokens whose surprise is nearest to the surprise that is expected.

With the entropy `H = -sum_i p_i log p_i`, sort by `|-log p_i - H|` and keep the smallest head of that list
whose probability is at least p. People tend to say what is about as informative as expected; where the model
is unsure, even its likeliest token may be too plain and goes.

Paper: Meister et al., TACL 2023, arXiv:2202.00666, eq. 10 and section 3.
Differs: tokens tied with the last one kept are kept too (as transformers does).
"""

from __future__ import annotations

from typing import Any

from tinygpt.core.backend import mx

NEUTRAL = 1.0


def apply(logits_BV: mx.array, history: Any, value: Any) -> mx.array:
    """Logits with everything outside the typical set at -inf. At least one token stays."""
    logs_BV = logits_BV - mx.logsumexp(logits_BV, axis=-1, keepdims=True)
    p_BV = mx.exp(logs_BV)
    possible_BV = p_BV > 0
    entropy_B1 = -mx.where(possible_BV, p_BV * logs_BV, 0).sum(axis=-1, keepdims=True)
    off_BV = mx.where(possible_BV, mx.abs(-logs_BV - entropy_B1), mx.inf)
    order_BV = mx.argsort(off_BV, axis=-1)
    mass_BV = mx.cumsum(mx.take_along_axis(p_BV, order_BV, axis=-1), axis=-1)
    # The last one kept is the first that reaches p; rounding may leave the whole sum a little below it.
    n_before_B1 = (mass_BV < value).sum(axis=-1, keepdims=True)
    at_B1 = mx.minimum(n_before_B1, logits_BV.shape[-1] - 1)
    bar_B1 = mx.take_along_axis(mx.take_along_axis(off_BV, order_BV, axis=-1), at_B1, axis=-1)
    return mx.where(off_BV > bar_B1, -mx.inf, logits_BV)
