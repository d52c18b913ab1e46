"""Learned absolute positions: one trained vector per position, added to the token embedding.

The context cannot grow beyond the table; a longer input is refused.

Paper: Radford et al. 2019 (GPT-2); Vaswani et al. 2017, arXiv:1706.03762, section 3.5.
Differs: nothing.
"""

from __future__ import annotations

from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import ConfigError
from tinygpt.model.config import ModelConfig
from tinygpt.model.frame import Frame
from tinygpt.model.position._base import NoPosition


class LearnedPosition(NoPosition):
    """A table (positions, D)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.weight = mx.zeros((config.max_position_embeddings, config.hidden_size))

    def embed(self, x_BLD: mx.array, offset: int | mx.array, frame: Frame) -> mx.array:
        """Add the vector of each token's position; packed documents count from 0 each."""
        n = self.weight.shape[0]
        last = frame.length + (offset if isinstance(offset, int) else int(offset.max().item()))
        if frame.positions is None and last > n:
            raise ConfigError(
                f"{last} tokens do not fit the model's {n} learned positions",
                hint="shorten the text or the answer",
            )
        positions = frame.positions
        if positions is None:
            steps = mx.arange(frame.length)
            positions = steps + offset if isinstance(offset, int) else offset[:, None] + steps
        # Left padding sits at negative positions; its values are masked, its index must only be legal.
        return x_BLD + self.weight[mx.maximum(positions, 0)]


def build(config: ModelConfig) -> nn.Module:
    """The position module of a model."""
    return LearnedPosition(config)
