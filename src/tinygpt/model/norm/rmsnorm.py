"""RMSNorm: divide by the root mean square, then scale, `y = x / sqrt(mean(x^2) + eps) * w`.

Paper: Zhang and Sennrich, NeurIPS 2019, arXiv:1910.07467 (eq. 4).
Differs: nothing.
"""

from __future__ import annotations

from tinygpt.core.backend import mx, nn
from tinygpt.model import ops
from tinygpt.model.config import ModelConfig


class RMSNorm(nn.Module):
    """x (..., D) -> (..., D)."""

    def __init__(self, d: int, eps: float) -> None:
        super().__init__()
        self.weight = mx.ones((d,))
        self.eps = eps

    def __call__(self, x: mx.array) -> mx.array:
        return ops.rms_norm(x, self.weight, self.eps)


def build(config: ModelConfig, size: int) -> nn.Module:
    """A norm over the last axis of `size` features."""
    return RMSNorm(size, config.norm_eps)
