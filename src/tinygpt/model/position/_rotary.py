"""What rotary positions share: the base, how heads are turned, and the context before stretching."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.model import ops
from tinygpt.model.config import ModelConfig
from tinygpt.model.frame import Frame
from tinygpt.model.position._base import NoPosition


@dataclass(frozen=True, kw_only=True)
class RotaryConfig:
    """The knob of every rotary position."""

    theta: Annotated[float, "Base of the geometric series of wavelengths."] = 10000.0

    def __post_init__(self) -> None:
        if self.theta <= 1:
            raise ConfigError(f"the base of rotary wavelengths must be above 1, got {self.theta:g}")


@dataclass(frozen=True, kw_only=True)
class StretchedConfig(RotaryConfig):
    """The knobs of positions that were stretched to a longer context."""

    factor: Annotated[float, "How many times longer the context became."] = 4.0
    original_max_position_embeddings: Annotated[
        int, "Context before stretching; 0: max_position_embeddings / factor."
    ] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_factor(self.factor)


class RotaryPosition(NoPosition):
    """Holds no parameters; turns queries and keys inside attention."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        frequencies: Sequence[float] | None = None,
        scale: float = 1.0,
        gain: float = 1.0,
    ) -> None:
        """frequencies: radians a position of every feature pair, where they are not the plain ones.
        scale: multiplies positions. gain: multiplies what is turned, so scores grow by its square.
        """
        super().__init__()
        head_width(config)
        self.theta, self.scale, self.gain = config.position.options.theta, scale, gain
        self._wavelengths = None
        if frequencies is not None:
            self._wavelengths = mx.array([1 / f for f in frequencies], mx.float32)
            mx.eval(self._wavelengths)  # lazy arrays cannot go to another thread

    def rotate(self, x_BHLK: mx.array, offset: int | mx.array, frame: Frame) -> mx.array:
        """Turn heads by their positions: offset is the first position, a number or one per row (B,), where
        the frame gives no places."""
        y_BHLK = ops.rope(
            x_BHLK,
            base=self.theta,
            offset=offset,
            positions=frame.places,
            freqs=self._wavelengths,
            scale=self.scale,
        )
        return y_BHLK if self.gain == 1.0 else y_BHLK * self.gain


def head_width(config: ModelConfig) -> int:
    """K, refused where its features do not come in pairs."""
    if config.head_dim % 2:
        raise ConfigError(
            f"rotary positions turn pairs of features, and head_dim is {config.head_dim}",
            hint="choose an even head_dim",
        )
    return config.head_dim


def plain_frequencies(config: ModelConfig) -> list[float]:
    """theta^(-2j/K) of every feature pair j, in radians a position."""
    width = head_width(config)
    return [config.position.options.theta ** (-2 * j / width) for j in range(width // 2)]


def check_factor(factor: float) -> None:
    """Contexts are stretched, never squeezed."""
    if factor < 1:
        raise ConfigError(f"the factor of a longer context must be at least 1, got {factor:g}")


def complete(config: ModelConfig) -> StretchedConfig:
    """The options with the context before stretching filled in: max_position_embeddings / factor."""
    options = config.position.options
    trained = options.original_max_position_embeddings or round(
        config.max_position_embeddings / options.factor
    )
    if trained < 1:
        raise ConfigError(
            f"original_max_position_embeddings must be at least 1, got {trained}",
            hint="it is the context that the model was trained with, before it was stretched",
        )
    return dataclasses.replace(options, original_max_position_embeddings=trained)
