"""Plain pre-norm residual: `x + f(norm(x))`.

The stream is never normalised itself, so gradients reach every layer unchanged. With `scale` a sublayer adds
that much of what it makes, `x + scale f(norm(x))`, as Granite's residual_multiplier does.

Paper: Xiong et al., ICML 2020, arXiv:2002.04745 (pre-LN). Of the scale: Yang et al. 2022, arXiv:2203.03466.
Differs: nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import ConfigError
from tinygpt.model.config import ModelConfig
from tinygpt.model.frame import Frame


@dataclass(frozen=True, kw_only=True)
class Config:
    """Knobs of the plain residual."""

    scale: Annotated[float, "Multiplies what a sublayer adds to the stream."] = 1.0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ConfigError(f"residual.scale must be positive, got {self.scale:g}")


class PlainResidual(nn.Module):
    """Joins a sublayer to the stream."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def __call__(
        self,
        x_BLD: mx.array,
        norm: nn.Module,
        sublayer: Callable[[mx.array], mx.array],
        frame: Frame,
        cache: Any,
    ) -> mx.array:
        y_BLD = sublayer(norm(x_BLD))
        return x_BLD + (y_BLD if self.scale == 1.0 else y_BLD * self.scale)


def build(config: ModelConfig, layer: int, sublayer: str) -> nn.Module:
    """The residual rule of one sublayer ("attn" or "mlp")."""
    return PlainResidual(config.residual.options.scale)
