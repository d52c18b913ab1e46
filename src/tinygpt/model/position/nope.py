"""No positions at all: the causal mask alone lets a decoder tell what came first.

A token that sees t keys attends to t of them, and from that the first layers can count. Such a stack is often
the one that goes best beyond its training length, and it is a baseline for every other slot here.

Paper: Kazemnejad et al., NeurIPS 2023, arXiv:2305.19466; Haviv et al. 2022, arXiv:2203.16634.
Differs: nothing.
"""

from __future__ import annotations

from tinygpt.core.backend import nn
from tinygpt.model.config import ModelConfig
from tinygpt.model.position._base import NoPosition


def build(config: ModelConfig) -> nn.Module:
    """The position module of a model."""
    return NoPosition()
