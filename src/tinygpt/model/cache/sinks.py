"""Attention sinks: a cache of the first `sinks` tokens and the last `window`, so that text has no end.

A softmax must put its mass somewhere, and trained models put what they do not need on the first tokens. A
plain window loses those, and the model with them. So a token reads the first N tokens of the text and the
last M, itself included, and positions are places in that list, not in the text: never more than N + M, which
the model must have seen in training. Keys are therefore kept unturned and turned as they are read. Memory
and work a token are constant, and a text of up to N + M tokens is read as with a full cache.

Where many tokens come at once, each has its own N + M before it. Distances inside the window are those of
the text, but those to the sinks stop growing: so queries and keys have two halves, one for each of the two
sums, `score = [q_near, q_far] . [k, 0]` inside the window and `[0, k]` on the sinks.

Paper: Xiao et al., ICLR 2024, arXiv:2309.17453 (section 3.2).
Differs: tokens that come at once are read as if one by one, each with sinks and a window of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.model.cache.full import KVCache
from tinygpt.model.cache.rotating import RotatingCache

if TYPE_CHECKING:
    from tinygpt.model.frame import Frame
    from tinygpt.model.lm import LM

Arranged = tuple[mx.array, mx.array, mx.array, mx.array | str | None, mx.array | None]


class SinkCache(RotatingCache):
    """Keys and values (B, G, S, K) of one layer: N sinks, M the window, held apart. L new tokens, H query
    heads, W width of values."""

    def __init__(self, sinks: int, window: int) -> None:
        super().__init__(window)
        self.sinks = sinks
        self.sink_keys: mx.array | None = None
        self.sink_values: mx.array | None = None
        self._padding: int | None = None  # of the row that has most

    def arrange(self, q_BHLK: mx.array, k_BGLK: mx.array, v_BGLW: mx.array, frame: Frame) -> Arranged:
        """Take in new tokens, none of them turned: what the queries read, turned, with mask and bias."""
        start, length = self.offset, q_BHLK.shape[2]
        self._keep_first(k_BGLK, v_BGLW, start)
        k_BGRK, v_BGRW = self.update_and_fetch(k_BGLK, v_BGLW)
        if isinstance(start, int) and (length == 1 or self.held <= self.sinks + self.window):
            return self._in_line(q_BHLK, k_BGRK, v_BGRW, frame)
        return self._apart(q_BHLK, k_BGRK, v_BGRW, start, frame)

    def _keep_first(self, k_BGLK: mx.array, v_BGLW: mx.array, start: int | mx.array) -> None:
        """Of the new tokens, remember those that are among the first N of their text."""
        if self._padding is None:
            self._padding = 0 if self.left_padding is None else int(self.left_padding.max().item())
        if self.held - self._padding >= self.sinks:
            return
        if self.sink_keys is None or self.sink_values is None:
            self.sink_keys, self.sink_values = (
                mx.zeros((*x.shape[:2], self.sinks, x.shape[3]), x.dtype) for x in (k_BGLK, v_BGLW)
            )
        from_BN = mx.arange(self.sinks) - (start if isinstance(start, int) else start[:, None])
        from_BN = from_BN.reshape(-1, self.sinks)
        here_BN = (from_BN >= 0) & (from_BN < k_BGLK.shape[2])
        from_BN = mx.where(here_BN, from_BN, 0)[:, None, :, None]
        self.sink_keys, self.sink_values = (
            mx.where(here_BN[:, None, :, None], mx.take_along_axis(new, from_BN, axis=2), old)
            for new, old in ((k_BGLK, self.sink_keys), (v_BGLW, self.sink_values))
        )

    def _in_line(self, q_BHLK: mx.array, k_BGRK: mx.array, v_BGRW: mx.array, frame: Frame) -> Arranged:
        """Sinks and window as one text of their own, for queries that all read the same of it."""
        assert self.sink_keys is not None and self.sink_values is not None
        filled = min(self.sinks, self.held)
        again = max(0, filled - self.first)  # tokens of the window that are sinks
        keys = mx.concatenate([self.sink_keys[:, :, :filled], k_BGRK[:, :, again:]], axis=2)
        values = mx.concatenate([self.sink_values[:, :, :filled], v_BGRW[:, :, again:]], axis=2)
        length, n = q_BHLK.shape[2], keys.shape[2]
        q_BHLK = frame.position.rotate(q_BHLK, n - length, frame)
        make = getattr(frame.position, "bias", None)
        bias = None if make is None else make(mx.arange(n - length, n), mx.arange(n))
        return q_BHLK, frame.position.rotate(keys, 0, frame), values, "causal" if length > 1 else None, bias

    def _apart(
        self, q_BHLK: mx.array, k_BGRK: mx.array, v_BGRW: mx.array, start: int | mx.array, frame: Frame
    ) -> Arranged:
        """Sinks, then the last tokens R, with a mask that says which of them each query reads."""
        assert self.sink_keys is not None and self.sink_values is not None
        turn, length, recent = frame.position.rotate, q_BHLK.shape[2], k_BGRK.shape[2]
        at_L, at_R, at_N = mx.arange(length), mx.arange(recent), mx.arange(self.sinks)
        padding = 0 if self.left_padding is None else self.left_padding[:, None]
        text_BL = at_L + (start if isinstance(start, int) else start[:, None])  # place in the text
        last = self.sinks + self.window - 1  # the place from which on sinks get no farther
        far_BL = mx.minimum(text_BL, last)
        q_far = mx.where(
            (text_BL < last)[..., None, :, None], turn(q_BHLK, start, frame), _turn_to(last, q_BHLK, frame)
        )
        q_near = turn(q_BHLK, recent - length, frame)
        k_far, k_near = turn(self.sink_keys, 0, frame), turn(k_BGRK, 0, frame)
        q = mx.concatenate([q_near, q_far], axis=-1)
        width, rest = k_near.shape[3], [(0, 0)] * 3
        k_far, k_near = mx.pad(k_far, [*rest, (width, 0)]), mx.pad(k_near, [*rest, (0, width)])
        k = mx.concatenate([k_far, k_near], axis=2)
        v = mx.concatenate([self.sink_values, v_BGRW], axis=2)
        text_BR = at_R + self.first - padding
        i_BL1, j_B1R = text_BL[..., :, None], text_BR[..., None, :]
        near = (j_B1R >= self.sinks) & (j_B1R <= i_BL1) & (j_B1R > i_BL1 - self.window)
        # Padding reads itself: a row with nothing to read would be NaN and spread.
        near = near | ((i_BL1 < 0) & (j_B1R == i_BL1))
        mask = _columns(at_N <= i_BL1, near)
        mask = mask[:, None] if mask.ndim == 3 else mask
        make = getattr(frame.position, "bias", None)
        if make is None:
            return q, k, v, mask, None
        near_LR = make(at_L + recent - length, at_R)
        return q, k, v, mask, _columns(make(far_BL, at_N), near_LR)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays held, room for coming tokens included."""
        return super().nbytes + sum(x.nbytes for x in (self.sink_keys, self.sink_values) if x is not None)

    @property
    def state(self) -> tuple[mx.array, ...]:
        """What is held: sinks, then the window."""
        assert self.sink_keys is not None and self.sink_values is not None, "an empty cache has no state"
        return self.sink_keys, self.sink_values, *super().state

    def extend(self, other: Any) -> None:
        """Append the rows of another cache of this kind; see KVCache."""
        super().extend(other)
        self._padding = None
        assert self.sink_keys is not None and self.sink_values is not None, "nothing was read yet"
        self.sink_keys = mx.concatenate([self.sink_keys, other.sink_keys])
        self.sink_values = mx.concatenate([self.sink_values, other.sink_values])

    def crop(self, n: int) -> None:
        """Drop the first n places, which are padding in every row."""
        super().crop(n)
        self._padding = None

    def rewind(self, n_B: Sequence[int]) -> None:
        """Forget the last tokens of each row; see KVCache."""
        super().rewind(n_B)
        self._padding = None

    def filter(self, rows: mx.array) -> None:
        """Keep only these rows of the batch (finished ones leave)."""
        super().filter(rows)
        self._padding = None
        if self.sink_keys is not None and self.sink_values is not None:
            self.sink_keys, self.sink_values = self.sink_keys[rows], self.sink_values[rows]


def _turn_to(place: int, x_BHLK: mx.array, frame: Frame) -> mx.array:
    """All tokens turned as if each stood at this place."""
    B, H, L, K = x_BHLK.shape
    return frame.position.rotate(x_BHLK.reshape(B, H * L, 1, K), place, frame).reshape(B, H, L, K)


def _columns(one: mx.array, other: mx.array) -> mx.array:
    """Two tables of the same queries side by side."""
    ndim = max(one.ndim, other.ndim)
    one, other = (x.reshape(*[1] * (ndim - x.ndim), *x.shape) for x in (one, other))
    front = [max(a, b) for a, b in zip(one.shape[:-1], other.shape[:-1])]
    return mx.concatenate([mx.broadcast_to(x, (*front, x.shape[-1])) for x in (one, other)], axis=-1)


def check(model: LM, sinks: int, window: int) -> None:
    """ConfigError where a cache of sinks and a window would not be what the model learned to read."""
    config = model.config
    if config.position.name in ("learned", "rope_dynamic", "rope_longrope"):
        why = {
            "learned": "adds positions before the first layer",
            "rope_dynamic": "follows the text's length",
            "rope_longrope": "follows the text's length",
        }
        raise ConfigError(
            f"a window of sinks renumbers positions, and position '{config.position.name}' "
            f"{why[config.position.name]}",
            hint="leave --window out",
        )
    attentions = [layer.self_attn for layer in model.layers]
    own = all(getattr(a, "takes_sinks", False) and type(a.make_cache()) is KVCache for a in attentions)
    if not own or not all(type(layer.make_cache()) is KVCache for layer in model.layers):
        why = (
            f"depth '{config.depth.name}' keeps only the tokens that a block computes"
            if own
            else f"attention '{config.attention.name}' bounds its caches itself"
        )
        raise ConfigError(
            "a window of sinks needs layers that each keep all their tokens, and some of this model's do not",
            hint=f"{why}: leave --window out",
        )
    if model.head.key_width:
        raise ConfigError(
            f"a window of sinks forgets tokens, and head '{config.head.name}' points at all of them",
            hint="leave --window out",
        )
    if sinks + window > config.reach:
        raise ConfigError(
            f"--sinks {sinks} and --window {window} are {sinks + window} places, the model's context only "
            f"{config.reach}",
            hint="choose a smaller window",
        )


def make(model: LM, sinks: int, window: int, left_padding: list[int] | None = None) -> list[Any]:
    """Empty caches for `model` that keep the first `sinks` tokens and the last `window`; see `check`."""
    check(model, sinks, window)
    caches = []
    for layer in model.layers:
        cache = SinkCache(sinks, window)
        cache.tailed = layer.make_cache().tailed
        cache.left_padding = None if left_padding is None else mx.array(left_padding)
        caches.append(cache)
    return caches
