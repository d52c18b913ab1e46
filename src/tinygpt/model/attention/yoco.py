"""YOCO: half of the layers read a window, the other half one shared set of keys and values, kept once.

The first L/2 layers are the self-decoder: grouped-query attention over the last `window` tokens, whose cache
does not grow with the text. From their output X one global set is made, `K = norm(X) Wk`, `V = norm(X) Wv`,
and each layer of the other half, the cross-decoder, has a query and an output matrix only:
`y = softmax(q K^T / sqrt(d) + mask) V Wo` with `q = norm(x) Wq`. So the cache of one layer grows with the
text instead of that of all L, and the stack is smaller by the key and value matrices that it does not need.

Paper: Sun et al., NeurIPS 2024, arXiv:2405.05254 (eq. 1-3; the sliding-window self-decoder).
Differs: no gated retention, the paper's other self-decoder; a prompt passes the cross-decoder whole, though
only its last token needs to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import ConfigError
from tinygpt.model import ops
from tinygpt.model.attention.gqa import GroupedQueryAttention
from tinygpt.model.cache.borrowed import BorrowedCache
from tinygpt.model.cache.full import KVCache
from tinygpt.model.config import NORM, ModelConfig
from tinygpt.model.frame import Frame

SHARED = "yoco"  # under this name the global keys, values and their mask go down the stack


@dataclass(frozen=True, kw_only=True)
class Config:
    """Knobs of YOCO."""

    window: Annotated[
        int, "Tokens that the first half of the layers reads; 0: a quarter of max_position_embeddings."
    ] = 0

    def __post_init__(self) -> None:
        if self.window < 0:
            raise ConfigError(f"attention.window must not be negative, got {self.window}")


class CrossAttention(nn.Module):
    """x (B, L, D) -> (B, L, D), reading keys and values that the first of these layers made. B batch, L
    length, D width, H query heads, G key/value heads, K head width."""

    heeds_position = True
    window = 0

    def __init__(self, config: ModelConfig, layer: int, *, makes: bool) -> None:
        """makes: whether this layer makes the global keys and values, and keeps them."""
        super().__init__()
        self.n_heads, self.n_groups, self.d_head = (
            config.num_attention_heads, config.num_key_value_heads, config.head_dim
        )  # fmt: skip
        self.scale = self.d_head**-0.5
        self.cache_width = 2 * self.n_groups * self.d_head if makes else 0
        self.read_width = 2 * self.n_heads * self.d_head
        self._name = f"blocks.{layer}.attn"
        d, bias = config.hidden_size, config.attention_bias
        self.q_proj = nn.Linear(d, self.n_heads * self.d_head, bias=bias)
        self.o_proj = nn.Linear(self.n_heads * self.d_head, d, bias=bias)
        if makes:
            self.kv_norm = NORM.load(config.norm.name).build(config, d)
            self.k_proj = nn.Linear(d, self.n_groups * self.d_head, bias=bias)
            self.v_proj = nn.Linear(d, self.n_groups * self.d_head, bias=bias)

    def make_cache(self) -> KVCache:
        return KVCache() if self.cache_width else BorrowedCache()

    def share(self, x_BLD: mx.array, frame: Frame, cache: Any | None) -> None:
        """Of the self-decoder's output: the global keys and values (eq. 2), once for all layers above."""
        if not self.cache_width:
            return
        B, L, _ = x_BLD.shape
        h_BLD = self.kv_norm(x_BLD)
        k_BGLK, v_BGLK = (
            make(h_BLD).reshape(B, L, self.n_groups, self.d_head).transpose(0, 2, 1, 3)
            for make in (self.k_proj, self.v_proj)
        )
        if not frame.late:
            k_BGLK = frame.position.rotate(k_BGLK, frame.offset, frame)
        k_BGLK = frame.point(f"{self._name}.hook_k", k_BGLK)
        v_BGLK = frame.point(f"{self._name}.hook_v", v_BGLK)
        mask = frame.mask(cache)
        if cache is not None:
            k_BGLK, v_BGLK = cache.update_and_fetch(k_BGLK, v_BGLK)
        frame.shared[SHARED] = frame.turn_late(k_BGLK, frame.offset), v_BGLK, mask

    def __call__(self, x_BLD: mx.array, frame: Frame, cache: Any | None = None) -> mx.array:
        B, L, _ = x_BLD.shape
        k_BGSK, v_BGSK, mask = frame.shared[SHARED]
        q_BHLK = self.q_proj(x_BLD).reshape(B, L, self.n_heads, self.d_head).transpose(0, 2, 1, 3)
        q_BHLK = frame.point(f"{self._name}.hook_q", frame.position.rotate(q_BHLK, frame.offset, frame))
        if isinstance(cache, BorrowedCache):
            cache.pass_by(L)
        bias = frame.bias(k_BGSK.shape[2])
        y_BHLK = ops.attention(
            q_BHLK, k_BGSK, v_BGSK, scale=self.scale, mask=mask, segments=frame.segments, bias=bias
        )
        y_BHLK = frame.point(f"{self._name}.hook_z", y_BHLK)
        return self.o_proj(y_BHLK.transpose(0, 2, 1, 3).reshape(B, L, -1))


def build(config: ModelConfig, layer: int) -> nn.Module:
    """The attention module of one layer: windowed in the first half, crosswise in the other."""
    half = config.num_hidden_layers // 2
    if not half:
        raise ConfigError("YOCO needs at least two layers, one for each half", hint="use attention=gqa")
    if layer < half:
        window = config.attention.options.window or -(-config.max_position_embeddings // 4)
        return GroupedQueryAttention(config, layer, window=window)
    return CrossAttention(config, layer, makes=layer == half)
