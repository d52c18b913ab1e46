"""Plain pre-norm residual: `x + f(norm(x))`.

The stream is never normalised itself, so gradients reach every layer unchanged.

Paper: Xiong et al., ICML 2020, arXiv:2002.04745 (pre-LN).
Differs: nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinygpt.core.backend import mx, nn
from tinygpt.model.config import ModelConfig
from tinygpt.model.frame import Frame


class PlainResidual(nn.Module):
    """Joins a sublayer to the stream."""

    def __call__(
        self,
        x_BLD: mx.array,
        norm: nn.Module,
        sublayer: Callable[[mx.array], mx.array],
        frame: Frame,
        cache: Any,
    ) -> mx.array:
        return x_BLD + sublayer(norm(x_BLD))


def build(config: ModelConfig, layer: int, sublayer: str) -> nn.Module:
    """The residual rule of one sublayer ("attn" or "mlp")."""
    return PlainResidual()
