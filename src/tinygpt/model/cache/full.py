"""Full key-value cache: keeps the keys and values of every token so far.

Space is taken in blocks of `step` positions and written in place, so that a decode step copies nothing. The
calls are mlx-lm's cache protocol (`offset`, `update_and_fetch`, `state`, `make_mask`, `trim`, and of its
batches `filter` and `extend`), so its tools accept our caches, and models without tails accept its caches.
`left_padding` serves batches of prompts of unequal length, aligned at the right. Techniques that look a few
tokens back keep those tokens' features here too, as tails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygpt.core.backend import mx


class KVCache:
    """Keys and values (B, G, S, K) of one layer."""

    step = 64
    spare = 0  # how many last tokens can be forgotten where not all are kept; set before anything is read
    first = 0  # place in the row of the first key that `update_and_fetch` last returned

    def __init__(self, *, tailed: bool = False) -> None:
        self.keys: mx.array | None = None
        self.values: mx.array | None = None
        self.held = 0
        self.tailed = tailed
        self.tails: dict[str, mx.array] = {}
        self._reach: dict[str, int] = {}  # of each tail, how many features its reader looks back
        self.left_padding: mx.array | None = None  # (B,) tokens before the first of each row

    @property
    def offset(self) -> int | mx.array:
        """Position of the next token: a number, or one per row (B,) when rows are padded at the left."""
        return self.held if self.left_padding is None else self.held - self.left_padding

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append (B, G, L, K) and return all keys and values held."""
        end = self.held + keys.shape[2]
        if self.keys is None or self.values is None or end > self.keys.shape[2]:
            self._grow(keys, values, end)
        assert self.keys is not None and self.values is not None
        self.keys[:, :, self.held : end], self.values[:, :, self.held : end] = keys, values
        self.held = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def _grow(self, keys: mx.array, values: mx.array, end: int) -> None:
        size = -(-end // self.step) * self.step - self.held
        room_k = mx.zeros((*keys.shape[:2], size, keys.shape[3]), keys.dtype)
        room_v = mx.zeros((*values.shape[:2], size, values.shape[3]), values.dtype)
        if self.keys is None or self.values is None:
            self.keys, self.values = room_k, room_v
        else:
            self.keys = mx.concatenate([self.keys[:, :, : self.held], room_k], axis=2)
            self.values = mx.concatenate([self.values[:, :, : self.held], room_v], axis=2)

    def make_mask(
        self, length: int, return_array: bool = False, window_size: int | None = None
    ) -> mx.array | str | None:
        """What `length` new tokens may read: see Frame.mask."""
        if self.left_padding is None and not return_array and window_size is None:
            return "causal" if length > 1 else None
        rows = mx.arange(self.held, self.held + length)[:, None]
        columns = mx.arange(self.held + length)[None]
        allowed = columns <= rows
        if window_size is not None:
            allowed = allowed & (columns > rows - window_size)
        allowed = allowed[None, None]
        if self.left_padding is not None:
            allowed = allowed & (columns[None, None] >= self.left_padding[:, None, None, None])
            # Padding reads itself: a row with nothing to read would be NaN and spread.
            allowed = allowed | (columns == rows)[None, None]
        return allowed

    def tail(self, name: str, x_BLD: mx.array, n: int) -> mx.array:
        """(B, n, D): the n features before x that were given under this name, zeros before the first ones.
        The newest n are remembered, and `spare` more."""
        before = self.tails.get(name)
        if before is None:
            before = mx.zeros((x_BLD.shape[0], n + self.spare, x_BLD.shape[2]), x_BLD.dtype)
        self.tails[name] = mx.concatenate([before, x_BLD], axis=1)[:, -(n + self.spare) :]
        self._reach[name] = n
        return before[:, -n:]

    def put_tail(self, name: str, x_BND: mx.array) -> None:
        """Have features at the end that `tails` held once."""
        self.tails[name], self._reach[name] = x_BND, x_BND.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays held, room for coming tokens included."""
        held = [self.keys, self.values, *self.tails.values()]
        return sum(x.nbytes for x in held if x is not None)

    @property
    def state(self) -> tuple[mx.array, mx.array]:
        assert self.keys is not None and self.values is not None, "an empty cache has no state"
        return self.keys[:, :, : self.held], self.values[:, :, : self.held]

    @state.setter
    def state(self, value: tuple[mx.array, mx.array]) -> None:
        if self.tailed:
            raise ValueError("a cache with tails cannot be restored from keys and values alone")
        self.keys, self.values = value
        self.held = self.keys.shape[2]

    def is_trimmable(self) -> bool:
        """Whether `trim` can forget any number: tails are turned back by no more than the spare."""
        return not self.tailed

    @property
    def forgettable(self) -> int:
        """How many of the last tokens can be forgotten."""
        if self.tailed and not self.spare:
            return 0
        return min([self.held, *(x.shape[1] - self._reach[name] for name, x in self.tails.items())])

    def trim(self, n: int) -> int:
        """Forget the last n tokens; returns how many were forgotten."""
        n = min(n, self.forgettable)
        self.held -= n
        self.tails = {name: x[:, : x.shape[1] - n] for name, x in self.tails.items()}
        return n

    def filter(self, rows: mx.array) -> None:
        """Keep only these rows of the batch (finished ones leave), in this order; one may come twice."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys[rows], self.values[rows]
        self.tails = {name: x[rows] for name, x in self.tails.items()}
        if self.left_padding is not None:
            self.left_padding = self.left_padding[rows]

    def extend(self, other: Any) -> None:
        """Append the rows of another cache of this kind; both must know their `left_padding`. The shorter one
        gets more of it."""
        assert self.left_padding is not None and other.left_padding is not None
        held, rows = max(self.held, other.held), (self.left_padding.size, other.left_padding.size)
        self.left_padding = mx.concatenate([c.left_padding + (held - c.held) for c in (self, other)])
        for name in {**self.tails, **other.tails}:
            self.tails[name] = _below(self.tails.get(name), other.tails.get(name), rows)
            self._reach.setdefault(name, other._reach.get(name, 0))
        self._extend_keys(other)
        self.held = held

    def _extend_keys(self, other: Any) -> None:
        (n, *mine), (m, *theirs) = self._here(), other._here()
        if not mine or not theirs:
            return
        width = self._common(other, n, m)
        size = -(-(width + 1) // self.step) * self.step
        both = [_aligned(a, b, n, m, width, size) for a, b in zip(mine, theirs)]
        self._put(width, *both)

    def _common(self, other: Any, n: int, m: int) -> int:
        """Places that rows of both have, of the n and m that each has."""
        return max(n, m)

    def _here(self) -> tuple[Any, ...]:
        """How many tokens have their keys here; then keys and values, with those in the first places."""
        return (self.held,) if self.keys is None else (self.held, self.keys, self.values)

    def _put(self, n: int, keys: mx.array, values: mx.array) -> None:
        self.keys, self.values = keys, values

    def rewind(self, n_B: Sequence[int]) -> None:
        """Forget the last tokens of each row, one number a row; what stays moves to the right end.
        ValueError where they cannot be forgotten."""
        least, most = min(n_B), max(n_B)
        if most > self.forgettable:
            raise ValueError("this cache cannot forget its last tokens")
        self.trim(least)
        if most == least:
            return
        shift_B = mx.array([n - least for n in n_B])
        for name, x in self.tails.items():
            from_BT = mx.arange(x.shape[1] - (most - least)) + (most - least - shift_B[:, None])
            self.tails[name] = mx.take_along_axis(x, from_BT[..., None], axis=1)
        self._shift(shift_B, most - least)
        self.left_padding = shift_B if self.left_padding is None else self.left_padding + shift_B

    def _shift(self, shift_B: mx.array, most: int) -> None:
        """Move each row's keys and values so many places to the right, `most` at most."""
        if self.keys is not None and self.values is not None:
            from_BS = mx.maximum(mx.arange(self.held) - shift_B[:, None], 0)[:, None, :, None]
            self.keys, self.values = (
                mx.take_along_axis(x, from_BS, axis=2) for x in (self.keys, self.values)
            )

    def crop(self, n: int) -> None:
        """Drop the first n places, which are padding in every row."""
        assert self.left_padding is not None
        self.left_padding = self.left_padding - n
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys[:, :, n:], self.values[:, :, n:]
        self.held -= n


def _aligned(a: mx.array, b: mx.array, n: int, m: int, width: int, size: int) -> mx.array:
    """Rows of a, then of b, in `size` places, the n and m tokens of their first places ending at `width`."""
    a, b, n, m = a[:, :, max(0, n - width) : n], b[:, :, max(0, m - width) : m], min(n, width), min(m, width)
    both = mx.zeros((a.shape[0] + b.shape[0], a.shape[1], size, a.shape[3]), a.dtype)
    both[: a.shape[0], :, width - n : width], both[a.shape[0] :, :, width - m : width] = a, b
    return both


def _below(a: mx.array | None, b: mx.array | None, rows: tuple[int, int]) -> mx.array:
    """Rows of a, then of b, zeros where there are none; as far back as both go."""
    like = a if a is not None else b
    assert like is not None
    if a is not None and b is not None and a.shape[1] != b.shape[1]:
        n = min(a.shape[1], b.shape[1])
        a, b = a[:, -n:], b[:, -n:]
    parts = [mx.zeros((n, *like.shape[1:]), like.dtype) if x is None else x for x, n in zip((a, b), rows)]
    return mx.concatenate(parts)
