"""Top-n-sigma: keep tokens whose logit is within n standard deviations of the largest.

`keep i where z_i >= max(z) - n std(z)`. Logits look like Gaussian noise with a few tokens far above it; the
noise is cut off. Temperature scales both sides alike, so it does not change which tokens are kept.

Paper: Tang et al., ACL 2025, arXiv:2411.07641, algorithm 1.
Differs: logits at -inf, as of a constraint, are left out of the deviation.
"""

from __future__ import annotations

from typing import Any

from tinygpt.core.backend import mx

NEUTRAL = 0.0


def apply(logits_BV: mx.array, history: Any, value: Any) -> mx.array:
    """Logits with the noise at -inf."""
    here_BV = logits_BV > -mx.inf
    n_B1 = here_BV.sum(axis=-1, keepdims=True)
    mean_B1 = mx.where(here_BV, logits_BV, 0).sum(axis=-1, keepdims=True) / n_B1
    square_BV = mx.where(here_BV, (logits_BV - mean_B1) ** 2, 0)
    sigma_B1 = mx.sqrt(square_BV.sum(axis=-1, keepdims=True) / n_B1)
    bar_B1 = logits_BV.max(axis=-1, keepdims=True) - value * sigma_B1
    return mx.where(logits_BV < bar_B1, -mx.inf, logits_BV)
