"""Post-norm inside the branch: `x + norm(f(x))`, so a sublayer adds no more than its norm's weights allow.

The sublayer reads the stream as it is; what it makes is normed before it is added. The stream itself is not
normalised, so gradients still reach every layer unchanged, and large activations of one sublayer cannot
swamp the rest: training of deep stacks is steadier, above all together with normed queries and keys.

Paper: Liu et al., CVPR 2022, arXiv:2111.09883 (res-post-norm); in language models: OLMo Team 2025,
arXiv:2501.00656 (section 3.1).
Differs: nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinygpt.core.backend import mx, nn
from tinygpt.model.config import ModelConfig
from tinygpt.model.frame import Frame


class PostNormResidual(nn.Module):
    """Joins a sublayer to the stream, normed."""

    def __call__(
        self,
        x_BLD: mx.array,
        norm: nn.Module,
        sublayer: Callable[[mx.array], mx.array],
        frame: Frame,
        cache: Any,
    ) -> mx.array:
        return x_BLD + norm(sublayer(x_BLD))


def build(config: ModelConfig, layer: int, sublayer: str) -> nn.Module:
    """The residual rule of one sublayer ("attn" or "mlp")."""
    return PostNormResidual()
