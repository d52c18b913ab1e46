"""The base of models that were never trained and need no cache: their `__call__` says what they write."""

from __future__ import annotations

from typing import Any

from tinygpt.core.backend import mx, nn
from tinygpt.model.cache.full import KVCache
from tinygpt.model.config import ModelConfig


class Unlearned(nn.Module):
    """A model of 260 ids, as bytes have them, whose cache holds nothing."""

    def __init__(self, context: int) -> None:
        super().__init__()
        self.config = ModelConfig(
            vocab_size=260, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
            max_position_embeddings=context,
        )  # fmt: skip

    def make_cache(self, left_padding: Any = None) -> list[Any]:
        cache = Nothing()
        cache.left_padding = None if left_padding is None else mx.array(left_padding)
        return [cache]


class Nothing(KVCache):
    """A cache without content."""

    state = ()
