"""Sandwich norms: `x + norm_out(f(norm_in(x)))`, one norm before a sublayer and one on what it makes.

Pre-norm alone lets what sublayers add grow with depth; the second norm bounds it, and the stream keeps its
straight path. It costs one more weight vector a sublayer.

Paper: Ding et al., NeurIPS 2021, arXiv:2105.13290 (Sandwich-LN); Gemma Team 2024, arXiv:2408.00118.
Differs: the norm is the model's own, RMSNorm by default.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinygpt.core.backend import mx, nn
from tinygpt.model.config import NORM, ModelConfig
from tinygpt.model.frame import Frame


class SandwichResidual(nn.Module):
    """Joins a sublayer to the stream, between two norms."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = NORM.load(config.norm.name).build(config, config.hidden_size)

    def __call__(
        self,
        x_BLD: mx.array,
        norm: nn.Module,
        sublayer: Callable[[mx.array], mx.array],
        frame: Frame,
        cache: Any,
    ) -> mx.array:
        return x_BLD + self.norm(sublayer(norm(x_BLD)))


def build(config: ModelConfig, layer: int, sublayer: str) -> nn.Module:
    """The residual rule of one sublayer ("attn" or "mlp")."""
    return SandwichResidual(config)
