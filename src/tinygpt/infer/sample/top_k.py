"""Top-k: keep the k likeliest tokens and drop the rest.

`z_i = -inf where z_i < z_(k)`, with z_(k) the k-th largest logit. A fixed number of candidates is too many
where the model is sure and too few where it is not; top-p and min-p adapt.

Paper: Fan, Lewis and Dauphin, ACL 2018, arXiv:1805.04833.
Differs: tokens tied with the k-th are kept too (as transformers does).
"""

from __future__ import annotations

from typing import Any

from tinygpt.core.backend import mx

NEUTRAL = 0


def apply(logits_BV: mx.array, history: Any, value: int) -> mx.array:
    """Logits with all but the k largest at -inf."""
    if value >= logits_BV.shape[-1]:
        return logits_BV
    kth_B1 = mx.topk(logits_BV, value, axis=-1).min(axis=-1, keepdims=True)
    return mx.where(logits_BV < kth_B1, -mx.inf, logits_BV)
