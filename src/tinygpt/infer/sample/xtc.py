"""Exclude top choices (XTC): now and then drop all tokens that are likely enough but the least likely one.

With probability P, at each token: of those with `p_i >= t` all go but the least likely. Where fewer than two
reach t, nothing does. So the model stays sensible and leaves the beaten track, where min-p and top-p cut the
other end. Each row draws its number by its seed and step, so neighbours change nothing.

Paper: none; proposed and defined by P. E. Weidmann in text-generation-webui, pull request 6335 (2024).
Differs: newlines and stop tokens are not spared (as in llama.cpp; there they are); tokens tied with the least
likely one stay too.
"""

from __future__ import annotations

from typing import Any

from tinygpt.core.backend import mx
from tinygpt.model import ops

NEUTRAL = 0.0
DRAWS = True


def apply(logits_BV: mx.array, history: Any, value: Any, threshold: Any) -> mx.array:
    """Logits with the top choices at -inf in the rows whose draw is below `value`."""
    p_BV = ops.softmax(logits_BV)
    least_B1 = mx.where(p_BV >= threshold, p_BV, mx.inf).min(axis=-1, keepdims=True)
    acts_B1 = history.uniform("xtc") < value
    return mx.where(acts_B1 & (p_BV > least_B1), -mx.inf, logits_BV)
