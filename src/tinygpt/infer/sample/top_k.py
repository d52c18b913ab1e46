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


def apply(logits_BV: mx.array, history: Any, value: Any) -> mx.array:
    """Logits with all but the k largest at -inf. value: k, or (B, 1) one for each row."""
    if isinstance(value, int):
        if value >= logits_BV.shape[-1]:
            return logits_BV
        kth_B1 = mx.topk(logits_BV, value, axis=-1).min(axis=-1, keepdims=True)
    else:
        rising_BV = mx.sort(logits_BV, axis=-1)
        kth_B1 = mx.take_along_axis(rising_BV, mx.maximum(logits_BV.shape[-1] - value, 0), axis=-1)
    return mx.where(logits_BV < kth_B1, -mx.inf, logits_BV)
