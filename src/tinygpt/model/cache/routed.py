"""Routed cache: keys and values of the tokens that a block computes, where it leaves others out.

Every pass appends as many columns as the row with most such tokens needs; a row with fewer has empty places
there, which are masked. With one row nothing is empty. Each entry keeps its token's place in the row, for
positions and for forgetting. A window counts a row's own entries.
Paper: Raposo et al. 2024, arXiv:2404.02258 (section 3.5).
Differs: the paper has no cache; what each block routes, and no more, is what it holds here.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinygpt.core.backend import mx
from tinygpt.model.cache.full import KVCache


class RoutedCache:
    """Entries (B, G, S, K) of one layer. B rows, S columns, k new ones. `held` counts all tokens read, those
    left out and padding included."""

    tailed = False
    spare = 0  # see KVCache

    def __init__(self, window: int = 0) -> None:
        self.window = window
        self.held = 0
        self.left_padding: mx.array | None = None
        self._store = KVCache()
        self._at: mx.array | None = None  # (B, S) token each column holds
        self._valid: mx.array | None = None  # (B, S) whether it holds one
        self._left = 0  # tokens read when a window last left columns behind
        self._gaps = False  # whether some column may hold none

    @property
    def offset(self) -> int | mx.array:
        """Position of the next token: a number, or one per row (B,) when rows are padded at the left."""
        return self.held if self.left_padding is None else self.held - self.left_padding

    @property
    def entries(self) -> int:
        """Columns whose keys are here."""
        return self._store.held

    @property
    def places(self) -> mx.array:
        """(B, S) position of each column's token in its text."""
        assert self._at is not None, "nothing was entered"
        return self._at if self.left_padding is None else self._at - self.left_padding[:, None]

    def enter(self, at_Bk: mx.array, valid_Bk: mx.array, length: int) -> None:
        """Of `length` new tokens these will be computed; their keys follow by `update_and_fetch`."""
        at_Bk = at_Bk + self.held
        self.held += length
        self._gaps = self._gaps or at_Bk.shape[0] > 1
        if self._at is None or self._valid is None:
            self._at, self._valid = at_Bk, valid_Bk
            return
        if self.window and self.entries >= 2 * self.window + KVCache.step:
            self._leave()
            self._left = self.held - length
        self._at = mx.concatenate([self._at, at_Bk], axis=1)
        self._valid = mx.concatenate([self._valid, valid_Bk], axis=1)

    def _leave(self) -> None:
        """Drop the columns that no row's window reaches."""
        assert self._at is not None and self._valid is not None
        rank = self._valid.astype(mx.int32).cumsum(axis=1)
        needed = self._valid & (rank > rank[:, -1:] - self.window - self.spare)
        columns = mx.where(needed, mx.arange(self.entries), self.entries)
        first = int(columns.min().item())
        keys, values = self._store.state
        self._store.state = keys[:, :, first:], values[:, :, first:]
        self._at, self._valid = self._at[:, first:], self._valid[:, first:]

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append (B, G, k, K) and return all keys and values held."""
        return self._store.update_and_fetch(keys, values)

    def make_mask(
        self, length: int, return_array: bool = False, window_size: int | None = None
    ) -> mx.array | str | None:
        """What the entered tokens may read: see Frame.mask."""
        assert self._valid is not None and length <= self._valid.shape[1], "tokens are entered first"
        if not self._gaps and not return_array:
            return "causal" if length > 1 else None
        columns = mx.arange(self._valid.shape[1])
        rows = columns[-length:, None]
        allowed = (columns <= rows) & self._valid[:, None]
        if window_size is not None:
            rank = self._valid.astype(mx.int32).cumsum(axis=1)
            allowed = allowed & (rank[:, -length:, None] - rank[:, None] < window_size)
        # An empty place reads itself: a row with nothing to read would be NaN and spread.
        return (allowed | (columns == rows))[:, None]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays held, room for coming tokens included."""
        return self._store.nbytes + sum(x.nbytes for x in (self._at, self._valid) if x is not None)

    @property
    def state(self) -> tuple[mx.array, ...]:
        return () if self._at is None or not self.entries else (*self._store.state, self._at, self._valid)

    @state.setter
    def state(self, value: tuple[mx.array, ...]) -> None:
        raise ValueError("a routed cache cannot be restored from its keys and values alone")

    def is_trimmable(self) -> bool:
        """Whether `trim` can forget any number: what a window has left behind is gone."""
        return not self.window

    @property
    def forgettable(self) -> int:
        """How many of the last tokens can be forgotten."""
        if self.window and not self.spare:
            return 0
        return self.held - max(0, self._left - self.spare) if self._left else self.held

    def trim(self, n: int) -> int:
        """Forget the last n tokens; returns how many were forgotten."""
        n = min(n, self.forgettable)
        self.held -= n
        if n and self._at is not None and self._valid is not None:
            self._valid = self._valid & (self._at < self.held)
            columns = mx.where(self._valid, mx.arange(1, self.entries + 1), 0)
            kept = int(columns.max().item()) if self.entries else 0
            self._store.trim(self.entries - kept)
            self._at, self._valid = self._at[:, :kept], self._valid[:, :kept]
        return n

    def rewind(self, n_B: Sequence[int]) -> None:
        """Forget the last tokens of each row, one number a row. ValueError where a window has left."""
        if max(n_B) > self.forgettable:
            raise ValueError("this cache cannot forget its last tokens")
        shift_B = mx.array([n - min(n_B) for n in n_B])
        if self._at is not None and self._valid is not None:
            self._valid = self._valid & (self._at < self.held - shift_B[:, None] - min(n_B))
            self._at = self._at + shift_B[:, None]
        if max(n_B) > min(n_B):
            self.left_padding = shift_B if self.left_padding is None else self.left_padding + shift_B
            self._gaps = True
        self.trim(min(n_B))

    def entries_of(self, row: int, first: int, end: int) -> list[mx.array]:
        """Keys, values (1, G, n, K) and tokens (n,) of a row's entries in places `first` to `end`, copied.
        Tokens are counted from the beginning of the row's text; nothing where nothing was entered."""
        if self._at is None or self._valid is None or self._store.keys is None or self._store.values is None:
            return []
        at, pad = self._at[row], 0 if self.left_padding is None else self.left_padding[row]
        here = (self._valid[row] & (at >= first) & (at < end)).tolist()
        columns = mx.array([i for i, one in enumerate(here) if one], mx.int32)
        found = [mx.take(x[row : row + 1], columns, axis=2) for x in (self._store.keys, self._store.values)]
        return [*found, mx.take(at - pad, columns)]

    def put(self, keys: mx.array | None, values: mx.array | None, at_S: mx.array | None, n: int) -> None:
        """Hold one row of n tokens with these entries."""
        self.held, self._left = n, n + self.spare if self.window else 0
        if keys is not None and values is not None and at_S is not None and at_S.size:
            self._store.state, self._at = (keys[...], values[...]), at_S[None]
            self._valid = mx.ones(self._at.shape, mx.bool_)

    def extend(self, other: RoutedCache) -> None:
        """Append the rows of another cache of this kind; both must know their `left_padding`."""
        assert self.left_padding is not None and other.left_padding is not None
        held, columns = max(self.held, other.held), max(self.entries, other.entries)
        at, valid, pads = [], [], []
        for one in (self, other):
            pads.append(one.left_padding + (held - one.held))
            assert one._at is not None and one._valid is not None, "nothing was read yet"
            front = [(0, 0), (columns - one.entries, 0)]
            at.append(mx.pad(one._at + (held - one.held), front))
            valid.append(mx.pad(one._valid, front))
            one._store.left_padding = mx.zeros_like(one.left_padding)
        for one, with_ in ((self._store, other._store), (other._store, self._store)):
            if one.keys is None and with_.keys is not None and with_.values is not None:  # all were left out
                n = one.left_padding.size
                one.keys, one.values = (
                    mx.zeros((n, *x.shape[1:]), x.dtype) for x in (with_.keys, with_.values)
                )
        self._store.extend(other._store)
        self._store.left_padding = other._store.left_padding = None
        self._at, self._valid, self.left_padding = (mx.concatenate(x) for x in (at, valid, pads))
        self._left = max((c._left + held - c.held for c in (self, other) if c._left), default=0)
        self.held, self._gaps = held, True

    def crop(self, n: int) -> None:
        """Drop the first n places, which are padding in every row."""
        assert self.left_padding is not None
        self.left_padding, self.held = self.left_padding - n, self.held - n
        self._left = max(0, self._left - n)
        if self._at is not None:
            self._at = self._at - n

    def filter(self, rows: mx.array) -> None:
        """Keep only these rows of the batch (finished ones leave)."""
        self._store.filter(rows)
        if self._at is not None and self._valid is not None:
            self._at, self._valid = self._at[rows], self._valid[rows]
        if self.left_padding is not None:
            self.left_padding = self.left_padding[rows]
