"""What travels down the stack beside the activations: positions, documents, masks, the tap, shared values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tinygpt.core.backend import mx

Tap = Callable[[str, mx.array], mx.array]


@dataclass
class Frame:
    """One forward pass. Shapes: B batch, L new tokens.

    held:      tokens in the cache before this pass.
    positions: (B, L) position of each token in its document, or None for 0..L-1 after what the cache holds.
    segments:  (B, L) document id of each token, 0 for padding, or None; tokens attend only inside their
    document.
    tap:       `tap(name, x) -> x` at points named as TransformerLens names them, or None.
    shared:    values that one layer hands to later ones (YOCO keys and values, routing losses).
    """

    length: int
    held: int = 0
    position: Any = None
    positions: mx.array | None = None
    segments: mx.array | None = None
    tap: Tap | None = None
    shared: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        tokens_BL: mx.array,
        positions: mx.array | None = None,
        segments: mx.array | None = None,
        tap: Tap | None = None,
    ) -> Frame:
        """The frame of one pass over these tokens."""
        return cls(length=tokens_BL.shape[1], positions=positions, segments=segments, tap=tap)

    def point(self, name: str, x: mx.array) -> mx.array:
        """Pass an activation through the tap, if there is one."""
        return x if self.tap is None else self.tap(name, x)

    def mask(self, cache: Any | None) -> mx.array | str | None:
        """What new queries may read: "causal", None (everything) or a boolean array broadcastable to (B, 1,
        L, S).

        A cache knows how much it holds and what in it is padding, so the answer is the cache's (mlx-lm's
        protocol)."""
        if cache is not None and hasattr(cache, "make_mask"):
            return cache.make_mask(self.length, return_array=False, window_size=None)
        return "causal" if self.length > 1 else None
