"""Multi-token prediction in sequence: a chain of small modules predicts the tokens after the next.

Module k joins what is known of place i with the token k places on, so that every horizon keeps the chain of
causes:
`h'_k,i = M_k [norm h_(k-1),i ; norm Emb(t_(i+k))]`, `h_k = Block_k(h'_k)`,
`p(t_(i+1+k)) = softmax(W norm h_k,i)`, `loss = main + weight / D sum_k CE_k` over D = horizons - 1 modules.
h_0 is the stack's output; embedding and output matrix are the model's own. The modules densify what a token
teaches; decoding runs without them, or lets them draft tokens to verify (`LM.draft`).

Paper: DeepSeek-AI 2024 (DeepSeek-V3), arXiv:2412.19437, section 2.2, eq. 21 to 25.
Differs: norms are of the model's own kind; h_0 has passed the final norm; the output of each module has a
norm of its own, as in the published weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from tinygpt.core.backend import mx, nn
from tinygpt.model.block import passed
from tinygpt.model.config import NORM, ModelConfig
from tinygpt.model.frame import Frame
from tinygpt.model.head._ahead import Ahead, Knobs, block_of


@dataclass(frozen=True, kw_only=True)
class Config(Knobs):
    """Knobs of the chain."""

    horizons: Annotated[int, "Tokens predicted at every place, the next one included."] = 2
    weight: Annotated[float, "Weight of the mean loss of the tokens after the next."] = 0.3


class Link(nn.Module):
    """One module of the chain. B batch, L places, D width."""

    def __init__(self, config: ModelConfig, place: int) -> None:
        super().__init__()
        norm, d = NORM.load(config.norm.name).build, config.hidden_size
        self.hnorm, self.enorm = norm(config, d), norm(config, d)
        self.eh_proj = nn.Linear(2 * d, d, bias=False)
        self.block = block_of(config, place)
        if not getattr(self.block.mlp_residual, "leaves_normed", False):
            self.norm = norm(config, d)

    def __call__(self, h_BLD: mx.array, ids_BL: mx.array, frame: Frame, cache: Any | None = None) -> mx.array:
        """h_k (B, L, D) from h_(k-1) and the tokens k places on."""
        e_BLD = frame.stack.embed(ids_BL)
        x_BLD = self.eh_proj(mx.concatenate([self.hnorm(h_BLD), self.enorm(e_BLD)], axis=-1))  # eq. 21
        return passed(self.block, x_BLD, frame, cache)  # eq. 22

    def finish(self, h_BLD: mx.array, frame: Frame) -> mx.array:
        """What the output matrix reads."""
        return self.norm(h_BLD) if "norm" in self else h_BLD


def build(config: ModelConfig) -> nn.Module:
    """The head of a model."""
    knobs: Config = config.head.options
    n = knobs.horizons - 1
    return Ahead(config, [Link(config, i) for i in range(n)], chained=True, share=knobs.weight / n)  # eq. 25
