"""Multi-token prediction in parallel: independent blocks on one trunk predict the tokens after the next.

The stack without its last block is the trunk f; that block is the first head, and each further token has a
block b_k beside it: `p(t_(i+1+k)) = softmax(W norm b_k(f(t_(<=i))))`, `loss = main + weight sum_k CE_k`.
Final norm and output matrix are shared. Nothing is fed back, so a draft costs one block a token
(`LM.draft`); decoding without drafts leaves the extra blocks out.

Paper: Gloeckle et al., ICML 2024, arXiv:2404.19737, eq. 2 and section 2.
Differs: the extra blocks come on top of the model's layers; the paper takes as many out of the trunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from tinygpt.core.backend import mx, nn
from tinygpt.model.block import passed
from tinygpt.model.config import ModelConfig
from tinygpt.model.frame import Frame
from tinygpt.model.head._ahead import Ahead, Knobs, block_of


@dataclass(frozen=True, kw_only=True)
class Config(Knobs):
    """Knobs of the independent heads."""

    horizons: Annotated[int, "Tokens predicted at every place, the next one included."] = 4
    weight: Annotated[float, "Weight of the loss of each token after the next."] = 1.0


class Branch(nn.Module):
    """One block beside the last of the stack. B batch, L places, D width."""

    def __init__(self, config: ModelConfig, place: int) -> None:
        super().__init__()
        self.block = block_of(config, place)

    def __call__(self, h_BLD: mx.array, ids_BL: mx.array, frame: Frame, cache: Any | None = None) -> mx.array:
        """What the block makes of the trunk (B, L, D)."""
        return passed(self.block, h_BLD, frame, cache)

    def finish(self, h_BLD: mx.array, frame: Frame) -> mx.array:
        """The final norm, which all heads share."""
        return frame.stack.finish(h_BLD)


def build(config: ModelConfig) -> nn.Module:
    """The head of a model."""
    knobs: Config = config.head.options
    branches = [Branch(config, i) for i in range(knobs.horizons - 1)]
    return Ahead(config, branches, chained=False, share=knobs.weight)
