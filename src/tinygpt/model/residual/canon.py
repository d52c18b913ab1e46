"""Canon: a sublayer reads each token together with the three before it.

`x + f(c(norm(x)))` with `c(h)_t = h_t + sum_i w_i * h_(t-i)` for i = 0 .. kernel - 1: a depthwise causal
convolution, one weight a feature and place, added to what it reads. A token then knows its neighbours before
attention begins, so one head can look up "what followed these three tokens", and the MLP sees short phrases.
It costs a few thousand parameters and elementwise work, and pays most in small models: copying a name takes a
plain transformer two layers that must find each other first.

Paper: Allen-Zhu 2025, Physics of Language Models part 4.1 (Canon layers), placements A and C.
Differs: no placement inside attention (B) or inside the MLP (D); weights start as the model's other ones do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import ConfigError
from tinygpt.model.config import ModelConfig
from tinygpt.model.earlier import earlier
from tinygpt.model.frame import Frame


@dataclass(frozen=True, kw_only=True)
class Config:
    """Knobs of Canon."""

    kernel: Annotated[int, "Tokens a convolution reads: the token itself and those before it."] = 4

    def __post_init__(self) -> None:
        if not 2 <= self.kernel <= 64:
            raise ConfigError(f"Canon's kernel must be from 2 to 64, got {self.kernel}")


class CanonResidual(nn.Module):
    """Joins a sublayer to the stream, with a convolution before the sublayer."""

    reads_earlier = True

    def __init__(self, config: ModelConfig, name: str) -> None:
        super().__init__()
        self._name = name
        # (features, places, 1), the newest place first: MLX's layout of depthwise convolutions.
        self.weight = mx.zeros((config.hidden_size, config.residual.options.kernel, 1))

    def __call__(
        self,
        x_BLD: mx.array,
        norm: nn.Module,
        sublayer: Callable[[mx.array], mx.array],
        frame: Frame,
        cache: Any,
    ) -> mx.array:
        h_BLD = norm(x_BLD)
        weights_KD = self.weight[..., 0].T
        read_BLD = h_BLD * (1 + weights_KD[0])
        for weight_D, before_BLD in zip(
            weights_KD[1:], earlier(h_BLD, len(weights_KD) - 1, frame, cache, self._name)
        ):
            read_BLD = read_BLD + before_BLD * weight_D
        return x_BLD + sublayer(read_BLD)


def build(config: ModelConfig, layer: int, sublayer: str) -> nn.Module:
    """The residual rule of one sublayer ("attn" or "mlp")."""
    return CanonResidual(config, sublayer)
