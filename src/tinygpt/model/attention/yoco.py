"""YOCO: half of the layers read a window, the other half one shared set of keys and values, kept once.

The first L/2 layers are the self-decoder: grouped-query attention over the last `window` tokens, whose cache
does not grow with the text. From their output X one global set is made, `K = norm(X) Wk`, `V = norm(X) Wv`,
and each layer of the other half, the cross-decoder, has a query and an output matrix only:
`y = softmax(q K^T / sqrt(d) + mask) V Wo` with `q = norm(x) Wq`. So the cache of one layer grows with the
text instead of that of all L, and the stack is smaller by the key and value matrices that it does not need.
With `qk_norm` the queries of every layer, and the keys wherever they are made, pass a norm a head, as in
`gqa`.

Paper: Sun et al., NeurIPS 2024, arXiv:2405.05254 (eq. 1-3; the sliding-window self-decoder).
Differs: no gated retention, the paper's other self-decoder; a prompt passes the cross-decoder whole, though
only its last token needs to; the paper has no norms of heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from tinygpt.core.backend import mx, nn
from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError
from tinygpt.model import ops
from tinygpt.model.attention._heads import Heads, Knobs, in_heads
from tinygpt.model.attention.gqa import GroupedQueryAttention
from tinygpt.model.cache.borrowed import BorrowedCache
from tinygpt.model.cache.full import KVCache
from tinygpt.model.config import NORM, ModelConfig
from tinygpt.model.frame import Frame

SHARED = "yoco"  # under this name the global keys, values and their mask go down the stack


@dataclass(frozen=True, kw_only=True)
class Config(Knobs):
    """Knobs of YOCO."""

    window: Annotated[
        int, "Tokens that the first half of the layers reads; 0: a quarter of max_position_embeddings."
    ] = 0


class CrossAttention(Heads):
    """x (B, L, D) -> (B, L, D), reading keys and values that the first of these layers made. B batch, L
    length, D width, H query heads, G key/value heads, K head width."""

    heeds_position = True

    def __init__(self, config: ModelConfig, layer: int, *, qk_norm: bool = False, makes: bool) -> None:
        """makes: whether this layer makes the global keys and values, and keeps them."""
        super().__init__(config, layer, qk_norm=qk_norm, keys=makes)
        if makes:
            self.kv_norm = NORM.load(config.norm.name).build(config, config.hidden_size)

    def make_cache(self) -> KVCache:
        return KVCache() if self.cache_width else BorrowedCache()

    def share(self, x_BLD: mx.array, frame: Frame, cache: Any | None) -> None:
        """Of the self-decoder's output: the global keys and values (eq. 2), once for all layers above."""
        if not self.cache_width:
            return
        h_BLD = self.kv_norm(x_BLD)
        k_BGLK, v_BGLK = self.make_keys(h_BLD), in_heads(self.v_proj(h_BLD), self.n_groups)
        if not frame.late:
            k_BGLK = frame.position.rotate(k_BGLK, frame.offset, frame)
        k_BGLK = frame.point(f"{self._name}.hook_k", k_BGLK)
        v_BGLK = frame.point(f"{self._name}.hook_v", v_BGLK)
        mask = frame.mask(cache)
        if cache is not None:
            k_BGLK, v_BGLK = cache.update_and_fetch(k_BGLK, v_BGLK)
        frame.shared[SHARED] = frame.turn_late(k_BGLK, frame.offset), v_BGLK, mask

    def __call__(self, x_BLD: mx.array, frame: Frame, cache: Any | None = None) -> mx.array:
        k_BGSK, v_BGSK, mask = frame.shared[SHARED]
        q_BHLK = frame.position.rotate(self.make_queries(x_BLD), frame.offset, frame)
        q_BHLK = frame.point(f"{self._name}.hook_q", q_BHLK)
        if isinstance(cache, BorrowedCache):
            cache.pass_by(x_BLD.shape[1])
        bias = frame.bias(k_BGSK.shape[2])
        y_BHLK = ops.attention(
            q_BHLK, k_BGSK, v_BGSK, scale=self.scale, mask=mask, segments=frame.segments, bias=bias
        )
        return self.joined(y_BHLK, frame)


def alone(config: ModelConfig) -> Pick:
    """The attention of a block outside of both halves, as heads that look ahead have: all tokens, keys of its
    own."""
    return Pick("gqa", {"qk_norm": config.attention.options.qk_norm})


def window(config: ModelConfig) -> int:
    """Tokens that the first half of the layers reads."""
    return config.attention.options.window or -(-config.max_position_embeddings // 4)


def build(config: ModelConfig, layer: int) -> nn.Module:
    """The attention module of one layer: windowed in the first half, crosswise in the other."""
    half = config.num_hidden_layers // 2
    if not half:
        raise ConfigError("YOCO needs at least two layers, one for each half", hint="use attention=gqa")
    knobs: Config = config.attention.options
    if layer < half:
        return GroupedQueryAttention(config, layer, window=window(config), qk_norm=knobs.qk_norm)
    return CrossAttention(config, layer, qk_norm=knobs.qk_norm, makes=layer == half)
