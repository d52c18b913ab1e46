"""Grouped-query attention: several query heads share one key and value head.

Queries `q = x Wq` have H heads, keys and values G <= H heads; head h reads group h // (H/G),
`y_h = softmax(q_h k_g^T / sqrt(K) + mask) v_g`, joined by `Wo`. G = H is multi-head attention, G = 1 is
multi-query. The cache shrinks by H / G.

With `key_shift` half of the features that keys are made of come from the token before,
`k_t = Wk [x_t, x_{t-1}]`. One head can then look up "what followed the token I just wrote", the step that
copies a name; plain attention needs two layers that learn to work together. It costs nothing, and pays most
in models of a few million parameters.

With `window` a token reads only so many before it: cost and cache no longer grow with the text, and layer by
layer the reach still does.

Paper: Ainslie et al., EMNLP 2023, arXiv:2305.13245. Of the window: Beltagy et al. 2020, arXiv:2004.05150. Of
the shift: Peng et al. 2023, arXiv:2305.13048 (token shift), and Olsson et al. 2022, arXiv:2209.11895 (smeared
keys make induction heads easy).
Differs: the shift acts on keys alone, on a fixed half of the features; a stack with it is no Llama on disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import ConfigError
from tinygpt.model import ops
from tinygpt.model.cache.full import KVCache
from tinygpt.model.cache.rotating import RotatingCache
from tinygpt.model.config import ModelConfig
from tinygpt.model.earlier import earlier
from tinygpt.model.frame import Frame


@dataclass(frozen=True, kw_only=True)
class Config:
    """Knobs of grouped-query attention."""

    key_shift: Annotated[
        bool, "Make half of the key features from the token before; helps small models copy."
    ] = False
    window: Annotated[int, "Read only the last so many tokens; 0: all of them."] = 0

    def __post_init__(self) -> None:
        if self.window < 0:
            raise ConfigError(f"attention.window must not be negative, got {self.window}")


class GroupedQueryAttention(nn.Module):
    """x (B, L, D) -> (B, L, D). B batch, L length, D width, H query heads, G key/value heads, K head
    width."""

    heeds_position = True
    reads_any = True  # of the tokens of a row, some may be left out

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.n_heads, self.n_groups, self.d_head = (
            config.num_attention_heads, config.num_key_value_heads, config.head_dim
        )  # fmt: skip
        self.scale = self.d_head**-0.5
        self.window = config.attention.options.window
        self.reads_earlier = config.attention.options.key_shift
        self._name = f"blocks.{layer}.attn"
        d, bias = config.hidden_size, config.attention_bias
        self.q_proj = nn.Linear(d, self.n_heads * self.d_head, bias=bias)
        self.k_proj = nn.Linear(d, self.n_groups * self.d_head, bias=bias)
        self.v_proj = nn.Linear(d, self.n_groups * self.d_head, bias=bias)
        self.o_proj = nn.Linear(self.n_heads * self.d_head, d, bias=bias)

    def make_cache(self) -> KVCache:
        return RotatingCache(self.window) if self.window else KVCache()

    def _key_input(self, x_BLD: mx.array, frame: Frame, cache: Any | None) -> mx.array:
        """What keys are made of: x, or half of it and half of the token before in the same document."""
        if not self.reads_earlier:
            return x_BLD
        own_BLH, given_BLH = mx.split(x_BLD, [x_BLD.shape[2] // 2], axis=2)
        return mx.concatenate([own_BLH, *earlier(given_BLH, 1, frame, cache, "keys")], axis=2)

    def __call__(self, x_BLD: mx.array, frame: Frame, cache: Any | None = None) -> mx.array:
        B, L, _ = x_BLD.shape
        q_BHLK = self.q_proj(x_BLD).reshape(B, L, self.n_heads, self.d_head).transpose(0, 2, 1, 3)
        k_BGLK = (
            self.k_proj(self._key_input(x_BLD, frame, cache))
            .reshape(B, L, self.n_groups, self.d_head)
            .transpose(0, 2, 1, 3)
        )
        v_BGLK = self.v_proj(x_BLD).reshape(B, L, self.n_groups, self.d_head).transpose(0, 2, 1, 3)
        offset = 0 if cache is None else cache.offset
        q_BHLK = frame.position.rotate(q_BHLK, offset, frame)
        k_BGLK = k_BGLK if frame.late else frame.position.rotate(k_BGLK, offset, frame)
        q_BHLK = frame.point(f"{self._name}.hook_q", q_BHLK)
        k_BGLK = frame.point(f"{self._name}.hook_k", k_BGLK)
        v_BGLK = frame.point(f"{self._name}.hook_v", v_BGLK)
        mask = frame.mask(cache, self.window)
        if cache is not None:
            k_BGLK, v_BGLK = cache.update_and_fetch(k_BGLK, v_BGLK)
        k_BGLK = frame.turn_late(k_BGLK, offset)
        bias, segments = frame.bias(k_BGLK.shape[2]), frame.segments
        y_BHLK = ops.attention(
            q_BHLK,
            k_BGLK,
            v_BGLK,
            scale=self.scale,
            mask=mask,
            segments=segments,
            bias=bias,
            window=self.window,
        )
        y_BHLK = frame.point(f"{self._name}.hook_z", y_BHLK)
        return self.o_proj(y_BHLK.transpose(0, 2, 1, 3).reshape(B, L, -1))


def build(config: ModelConfig, layer: int) -> nn.Module:
    """The attention module of one layer."""
    return GroupedQueryAttention(config, layer)
