"""Min-p: drop tokens whose probability is below a share of the likeliest token's.

`keep i where p_i >= min_p * max(p)`. The bar falls when the model is unsure, so high temperatures stay
readable.

Paper: Nguyen et al., ICLR 2025, arXiv:2407.01082.
Differs: compares logits, `z_i >= max(z) + log(min_p)`, which is the same without a softmax.
"""

from __future__ import annotations

from typing import Any

from tinygpt.core.backend import mx

NEUTRAL = 0.0


def apply(logits_BV: mx.array, history: Any, value: Any) -> mx.array:
    """Logits with the unlikely at -inf."""
    bar_B1 = logits_BV.max(axis=-1, keepdims=True) + mx.log(mx.array(value))
    return mx.where(logits_BV < bar_B1, -mx.inf, logits_BV)
