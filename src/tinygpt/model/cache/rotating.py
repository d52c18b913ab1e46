"""Rotating cache: keeps the keys and values of the last `window` tokens, so memory stops growing.

For attention that reads a window. Space is taken for some more tokens than that and written in place; when it
is full, the newest move to its front, so that most decode steps copy nothing. What has left cannot
come back: the cache cannot be trimmed.
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
            room = before + length + self.step
            self.keys, self.values = (
                self._moved(old, new, first, room) for old, new in ((self.keys, keys), (self.values, values))
            )
            first, self.kept = 0, before
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

    def _here(self) -> tuple[Any, ...]:
        if self.keys is None or self.values is None:
            return (0,)
        first, n = max(0, self.kept - self.window), min(self.kept, self.window)
        return (n, self.keys[:, :, first:], self.values[:, :, first:])

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
        """Never: what the window has left behind is gone."""
        return False
