"""Differential attention: two softmax maps, one taken from the other, so that common noise cancels.

The heads come in pairs. Of a pair, `A_i = softmax(q_i k_i^T / sqrt(K))` for i = 1, 2 read the same values of
width 2K, and `y = (A_1 - lambda A_2) v`. Each pair's output is normed by an RMSNorm of its own width and
scaled by `1 - lambda_init`, so gradients keep the size they have in plain attention. lambda is learned as
`exp(lq1 . lk1) - exp(lq2 . lk2) + lambda_init`, with `lambda_init = 0.8 - 0.6 exp(-0.3 l)` for layer
l = 0, 1, ... Parameters, cache and work are those of grouped-query attention with the same numbers of heads,
but for four vectors a layer and the norm.

Paper: Ye et al., ICLR 2025, arXiv:2410.05258 (eq. 1-3).
Differs: query pairs share key pairs in groups (as in the authors' code); lambda is computed in float32.
"""

from __future__ import annotations

import math
from typing import Any

from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import ConfigError
from tinygpt.model import ops
from tinygpt.model.cache.full import KVCache
from tinygpt.model.config import ModelConfig
from tinygpt.model.frame import Frame
from tinygpt.model.reading import read

LAMBDA_STD = 0.1  # of fresh lambda vectors (section 2.1)


class DifferentialAttention(nn.Module):
    """x (B, L, D) -> (B, L, D). B batch, L length, P pairs of query heads, G pairs of key heads, K head
    width, V = 2K width of a pair's values."""

    takes_sinks = True
    reads_any = True  # of the tokens of a row, some may be left out

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        for name in ("num_attention_heads", "num_key_value_heads"):
            if getattr(config, name) % 2:
                n = getattr(config, name)
                raise ConfigError(
                    f"differential attention pairs heads, so {name} must be even, got {n}",
                    hint="choose even numbers of heads",
                )
        self.n_pairs, self.n_groups = config.num_attention_heads // 2, config.num_key_value_heads // 2
        self.d_head = config.head_dim
        self.scale = self.d_head**-0.5
        self.lambda_init = 0.8 - 0.6 * math.exp(-0.3 * layer)
        self._name = f"blocks.{layer}.attn"
        d, k, bias = config.hidden_size, config.head_dim, config.attention_bias
        self.cache_width = 4 * self.n_groups * k
        self.read_width = (
            6 * self.n_pairs * k
        )  # two maps make scores, and each reads values of twice the width
        self.q_proj = nn.Linear(d, 2 * self.n_pairs * k, bias=bias)
        self.k_proj = nn.Linear(d, 2 * self.n_groups * k, bias=bias)
        self.v_proj = nn.Linear(d, 2 * self.n_groups * k, bias=bias)
        self.o_proj = nn.Linear(2 * self.n_pairs * k, d, bias=bias)
        for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):
            setattr(self, name, mx.zeros((k,)))
        self.pair_norm = nn.RMSNorm(2 * k, eps=config.norm_eps)

    def initial_std(self, name: str, shape: tuple[int, ...]) -> float | None:
        """The spread of fresh lambda vectors; None for all else."""
        return LAMBDA_STD if ".lambda_" in name else None

    def make_cache(self) -> KVCache:
        return KVCache()

    def mixing(self) -> mx.array:
        """lambda (eq. 2), a float32 scalar."""
        q1, k1, q2, k2 = (
            getattr(self, f"lambda_{name}").astype(mx.float32) for name in ("q1", "k1", "q2", "k2")
        )
        return mx.exp((q1 * k1).sum()) - mx.exp((q2 * k2).sum()) + self.lambda_init

    def __call__(self, x_BLD: mx.array, frame: Frame, cache: Any | None = None) -> mx.array:
        B, L, _ = x_BLD.shape
        # The first halves of the heads are the maps that read, the second halves those taken off.
        q_BHLK = self.q_proj(x_BLD).reshape(B, L, 2 * self.n_pairs, self.d_head).transpose(0, 2, 1, 3)
        k_BHLK = self.k_proj(x_BLD).reshape(B, L, 2 * self.n_groups, self.d_head).transpose(0, 2, 1, 3)
        v_BGLV = self.v_proj(x_BLD).reshape(B, L, self.n_groups, 2 * self.d_head).transpose(0, 2, 1, 3)
        found = read(q_BHLK, k_BHLK, v_BGLV, frame, cache, name=self._name)
        reads, noise = (
            ops.attention(q_BPLK, k_BGSK, found.v, scale=self.scale, mask=found.mask, segments=frame.segments)
            for q_BPLK, k_BGSK in zip(mx.split(found.q, 2, axis=1), mx.split(found.k, 2, axis=1))
        )
        y_BPLV = reads - self.mixing().astype(reads.dtype) * noise
        y_BPLV = self.pair_norm(y_BPLV) * (1 - self.lambda_init)  # eq. 3
        y_BPLV = frame.point(f"{self._name}.hook_z", y_BPLV)
        return self.o_proj(y_BPLV.transpose(0, 2, 1, 3).reshape(B, L, -1))


def build(config: ModelConfig, layer: int) -> nn.Module:
    """The attention module of one layer."""
    return DifferentialAttention(config, layer)
