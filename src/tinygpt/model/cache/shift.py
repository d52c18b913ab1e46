"""Key-value cache that also remembers half of the last token's features, for keys that look back."""

from __future__ import annotations

from collections.abc import Sequence

from tinygpt.core.backend import mx
from tinygpt.model.cache.full import KVCache


class ShiftCache(KVCache):
    """A KVCache with `last` (B, 1, D/2): what the newest token hands to the key of the next one."""

    def __init__(self, left_padding: Sequence[int] | None = None) -> None:
        super().__init__(left_padding)
        self.last: mx.array | None = None

    def before(self, x_BLH: mx.array) -> mx.array:
        """The features one token earlier, zero before a text begins; remembers the newest one."""
        first = mx.zeros_like(x_BLH[:, :1]) if self.last is None else self.last
        self.last = x_BLH[:, -1:]
        shifted_BLH = mx.concatenate([first, x_BLH[:, :-1]], axis=1)
        if self.left_padding is None:
            return shifted_BLH
        at_L = mx.arange(self.held, self.held + x_BLH.shape[1])
        return shifted_BLH * (at_L[None] > self.left_padding[:, None])[..., None].astype(x_BLH.dtype)

    def is_trimmable(self) -> bool:
        # The features before the last kept token are gone.
        return False

    def trim(self, n: int) -> int:
        """Nothing is forgotten: see is_trimmable."""
        return 0

    def select(self, rows: mx.array) -> None:
        super().select(rows)
        if self.last is not None:
            self.last = self.last[rows]
