"""Soft Mixture of Depths: every token passes through the block, and a gate says how far it moves.

`x' = x + sigmoid(w x + b) (block(x) - x)`, a gate a token. Smooth and causal everywhere, so it needs neither
capacity nor predictor, and it saves nothing: a yardstick for the hard routing of `mod`.

Paper: Raposo et al. 2024, arXiv:2404.02258 (of which this keeps the router and leaves the choice away).
Differs: no token is left out; the router's value goes through a sigmoid.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinygpt.core.backend import mx, nn
from tinygpt.model.config import ModelConfig
from tinygpt.model.depth.mod import refuse_replaced_stream
from tinygpt.model.frame import Frame


class SoftDepth(nn.Module):
    """x (B, L, D) -> (B, L, D)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.router = nn.Linear(config.hidden_size, 1)

    def check(self, block: Any, position: Any) -> None:
        """Refuse a block that does not add to the stream."""
        refuse_replaced_stream(block, "mod_soft")

    def make_cache(self, attention: Any) -> Any:
        """The attention's own cache: it sees all tokens."""
        return attention.make_cache()

    def __call__(
        self,
        x_BLD: mx.array,
        block: Callable[[mx.array, Frame, Any], mx.array],
        frame: Frame,
        cache: Any | None,
    ) -> mx.array:
        return x_BLD + mx.sigmoid(self.router(x_BLD)) * (block(x_BLD, frame, cache) - x_BLD)


def build(config: ModelConfig, layer: int) -> nn.Module:
    """The rule of one block."""
    return SoftDepth(config)
