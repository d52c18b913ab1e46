"""YaRN: slow pairs of RoPE are divided by a factor, fast ones stay, and scores are sharpened a little.

Pair j, `f_j = theta^(-2j/K)`, turns `r_j = n f_j / (2 pi)` times within the n tokens before stretching.
Between the pair with `beta_fast` turns and the one with `beta_slow` a ramp g falls from 1 to 0 with j, and
`f'_j = (1 - g_j) f_j / factor + g_j f_j`. Queries and keys are both multiplied by `m = 0.1 ln(factor) + 1`,
the paper's sqrt(1/t): attention over more tokens would otherwise be flatter than what the model knows.

Paper: Peng et al., ICLR 2024, arXiv:2309.00071 (sections 3.2 and 3.4).
Differs: the ramp runs over pair numbers, as in the authors' code; the paper's runs over turns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.backend import nn
from tinygpt.core.errors import ConfigError
from tinygpt.model.config import ModelConfig
from tinygpt.model.position._rotary import RotaryPosition, StretchedConfig, plain_frequencies, turned_width
from tinygpt.model.position._rotary import complete as complete


@dataclass(frozen=True, kw_only=True)
class Config(StretchedConfig):
    """Knobs of YaRN."""

    beta_fast: Annotated[float, "Pairs with more turns than this in the old context stay."] = 32.0
    beta_slow: Annotated[float, "Pairs with fewer turns than this in the old context are slowed."] = 1.0
    attention_factor: Annotated[
        float, "Multiplies queries and keys (mscale); 0: the paper's 0.1 ln(factor) + 1."
    ] = 0.0
    truncate: Annotated[bool, "Round the ends of the ramp to whole pairs, as the authors' code does."] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.beta_slow <= self.beta_fast:
            raise ConfigError(
                f"beta_slow ({self.beta_slow:g}) must be positive and not above beta_fast "
                f"({self.beta_fast:g})"
            )
        if self.attention_factor < 0:
            raise ConfigError(f"attention_factor must not be negative, got {self.attention_factor:g}")


def _pair(turns: float, config: ModelConfig) -> float:
    """The pair, as a fraction between whole ones, that turns so many times in the old context."""
    knobs = config.position.options
    n = knobs.original_max_position_embeddings
    return turned_width(config) * math.log(n / (turns * 2 * math.pi)) / (2 * math.log(knobs.theta))


def build(config: ModelConfig) -> nn.Module:
    """The position module of a model."""
    knobs = config.position.options
    low, high = _pair(knobs.beta_fast, config), _pair(knobs.beta_slow, config)
    if knobs.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, turned_width(config) - 1)
    run = high - low or 0.001  # a ramp without length is a step
    found = []
    for j, f in enumerate(plain_frequencies(config)):
        stays = 1 - min(1.0, max(0.0, (j - low) / run))
        found.append((1 - stays) * f / knobs.factor + stays * f)
    gain = knobs.attention_factor or 0.1 * math.log(knobs.factor) + 1
    return RotaryPosition(config, frequencies=found, gain=gain)
