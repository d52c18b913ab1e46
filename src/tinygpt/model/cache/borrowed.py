"""Borrowed cache: of a layer that reads the keys of another one and keeps none itself.

It counts tokens, and keeps tails where a sublayer reads the tokens before.
"""

from __future__ import annotations

from tinygpt.core.backend import mx
from tinygpt.model.cache.full import KVCache


class BorrowedCache(KVCache):
    """No keys, no values: its size does not depend on the text."""

    def pass_by(self, length: int) -> None:
        """Count tokens whose keys lie elsewhere."""
        self.held += length

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        raise ValueError("this layer reads the keys of another layer and keeps none")

    @property
    def state(self) -> tuple[mx.array, ...]:
        """What is held, to be computed: the tails."""
        return tuple(self.tails.values())
