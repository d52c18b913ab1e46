"""Grouped-query attention: several query heads share one key and value head.

Queries `q = x Wq` have H heads, keys and values G <= H heads; head h reads group h // (H/G): `y_h =
softmax(q_h k_g^T / sqrt(K) + mask) v_g`, joined by `Wo`. G = H is multi-head attention, G = 1 multi-query.
The cache shrinks by H / G.

Paper: Ainslie et al., EMNLP 2023, arXiv:2305.13245.
Differs: nothing.
"""

from __future__ import annotations

from typing import Any

from tinygpt.core.backend import mx, nn
from tinygpt.model import ops
from tinygpt.model.cache.full import KVCache
from tinygpt.model.config import ModelConfig
from tinygpt.model.frame import Frame


class GroupedQueryAttention(nn.Module):
    """x (B, L, D) -> (B, L, D). B batch, L length, D width, H query heads, G key/value heads, K head
    width."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.n_heads, self.n_groups, self.d_head = (
            config.num_attention_heads, config.num_key_value_heads, config.head_dim
        )  # fmt: skip
        self.scale = self.d_head**-0.5
        self._name = f"blocks.{layer}.attn"
        d, bias = config.hidden_size, config.attention_bias
        self.q_proj = nn.Linear(d, self.n_heads * self.d_head, bias=bias)
        self.k_proj = nn.Linear(d, self.n_groups * self.d_head, bias=bias)
        self.v_proj = nn.Linear(d, self.n_groups * self.d_head, bias=bias)
        self.o_proj = nn.Linear(self.n_heads * self.d_head, d, bias=bias)

    def make_cache(self) -> KVCache:
        return KVCache()

    def __call__(self, x_BLD: mx.array, frame: Frame, cache: Any | None = None) -> mx.array:
        B, L, _ = x_BLD.shape
        q_BHLK = self.q_proj(x_BLD).reshape(B, L, self.n_heads, self.d_head).transpose(0, 2, 1, 3)
        k_BGLK = self.k_proj(x_BLD).reshape(B, L, self.n_groups, self.d_head).transpose(0, 2, 1, 3)
        v_BGLK = self.v_proj(x_BLD).reshape(B, L, self.n_groups, self.d_head).transpose(0, 2, 1, 3)
        offset = 0 if cache is None else cache.offset
        q_BHLK = frame.point(f"{self._name}.hook_q", frame.position.rotate(q_BHLK, offset, frame))
        k_BGLK = frame.point(f"{self._name}.hook_k", frame.position.rotate(k_BGLK, offset, frame))
        v_BGLK = frame.point(f"{self._name}.hook_v", v_BGLK)
        mask = frame.mask(cache)
        if cache is not None:
            k_BGLK, v_BGLK = cache.update_and_fetch(k_BGLK, v_BGLK)
        y_BHLK = ops.attention(q_BHLK, k_BGLK, v_BGLK, scale=self.scale, mask=mask, segments=frame.segments)
        y_BHLK = frame.point(f"{self._name}.hook_z", y_BHLK)
        return self.o_proj(y_BHLK.transpose(0, 2, 1, 3).reshape(B, L, -1))


def build(config: ModelConfig, layer: int) -> nn.Module:
    """The attention module of one layer."""
    return GroupedQueryAttention(config, layer)
