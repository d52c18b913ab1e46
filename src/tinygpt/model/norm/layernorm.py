"""LayerNorm: subtract the mean, divide by the standard deviation, then scale and shift.

`y = (x - mean(x)) / sqrt(var(x) + eps) * w + b` over the features of each token.

Paper: Ba et al. 2016, arXiv:1607.06450.
Differs: nothing.
"""

from __future__ import annotations

from tinygpt.core.backend import mx, nn
from tinygpt.model import ops
from tinygpt.model.config import ModelConfig


class LayerNorm(nn.Module):
    """x (..., D) -> (..., D)."""

    def __init__(self, d: int, eps: float) -> None:
        super().__init__()
        self.weight = mx.ones((d,))
        self.bias = mx.zeros((d,))
        self.eps = eps

    def __call__(self, x: mx.array) -> mx.array:
        return ops.layer_norm(x, self.weight, self.bias, self.eps)


def build(config: ModelConfig, size: int) -> nn.Module:
    """A norm over the last axis of `size` features."""
    return LayerNorm(size, config.norm_eps)
