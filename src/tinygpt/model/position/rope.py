"""Rotary position embedding: rotate pairs of query and key features by an angle that grows with the position.

Feature pair j of a head turns by `position * theta^(-2j/K)`, so a query-key product depends on their distance
only. The halves of a head are paired (j with j + K/2), as Llama's files are laid out. Because only distances
matter, packed documents need no position reset: attention between documents is masked anyway.

Paper: Su et al. 2021, arXiv:2104.09864.
Differs: pairs halves instead of neighbours (the same up to a permutation of features).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.backend import mx, nn
from tinygpt.model import ops
from tinygpt.model.config import ModelConfig
from tinygpt.model.frame import Frame


@dataclass(frozen=True, kw_only=True)
class Config:
    """Knobs of rotary positions."""

    theta: Annotated[float, "Base of the geometric series of wavelengths."] = 10000.0


class RotaryPosition(nn.Module):
    """Holds no parameters; turns queries and keys inside attention."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.theta = config.position.options.theta
        self.dims = config.head_dim

    def embed(self, x_BLD: mx.array, offset: int | mx.array, frame: Frame) -> mx.array:
        """Nothing is added to the embeddings."""
        return x_BLD

    def rotate(self, x_BHLK: mx.array, offset: int | mx.array, frame: Frame) -> mx.array:
        """Turn heads by their positions: offset is the first position, a number or one per row (B,)."""
        return ops.rope(x_BHLK, base=self.theta, offset=offset, dims=self.dims)


def build(config: ModelConfig) -> nn.Module:
    """The position module of a model."""
    return RotaryPosition(config)
