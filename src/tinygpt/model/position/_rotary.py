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
    """The knobs of every rotary position."""

    theta: Annotated[float, "Base of the geometric series of wavelengths."] = 10000.0
    share: Annotated[float, "Share of a head's features that is turned, the first ones."] = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(
                f"the share of turned features must be above 0 and at most 1, got {self.share:g}"
            )
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
        self.dims = turned_width(config)
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
            dims=self.dims,
            freqs=self._wavelengths,
            scale=self.scale,
        )
        return gained(y_BHLK, self.dims, self.gain)


class LateRotaryPosition(NoPosition):
    """Turns queries, and keys as they are read, since angles depend on the text's length. B rows, L tokens,
    K head width, J turned pairs."""

    inside_attention = True
    late = True
    gain = 1.0

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dims, self.theta = turned_width(config), config.position.options.theta

    def rotate(self, x_BHLK: mx.array, offset: int | mx.array, frame: Frame) -> mx.array:
        """Turn heads by their positions, with the wavelengths that the texts' lengths ask for."""
        if "rope_late" not in frame.shared:
            frame.shared["rope_late"] = self._wavelengths(frame)
        wavelengths, dims = frame.shared["rope_late"], self.dims
        if wavelengths is None or wavelengths.ndim == 1:
            y_BHLK = ops.rope(x_BHLK, base=self.theta, offset=offset, dims=dims, freqs=wavelengths)
        else:
            at = mx.arange(x_BHLK.shape[2]) + (offset[:, None] if isinstance(offset, mx.array) else offset)
            y_BHLK = ops.rope(x_BHLK, positions=at, dims=dims, freqs=wavelengths)
        return gained(y_BHLK, dims, self.gain)

    def _wavelengths(self, frame: Frame) -> mx.array | None:
        """Wavelengths (J,), (B, 1, J) or (B, L, J) / 2 pi; None: the plain ones."""
        return None


def text_lengths(frame: Frame) -> int | mx.array:
    """Tokens of the text that a pass belongs to: one number, (B, 1) a row, or (B, L) of packed documents."""
    n = frame.offset + frame.length
    if not isinstance(n, int):
        return n[:, None]
    if frame.segments is None:
        return n
    return (frame.segments[:, :, None] == frame.segments[:, None]).sum(axis=-1)


def gained(x_BHLK: mx.array, dims: int, gain: float) -> mx.array:
    """The turned features, the first `dims`, times the gain."""
    if gain == 1.0:
        return x_BHLK
    if dims == x_BHLK.shape[-1]:
        return x_BHLK * gain
    return mx.concatenate([x_BHLK[..., :dims] * gain, x_BHLK[..., dims:]], axis=-1)


def turned_width(config: ModelConfig) -> int:
    """How many of the K features of a head are turned, refused where they do not come in pairs."""
    dims = int(config.head_dim * config.position.options.share)
    if dims % 2 or not dims:
        part = "" if dims == config.head_dim else f", of which {dims} are turned"
        raise ConfigError(
            f"rotary positions turn pairs of features, and head_dim is {config.head_dim}{part}",
            hint="choose an even head_dim" + (", or another position.share" if part else ""),
        )
    return dims


def plain_frequencies(config: ModelConfig) -> list[float]:
    """theta^(-2j/K) of every turned feature pair j, in radians a position; K the features turned."""
    width = turned_width(config)
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
