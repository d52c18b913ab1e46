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

With `qk_norm` every head's query and key go through an RMSNorm over their K features before positions turn
them, `q_h <- g_q * q_h / rms(q_h)`: scores stay bounded however large the weights become, so training bears
higher learning rates. One weight vector serves all query heads of a layer, one all key heads.

Paper: Ainslie et al., EMNLP 2023, arXiv:2305.13245. Of the window: Beltagy et al. 2020, arXiv:2004.05150. Of
the norms: Henry et al. 2020, arXiv:2010.04245; Dehghani et al., ICML 2023, arXiv:2302.05442; as RMSNorm a
head: Yang et al. 2025, arXiv:2505.09388 (Qwen3). Of the shift: Peng et al. 2023, arXiv:2305.13048 (token
shift), and Olsson et al. 2022, arXiv:2209.11895 (smeared keys make induction heads easy).
Differs: the shift acts on keys alone, on a fixed half of the features; a stack with it is no Llama on disk.
"""

from __future__ import annotations

import dataclasses
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
from tinygpt.model.norm.rmsnorm import RMSNorm
from tinygpt.model.reading import read


@dataclass(frozen=True, kw_only=True)
class Config:
    """Knobs of grouped-query attention."""

    key_shift: Annotated[
        bool, "Make half of the key features from the token before; helps small models copy."
    ] = False
    window: Annotated[int, "Read only the last so many tokens; 0: all of them."] = 0
    qk_norm: Annotated[bool, "Norm queries and keys of every head, so that scores stay bounded."] = False

    def __post_init__(self) -> None:
        if self.window < 0:
            raise ConfigError(f"attention.window must not be negative, got {self.window}")


class GroupedQueryAttention(nn.Module):
    """x (B, L, D) -> (B, L, D). B batch, L length, D width, H query heads, G key/value heads, K head
    width."""

    heeds_position = True
    takes_sinks = True
    reads_any = True  # of the tokens of a row, some may be left out

    def __init__(
        self,
        config: ModelConfig,
        layer: int,
        *,
        window: int = 0,
        key_shift: bool = False,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        self.n_heads, self.n_groups, self.d_head = (
            config.num_attention_heads, config.num_key_value_heads, config.head_dim
        )  # fmt: skip
        self.scale = self.d_head**-0.5
        self.window = window
        self.reads_earlier = key_shift
        self.cache_width = 2 * self.n_groups * self.d_head
        self.read_width = 2 * self.n_heads * self.d_head
        self._name = f"blocks.{layer}.attn"
        d, bias = config.hidden_size, config.attention_bias
        self.q_proj = nn.Linear(d, self.n_heads * self.d_head, bias=bias)
        self.k_proj = nn.Linear(d, self.n_groups * self.d_head, bias=bias)
        self.v_proj = nn.Linear(d, self.n_groups * self.d_head, bias=bias)
        self.o_proj = nn.Linear(self.n_heads * self.d_head, d, bias=bias)
        if qk_norm:
            self.q_norm, self.k_norm = (RMSNorm(self.d_head, config.norm_eps) for _ in "qk")

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
        q_BLHK = self.q_proj(x_BLD).reshape(B, L, self.n_heads, self.d_head)
        k_BLGK = self.k_proj(self._key_input(x_BLD, frame, cache)).reshape(B, L, self.n_groups, self.d_head)
        v_BGLK = self.v_proj(x_BLD).reshape(B, L, self.n_groups, self.d_head).transpose(0, 2, 1, 3)
        if "q_norm" in self:
            q_BLHK, k_BLGK = self.q_norm(q_BLHK), self.k_norm(k_BLGK)
        q_BHLK, k_BGLK = q_BLHK.transpose(0, 2, 1, 3), k_BLGK.transpose(0, 2, 1, 3)
        found = read(q_BHLK, k_BGLK, v_BGLK, frame, cache, window=self.window, name=self._name)
        y_BHLK = ops.attention(
            found.q, found.k, found.v, scale=self.scale, mask=found.mask, segments=frame.segments,
            bias=found.bias, window=self.window,
        )  # fmt: skip
        y_BHLK = frame.point(f"{self._name}.hook_z", y_BHLK)
        return self.o_proj(y_BHLK.transpose(0, 2, 1, 3).reshape(B, L, -1))


def build(config: ModelConfig, layer: int) -> nn.Module:
    """The attention module of one layer."""
    return GroupedQueryAttention(config, layer, **dataclasses.asdict(config.attention.options))
