"""ALiBi: no positions; every head lowers its scores in proportion to the distance, each head at its own rate.

`score_ij = q_i k_j / sqrt(K) - m_h (i - j)`. For H heads, a power of two, the rates are the geometric series
`m_h = 2^(-8h/H)`, h = 1 .. H. For any other H they are those of the power of two below it, n, followed by
every second one of the series for 2n. Nothing is trained, and texts longer than trained ones hold up well.

Paper: Press et al., ICLR 2022, arXiv:2108.12409 (section 3; the rule for any H is that of the authors' code).
Differs: nothing.
"""

from __future__ import annotations

from tinygpt.core.backend import mx, nn
from tinygpt.model.config import ModelConfig
from tinygpt.model.position._base import NoPosition


class AlibiPosition(NoPosition):
    """Holds no parameters; gives attention a bias. H query heads, L queries, S keys."""

    inside_attention = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self._rates = mx.array(_rates(config.num_attention_heads), mx.float32)
        mx.eval(self._rates)  # lazy arrays cannot go to another thread

    def bias(self, queries_L: mx.array, keys_S: mx.array) -> mx.array:
        """What scores lose, (1 or B, H, L, S), from the places of queries and keys in their row: (L,) and
        (S,), or (B, L) and (B, S) where they differ from row to row."""
        behind_SL = (keys_S[..., :, None] - queries_L[..., None, :]).astype(mx.float32)
        if behind_SL.ndim == 2:
            behind_SL = behind_SL[None]
        return (self._rates[:, None, None] * behind_SL[:, None]).swapaxes(-1, -2)  # keys lie first, as on CPU


def _rates(n_heads: int) -> list[float]:
    below = 1 << (n_heads.bit_length() - 1)
    rates = [2 ** (-8 * h / below) for h in range(1, below + 1)]
    between = [2 ** (-8 * h / (2 * below)) for h in range(1, 2 * below + 1, 2)]
    return rates + between[: n_heads - below]


def build(config: ModelConfig) -> nn.Module:
    """The position module of a model."""
    return AlibiPosition(config)
