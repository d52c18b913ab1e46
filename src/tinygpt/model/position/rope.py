"""Rotary position embedding: rotate pairs of query and key features by an angle that grows with the position.

Feature pair j of a head turns by `position * theta^(-2j/K)`, so a query-key product depends on their distance
only. The halves of a head are paired (j with j + K/2), as Llama's files are laid out. Because only distances
matter, packed documents need no position reset: attention between documents is masked anyway.

Paper: Su et al. 2021, arXiv:2104.09864.
Differs: a `share` of the features may be turned and the rest left, as in Phi-3; pairs halves instead of
neighbours (the same up to a permutation of features).
"""

from __future__ import annotations

from dataclasses import dataclass

from tinygpt.core.backend import nn
from tinygpt.model.config import ModelConfig
from tinygpt.model.position._rotary import RotaryConfig, RotaryPosition


@dataclass(frozen=True, kw_only=True)
class Config(RotaryConfig):
    """Knobs of rotary positions."""


def build(config: ModelConfig) -> nn.Module:
    """The position module of a model."""
    return RotaryPosition(config)
