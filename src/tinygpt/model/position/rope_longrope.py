"""LongRoPE: every pair of RoPE has a divisor of its own, one list for short texts and one for long ones.

Pair j turns by `position / lambda_j * theta^(-2j/K)`, with `lambda` = `short_factor` for texts of up to n
tokens, the context before stretching, and `long_factor` for longer ones. The lists are found by search, not
by a formula, and the model is trained on with them. What is turned is multiplied by
`m = sqrt(1 + ln(s) / ln(n))`, s the stretch, since attention over more tokens is flatter.

The angles change when a text passes n tokens. So caches keep keys unturned and every pass turns what it reads
with the list that fits the text's length, also in a batch or a packed row. Within either range cached and
uncached passes are equal, and so is the first layer where a text grows from one into the other; deeper layers
then hold what earlier tokens became with the short list.

Paper: Ding et al., ICML 2024, arXiv:2402.13753; as in Phi-3: Abdin et al. 2024, arXiv:2404.14219.
Differs: no first tokens are left unscaled (the paper's n-hat); mlx_lm uses the long list for texts of any
length.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import ConfigError
from tinygpt.model.config import ModelConfig
from tinygpt.model.frame import Frame
from tinygpt.model.position._rotary import LateRotaryPosition, RotaryConfig, plain_frequencies, text_lengths


@dataclass(frozen=True, kw_only=True)
class Config(RotaryConfig):
    """Knobs of LongRoPE."""

    short_factor: Annotated[tuple[float, ...], "Divisor of every pair in short texts; none: 1 for all."] = ()
    long_factor: Annotated[tuple[float, ...], "Divisor of every pair in long texts; none: 1 for all."] = ()
    original_max_position_embeddings: Annotated[
        int, "Context before stretching, the longest short text; 0: max_position_embeddings."
    ] = 0
    factor: Annotated[
        float, "How many times longer the context became; 0: max_position_embeddings / the old one."
    ] = 0.0
    attention_factor: Annotated[
        float, "Multiplies what is turned; 0: sqrt(1 + ln(factor) / ln(old context))."
    ] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("original_max_position_embeddings", "factor", "attention_factor"):
            if getattr(self, name) < 0:
                raise ConfigError(f"position.{name} must not be negative, got {getattr(self, name):g}")
        if any(not f > 0 for f in (*self.short_factor, *self.long_factor)):
            raise ConfigError("position.short_factor and long_factor must be positive")


class LongRotaryPosition(LateRotaryPosition):
    """Holds no parameters; turns queries, and keys as they are read. B rows, L tokens, J turned pairs."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        knobs: Config = config.position.options
        self.trained = knobs.original_max_position_embeddings
        stretch = knobs.factor or config.max_position_embeddings / self.trained
        grown = math.sqrt(1 + math.log(stretch) / math.log(self.trained)) if stretch > 1 else 1.0
        self.gain = knobs.attention_factor or grown
        plain = plain_frequencies(config)
        self._short, self._long = (
            mx.array([f / w for f, w in zip(_of_pairs(config, name), plain)], mx.float32)
            for name in ("short_factor", "long_factor")
        )
        mx.eval(self._short, self._long)  # lazy arrays cannot go to another thread

    def _wavelengths(self, frame: Frame) -> mx.array:
        """Wavelengths (J,), (B, 1, J) or (B, L, J) / 2 pi."""
        n = text_lengths(frame)
        if isinstance(n, int):
            return self._long if n > self.trained else self._short
        return mx.where((n > self.trained)[..., None], self._long, self._short)


def _of_pairs(config: ModelConfig, name: str) -> tuple[float, ...]:
    """The divisors of all turned pairs."""
    given, pairs = getattr(config.position.options, name), len(plain_frequencies(config))
    if given and len(given) != pairs:
        raise ConfigError(f"position.{name} has {len(given)} values for {pairs} turned pairs of features")
    return given or (1.0,) * pairs


def complete(config: ModelConfig) -> Config:
    """The options with the context before stretching filled in."""
    options: Config = config.position.options
    trained = options.original_max_position_embeddings or config.max_position_embeddings
    if trained < 2:
        raise ConfigError(f"original_max_position_embeddings must be at least 2, got {trained}")
    return dataclasses.replace(options, original_max_position_embeddings=trained)


def build(config: ModelConfig) -> nn.Module:
    """The position module of a model."""
    return LongRotaryPosition(config)
