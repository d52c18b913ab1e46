"""Top-p (nucleus): keep the fewest likeliest tokens that together reach probability p.

Sort by probability; the nucleus is the smallest head of that list whose sum is at least p. Where the model is
sure it is one token, where it is not it may be hundreds.

Paper: Holtzman et al., ICLR 2020, arXiv:1904.09751, section 3.1.
Differs: tokens tied with the last one kept are kept too, so the result does not depend on a sorting order.
"""

from __future__ import annotations

from typing import Any

from tinygpt.core.backend import mx
from tinygpt.model import ops

NEUTRAL = 1.0


def apply(logits_BV: mx.array, history: Any, value: Any) -> mx.array:
    """Logits with everything outside the nucleus at -inf. At least one token stays."""
    rising_BV = mx.sort(logits_BV, axis=-1)
    # Sum from the unlikely end: a token goes while the mass up to it is at most 1 - p.
    gone_BV = mx.cumsum(ops.softmax(rising_BV), axis=-1) <= 1 - value
    least_B1 = mx.where(gone_BV, mx.inf, rising_BV).min(axis=-1, keepdims=True)
    top_B1 = rising_BV[..., -1:]  # rounding, or p = 0, may have sent all of them away
    return mx.where(logits_BV < mx.minimum(least_B1, top_B1), -mx.inf, logits_BV)
