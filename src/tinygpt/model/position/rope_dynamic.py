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
from tinygpt.model import ops
from tinygpt.model.config import ModelConfig
from tinygpt.model.frame import Frame
from tinygpt.model.position._base import NoPosition
from tinygpt.model.position._rotary import RotaryConfig, check_factor, head_width


@dataclass(frozen=True, kw_only=True)
class Config(RotaryConfig):
    """Knobs of dynamic scaling."""

    factor: Annotated[float, "How fast the base grows beyond max_position_embeddings."] = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_factor(self.factor)


class DynamicRotaryPosition(NoPosition):
    """Holds no parameters; turns queries, and keys as they are read. B rows, L tokens, K head width."""

    inside_attention = True
    late = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        knobs = config.position.options
        self.theta, self.factor, self.dims = knobs.theta, knobs.factor, head_width(config)
        self.trained = config.max_position_embeddings
        if self.dims < 4:
            raise ConfigError(
                f"dynamic scaling needs head_dim of at least 4, got {self.dims}", hint="use position=rope"
            )

    def rotate(self, x_BHLK: mx.array, offset: int | mx.array, frame: Frame) -> mx.array:
        """Turn heads by their positions, with the base that the texts' lengths ask for."""
        if "rope_dynamic" not in frame.shared:
            frame.shared["rope_dynamic"] = self._wavelengths(frame)
        wavelengths = frame.shared["rope_dynamic"]
        if wavelengths is None or wavelengths.ndim == 1:
            return ops.rope(x_BHLK, base=self.theta, offset=offset, freqs=wavelengths)
        positions = mx.arange(x_BHLK.shape[2]) + (offset[:, None] if isinstance(offset, mx.array) else offset)
        return ops.rope(x_BHLK, positions=positions, freqs=wavelengths)

    def _wavelengths(self, frame: Frame) -> mx.array | None:
        """Wavelengths (K/2,), (B, 1, K/2) or (B, L, K/2) / 2 pi; None: the plain ones."""
        n = frame.offset + frame.length
        pairs = mx.arange(0, self.dims, 2, dtype=mx.float32) / self.dims
        if isinstance(n, int):
            if n <= self.trained:
                return None
            if frame.segments is None:
                grown = self._stretch(n / self.trained) ** (self.dims / (self.dims - 2))
                return mx.exp(pairs * math.log(self.theta * grown))
            same_BLL = frame.segments[:, :, None] == frame.segments[:, None]
            n = same_BLL.sum(axis=-1)
        else:
            n = n[:, None]
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
