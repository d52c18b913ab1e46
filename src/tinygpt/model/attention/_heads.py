"""What attentions share: matrices in and out, heads and their norms, and a window with its cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import ConfigError
from tinygpt.model.cache.full import KVCache
from tinygpt.model.cache.rotating import RotatingCache
from tinygpt.model.config import NORM, ModelConfig
from tinygpt.model.frame import Frame
from tinygpt.model.norm import rmsnorm


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """What the attentions' settings have in common."""

    window: Annotated[int, "Read only the last so many tokens; 0: all of them."] = 0
    qk_norm: Annotated[bool, "Norm queries and keys of every head, so that scores stay bounded."] = False

    def __post_init__(self) -> None:
        if self.window < 0:
            raise ConfigError(f"attention.window must not be negative, got {self.window}")


class Heads(nn.Module):
    """The matrices of an attention with H query heads and G key/value heads, K features each. B batch, L
    length, D width. keys: whether it makes keys and values of its own."""

    def __init__(
        self,
        config: ModelConfig,
        layer: int,
        *,
        window: int = 0,
        qk_norm: bool = False,
        keys: bool = True,
        output_bias: bool = True,
        norm_width: bool = False,
    ) -> None:
        super().__init__()
        self.n_heads, self.n_groups, self.d_head = (
            config.num_attention_heads, config.num_key_value_heads, config.head_dim
        )  # fmt: skip
        self.scale = self.d_head**-0.5
        self.window = window
        self.cache_width = 2 * self.n_groups * self.d_head if keys else 0
        self.read_width = 2 * self.n_heads * self.d_head
        self._name = f"blocks.{layer}.attn"
        d, bias = config.hidden_size, config.attention_bias
        wide, narrow = self.n_heads * self.d_head, self.n_groups * self.d_head
        self.q_proj = nn.Linear(d, wide, bias=bias)
        if keys:
            self.k_proj = nn.Linear(d, narrow, bias=bias)
            self.v_proj = nn.Linear(d, narrow, bias=bias)
        self.o_proj = nn.Linear(wide, d, bias=bias and output_bias)
        self.norm_width = norm_width
        if qk_norm:
            norm = getattr(NORM.load(config.norm.name), "of_heads", rmsnorm.build)
            self.q_norm = norm(config, wide if norm_width else self.d_head)
            if keys:
                self.k_norm = norm(config, narrow if norm_width else self.d_head)

    def make_cache(self) -> KVCache:
        return RotatingCache(self.window) if self.window else KVCache()

    def make_queries(self, x_BLD: mx.array) -> mx.array:
        """(B, H, L, K), normed, not yet turned."""
        return self._normed_heads(self.q_proj(x_BLD), self.n_heads, self.get("q_norm"))

    def make_keys(self, x_BLD: mx.array) -> mx.array:
        """(B, G, L, K), normed, not yet turned."""
        return self._normed_heads(self.k_proj(x_BLD), self.n_groups, self.get("k_norm"))

    def _normed_heads(self, x_BLW: mx.array, n: int, norm: nn.Module | None) -> mx.array:
        """(B, n, L, K), each head normed, or all of them as one vector."""
        if norm is None or not self.norm_width:
            return in_heads(x_BLW, n, norm)
        return in_heads(norm(x_BLW), n)

    def joined(self, y_BHLK: mx.array, frame: Frame) -> mx.array:
        """(B, L, D): what all heads read, through the output matrix."""
        y_BHLK = frame.point(f"{self._name}.hook_z", y_BHLK)
        B, _, L, _ = y_BHLK.shape
        return self.o_proj(y_BHLK.transpose(0, 2, 1, 3).reshape(B, L, -1))


def in_heads(x_BLW: mx.array, n: int, norm: nn.Module | None = None) -> mx.array:
    """(B, n, L, W / n): the features of n heads, each head through the norm if there is one."""
    B, L, _ = x_BLW.shape
    x_BLNK = x_BLW.reshape(B, L, n, -1)
    return (x_BLNK if norm is None else norm(x_BLNK)).transpose(0, 2, 1, 3)
