"""Differential attention: two softmax maps, one taken from the other, so that common noise cancels.

The heads come in pairs. Of a pair, `A_i = softmax(q_i k_i^T / sqrt(K))` for i = 1, 2 read the same values of
width 2K, and `y = (A_1 - lambda A_2) v`. Each pair's output is normed by an RMSNorm of its own width and
scaled by `1 - lambda_init`, so gradients keep the size they have in plain attention. lambda is learned as
`exp(lq1 . lk1) - exp(lq2 . lk2) + lambda_init`, with `lambda_init = 0.8 - 0.6 exp(-0.3 l)` for layer
l = 0, 1, ... Parameters, cache and work are those of grouped-query attention with the same numbers of heads,
but for four vectors a layer and the norm.

With `window` both maps read the last so many tokens; with `qk_norm` the queries and keys of both pass a norm
a head. Both knobs are those of `gqa`, which says where they come from.

Paper: Ye et al., ICLR 2025, arXiv:2410.05258 (eq. 1-3).
Differs: query pairs share key pairs in groups (as in the authors' code); lambda is computed in float32; the
paper has neither the window nor the norms of queries and keys.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import ConfigError
from tinygpt.model import ops
from tinygpt.model.attention._heads import Heads, Knobs, in_heads
from tinygpt.model.config import ModelConfig
from tinygpt.model.frame import Frame
from tinygpt.model.reading import read

LAMBDA_STD = 0.1  # of fresh lambda vectors (section 2.1)


@dataclass(frozen=True, kw_only=True)
class Config(Knobs):
    """Knobs of differential attention."""


class DifferentialAttention(Heads):
    """x (B, L, D) -> (B, L, D). B batch, L length, P pairs of query heads, G pairs of key heads, K head
    width, V = 2K width of a pair's values."""

    takes_sinks = True
    reads_any = True  # of the tokens of a row, some may be left out

    def __init__(self, config: ModelConfig, layer: int, *, window: int = 0, qk_norm: bool = False) -> None:
        for name in ("num_attention_heads", "num_key_value_heads"):
            if getattr(config, name) % 2:
                n = getattr(config, name)
                raise ConfigError(
                    f"differential attention pairs heads, so {name} must be even, got {n}",
                    hint="choose even numbers of heads",
                )
        super().__init__(config, layer, window=window, qk_norm=qk_norm)
        # Both maps of a pair make scores of width K, and each reads values of twice the width.
        self.read_width = 3 * self.n_heads * self.d_head
        self.lambda_init = 0.8 - 0.6 * math.exp(-0.3 * layer)
        for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):
            setattr(self, name, mx.zeros((self.d_head,)))
        self.pair_norm = nn.RMSNorm(2 * self.d_head, eps=config.norm_eps)

    def initial_std(self, name: str, shape: tuple[int, ...]) -> float | None:
        """The spread of fresh lambda vectors; None for all else."""
        return LAMBDA_STD if ".lambda_" in name else None

    def mixing(self) -> mx.array:
        """lambda (eq. 2), a float32 scalar."""
        q1, k1, q2, k2 = (
            getattr(self, f"lambda_{name}").astype(mx.float32) for name in ("q1", "k1", "q2", "k2")
        )
        return mx.exp((q1 * k1).sum()) - mx.exp((q2 * k2).sum()) + self.lambda_init

    def __call__(self, x_BLD: mx.array, frame: Frame, cache: Any | None = None) -> mx.array:
        # The first halves of the heads are the maps that read, the second halves those taken off.
        q_BHLK, k_BHLK = self.make_queries(x_BLD), self.make_keys(x_BLD)
        v_BGLV = in_heads(self.v_proj(x_BLD), self.n_groups // 2)
        found = read(q_BHLK, k_BHLK, v_BGLV, frame, cache, window=self.window, name=self._name)
        reads, noise = (
            ops.attention(
                q_BPLK, k_BGSK, found.v, scale=self.scale, mask=found.mask, segments=frame.segments,
                window=self.window,
            )
            for q_BPLK, k_BGSK in zip(mx.split(found.q, 2, axis=1), mx.split(found.k, 2, axis=1))
        )  # fmt: skip
        y_BPLV = reads - self.mixing().astype(reads.dtype) * noise
        y_BPLV = self.pair_norm(y_BPLV) * (1 - self.lambda_init)  # eq. 3
        return self.joined(y_BPLV, frame)


def build(config: ModelConfig, layer: int) -> nn.Module:
    """The attention module of one layer."""
    return DifferentialAttention(config, layer, **dataclasses.asdict(config.attention.options))
