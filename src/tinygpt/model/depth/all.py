"""All tokens: every block computes every token, as transformers do.

`x' = block(x)`.

Paper: Vaswani et al. 2017, arXiv:1706.03762.
Differs: nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinygpt.core.backend import mx, nn
from tinygpt.model.config import ModelConfig
from tinygpt.model.frame import Frame


class AllTokens(nn.Module):
    """x (B, L, D) -> (B, L, D)."""

    def check(self, block: Any, position: Any) -> None:
        """It goes with everything."""

    def make_cache(self, attention: Any) -> Any:
        """The attention's own cache."""
        return attention.make_cache()

    def __call__(
        self,
        x_BLD: mx.array,
        block: Callable[[mx.array, Frame, Any], mx.array],
        frame: Frame,
        cache: Any | None,
    ) -> mx.array:
        return block(x_BLD, frame, cache)


def build(config: ModelConfig, layer: int) -> nn.Module:
    """The rule of one block."""
    return AllTokens()
