"""Dynamic NTK scaling of RoPE: plain up to the trained context, beyond it the base grows with the text.

For a text of n tokens and a model trained on N = max_position_embeddings,
`theta' = theta (factor n / N - (factor - 1))^(K / (K - 2))` where n > N: fast pairs hardly change, the
slowest is slowed down n / N times or more. No training is needed, and short texts lose nothing.

When the base changes, all keys must turn anew. So caches keep keys as they are and every pass turns what it
reads; each text, also in a batch or a packed row, has the base of its own length. Up to N tokens cached and
uncached passes are equal. Beyond, one pass over all tokens gives each of them the last base, while a cache
holds what earlier tokens became with the bases of their time: equal in the first layer, not in deeper ones,
though closer than where cached keys stay as they were turned.

Paper: Peng et al., ICLR 2024, arXiv:2309.00071 (section 3.3).
Differs: the factor is that of transformers and mlx_lm; 1 is the paper's form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import ConfigError
from tinygpt.model.config import ModelConfig
from tinygpt.model.frame import Frame
from tinygpt.model.position._rotary import LateRotaryPosition, RotaryConfig, check_factor, text_lengths


@dataclass(frozen=True, kw_only=True)
class Config(RotaryConfig):
    """Knobs of dynamic scaling."""

    factor: Annotated[float, "How fast the base grows beyond max_position_embeddings."] = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_factor(self.factor)


class DynamicRotaryPosition(LateRotaryPosition):
    """Holds no parameters; turns queries, and keys as they are read. B rows, L tokens, J turned pairs."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.factor, self.trained = config.position.options.factor, config.max_position_embeddings
        if self.dims < 4:
            raise ConfigError(
                f"dynamic scaling needs head_dim of at least 4, got {self.dims}", hint="use position=rope"
            )

    def _wavelengths(self, frame: Frame) -> mx.array | None:
        """Wavelengths (J,), (B, 1, J) or (B, L, J) / 2 pi; None: the plain ones."""
        n = frame.offset + frame.length
        if isinstance(n, int) and n <= self.trained:
            return None
        n = text_lengths(frame)
        pairs = mx.arange(0, self.dims, 2, dtype=mx.float32) / self.dims
        if isinstance(n, int):
            grown = self._stretch(n / self.trained) ** (self.dims / (self.dims - 2))
            return mx.exp(pairs * math.log(self.theta * grown))
        grown = mx.maximum(self._stretch(n / self.trained), 1.0) ** (self.dims / (self.dims - 2))
        return mx.exp(pairs * mx.log(self.theta * grown)[..., None])

    def _stretch(self, times: Any) -> Any:
        return self.factor * times - (self.factor - 1)


def reach(config: ModelConfig) -> int:
    """Longest text that the scaling is made for."""
    return int(config.max_position_embeddings * config.position.options.factor)


def build(config: ModelConfig) -> nn.Module:
    """The position module of a model."""
    return DynamicRotaryPosition(config)
