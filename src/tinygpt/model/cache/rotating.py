"""Rotating cache: keeps the keys and values of the last `window` tokens, so memory stops growing.

For attention that reads a window. Space is taken for some more tokens than that and written in place; when it
is full, the newest move to its front, so that most decode steps copy nothing. What has left cannot
come back: the cache can forget no more tokens than it has `spare` ones before the window.
Paper: Beltagy et al. 2020, arXiv:2004.05150 (sliding window); Jiang et al. 2023, arXiv:2310.06825 (rolling
buffer).
Differs: space for more than a window, not a ring of its size, so that what is read lies in order.
"""

from __future__ import annotations

from typing import Any

from tinygpt.core.backend import mx
from tinygpt.model.cache.full import KVCache


class RotatingCache(KVCache):
    """Keys and values (B, G, S, K) of one layer, S the last tokens, at most `window` after each pass."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window
        self.kept = 0  # tokens of those held whose keys are still here, at the front of the space

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append (B, G, L, K) and return what the new tokens may read: the window before the first of them,
        and themselves."""
        length = keys.shape[2]
        before = min(self.kept, self.window - 1)
        first = self.kept - before
        size = 0 if self.keys is None else self.keys.shape[2]
        if self.kept + length > size:
            stay = min(self.kept, before + self.spare)
            room = stay + length + self.step
            self.keys, self.values = (
                self._moved(old, new, self.kept - stay, room)
                for old, new in ((self.keys, keys), (self.values, values))
            )
            first, self.kept = stay - before, stay
        assert self.keys is not None and self.values is not None
        end = self.kept + length
        self.keys[:, :, self.kept : end], self.values[:, :, self.kept : end] = keys, values
        self.kept, self.held = end, self.held + length
        self.first = self.held - (end - first)
        return self.keys[:, :, first:end], self.values[:, :, first:end]

    def _moved(self, old: mx.array | None, new: mx.array, first: int, room: int) -> mx.array:
        """Space for `room` tokens that begins with those kept from `first` on."""
        kept = [] if old is None else [old[:, :, first : self.kept]]
        held = kept[0].shape[2] if kept else 0
        empty = mx.zeros((*new.shape[:2], room - held, new.shape[3]), new.dtype)
        return mx.concatenate([*kept, empty], axis=2)

    def make_mask(
        self, length: int, return_array: bool = False, window_size: int | None = None
    ) -> mx.array | str | None:
        """What `length` new tokens may read of what `update_and_fetch` returns: see Frame.mask."""
        before = min(self.kept, self.window - 1)
        if self.left_padding is None and not return_array:
            if length == 1:
                return None
            # "causal" leaves the window to the attention: only where that one spoke of it.
            if not before and (window_size is not None or length <= self.window):
                return "causal"
        rows = mx.arange(before, before + length)[:, None]
        columns = mx.arange(before + length)[None]
        allowed = ((columns <= rows) & (columns > rows - self.window))[None, None]
        if self.left_padding is not None:
            gone = self.held - before  # tokens before the first column
            padding = (self.left_padding - gone)[:, None, None, None]
            allowed = (allowed & (columns[None, None] >= padding)) | (columns == rows)[None, None]
        return allowed

    @property
    def state(self) -> tuple[mx.array, mx.array]:
        assert self.keys is not None and self.values is not None, "an empty cache has no state"
        first = max(0, self.kept - self.window)
        return self.keys[:, :, first : self.kept], self.values[:, :, first : self.kept]

    @state.setter
    def state(self, value: tuple[mx.array, mx.array]) -> None:
        raise ValueError("a rotating cache cannot be restored from its keys and values alone")

    def _common(self, other: Any, n: int, m: int) -> int:
        # What one row has lost, no row has: else its place would be empty, yet no padding.
        lost = [kept for cache, kept in ((self, n), (other, m)) if kept < cache.held]
        return min(lost, default=max(n, m))

    def _here(self) -> tuple[Any, ...]:
        if self.keys is None or self.values is None:
            return (0,)
        n = min(self.kept, self.window + self.spare)
        first = self.kept - n
        return (n, self.keys[:, :, first:], self.values[:, :, first:])

    def _shift(self, shift_B: mx.array, most: int) -> None:
        if self.keys is None or self.values is None:
            return
        gone = 0 if self.kept == self.held else most  # what comes in from the left is padding, or nothing
        from_BS = mx.maximum(mx.arange(gone, self.kept) - shift_B[:, None], 0)[:, None, :, None]
        self.keys, self.values = (mx.take_along_axis(x, from_BS, axis=2) for x in (self.keys, self.values))
        self.kept -= gone

    def _put(self, n: int, keys: mx.array, values: mx.array) -> None:
        self.keys, self.values, self.kept = keys, values, n

    def crop(self, n: int) -> None:
        """Drop the first n places, which are padding in every row."""
        assert self.left_padding is not None
        self.left_padding, self.held = self.left_padding - n, self.held - n
        if self.kept > self.held:
            gone = self.kept - self.held
            assert self.keys is not None and self.values is not None
            self.keys, self.values = self.keys[:, :, gone:], self.values[:, :, gone:]
            self.kept = self.held

    def is_trimmable(self) -> bool:
        """Never any number: what the window has left behind is gone."""
        return False

    @property
    def forgettable(self) -> int:
        """How many of the last tokens can be forgotten: none, unless there are spare ones."""
        if not self.spare:
            return 0
        here = self.kept if self.kept == self.held else max(0, self.kept - (self.window - 1))
        return min(here, super().forgettable)

    def trim(self, n: int) -> int:
        """Forget the last n tokens; returns how many were forgotten."""
        n = super().trim(n)
        self.kept -= n
        return n
