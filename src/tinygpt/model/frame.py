"""What travels down the stack beside the activations: positions, documents, masks, the tap, shared values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.model.noise import Noise
from tinygpt.model.terms import Terms

Tap = Callable[[str, mx.array], mx.array]


@dataclass
class Frame:
    """One forward pass. Shapes: B batch, L new tokens.

    offset:    position of the first new token: a number, or one per row (B,) when rows are padded at the
    left.
    held:      tokens in the cache before this pass, padding included: where in its row the first new one is.
    position:  the model's position module.
    positions: (B, L) position of each token in its document, or None for 0..L-1 after what the cache holds.
    segments:  (B, L) document id of each token, 0 for padding, or None; tokens attend only inside their
    document.
    tap:       `tap(name, x) -> x` at points named as TransformerLens names them, or None.
    shared:    values that one layer hands to later ones (YOCO keys and values).
    terms:     what layers add to the training loss, or None outside of training.
    stack:     what lies below the head, whose embedding and final norm some heads share.
    trunk:     (B, L, D) what the last block reads, where heads that predict further ahead branch off.
    noise:     dropout and its like, with the rows' keys, or None outside of training.
    recompute: blocks keep no activations for the backward pass, and compute them again there.
    kept:      (B,) rows that go through the block at hand, or None for all (LayerDrop).
    places, key_places: (B, L) and (B, S) positions of the queries and the keys, where a block computes only
    some of a row's tokens (`length` of them), else None.
    """

    length: int
    offset: int | mx.array = 0
    held: int | mx.array = 0
    position: Any = None
    positions: mx.array | None = None
    segments: mx.array | None = None
    tap: Tap | None = None
    shared: dict[str, Any] = field(default_factory=dict)
    terms: Terms | None = None
    stack: Any = None
    trunk: mx.array | None = None
    noise: Noise | None = None
    recompute: bool = False
    kept: mx.array | None = None
    places: mx.array | None = None
    key_places: mx.array | None = None

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

    def begin(self, cache: Any | None) -> None:
        """Where the new tokens stand, as the first layer's cache tells."""
        self.offset = 0 if cache is None else cache.offset
        padding = getattr(cache, "left_padding", None)
        # Caches of mlx-lm know only the position; padding makes all rows equally long.
        self.held = getattr(cache, "held", self.offset if padding is None else (self.offset + padding)[:1])

    def real(self, n: int) -> mx.array:
        """(N,) 1 for each of the N = B x L tokens of the pass, 0 for padding and for rows left out."""
        real = mx.ones((n,)) if self.segments is None else (self.segments > 0).astype(mx.float32).flatten()
        if self.kept is not None:
            real = real * mx.repeat(self.kept.astype(mx.float32), n // self.kept.size)
        return real

    def point(self, name: str, x: mx.array) -> mx.array:
        """Pass an activation through the tap, if there is one."""
        return x if self.tap is None else self.tap(name, x)

    @property
    def late(self) -> bool:
        """Whether caches keep keys unturned, because angles depend on how long the text has become."""
        return getattr(self.position, "late", False)

    def bias(self, n_keys: int, first: int = 0) -> mx.array | None:
        """What the position module adds to scores, (1 or B, H, L, S), or None; made once a pass. first: place
        in the row of the first key."""
        make = getattr(self.position, "bias", None)
        if make is None:
            return None
        self._check_places(n_keys, first)
        key = f"position.bias.{first}"
        if key not in self.shared:
            at = (self.held + mx.arange(self.length), first + mx.arange(n_keys))
            self.shared[key] = make(*(at if self.places is None else (self.places, self.key_places)))
        return self.shared[key]

    def turn_late(self, k_BGSK: mx.array, offset: int | mx.array, first: int = 0) -> mx.array:
        """All keys that a pass reads, turned where caches keep them unturned. offset: of the new tokens;
        first: place in the row of the first key."""
        if not self.late:
            return k_BGSK
        self._check_places(k_BGSK.shape[2], first)
        return self.position.rotate(k_BGSK, offset - self.held + first, self)

    def _check_places(self, n_keys: int, first: int) -> None:
        if isinstance(self.held, int) and first + n_keys != self.held + self.length:
            raise ConfigError(
                "this model's positions need a cache that keeps every token in its place",
                hint="use model.make_cache()",
            )

    def mask(self, cache: Any | None, window: int = 0) -> mx.array | str | None:
        """What new queries may read: "causal", None (everything) or a boolean array broadcastable to (B, 1,
        L, S). `window`: only the last so many keys; with "causal" and None that is left to the attention.

        A cache knows how much it holds and what in it is padding, so the answer is the cache's (mlx-lm's
        protocol)."""
        if cache is not None and hasattr(cache, "make_mask"):
            return cache.make_mask(self.length, return_array=False, window_size=window or None)
        return "causal" if self.length > 1 else None
