"""RMSNorm whose weights count from one: `y = x / sqrt(mean(x^2) + eps) * (1 + w)`.

Weight decay then pulls the factor towards 1 and not towards 0, and fresh weights are zeros. Gemma's norms are
of this kind, those of queries and keys too.

Paper: Zhang and Sennrich, NeurIPS 2019, arXiv:1910.07467 (eq. 4); Gemma Team 2024, arXiv:2403.08295.
Differs: the factor is 1 + w.
"""

from __future__ import annotations

from tinygpt.core.backend import mx, nn
from tinygpt.model import ops
from tinygpt.model.config import ModelConfig


class RMSNormPlusOne(nn.Module):
    """x (..., D) -> (..., D)."""

    def __init__(self, d: int, eps: float) -> None:
        super().__init__()
        self.weight = mx.zeros((d,))
        self.eps = eps

    def initial_std(self, name: str, shape: tuple[int, ...]) -> float | None:
        """Fresh weights of norms are zeros; None for all else."""
        return 0.0 if len(shape) == 1 and "norm" in name and name.endswith(".weight") else None

    def __call__(self, x: mx.array) -> mx.array:
        return ops.rms_norm(x, 1 + self.weight, self.eps)


def build(config: ModelConfig, size: int) -> nn.Module:
    """A norm over the last axis of `size` features."""
    return RMSNormPlusOne(size, config.norm_eps)


of_heads = build  # queries and keys are normed in the same way
