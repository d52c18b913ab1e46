"""Quantised cache: old keys and values are kept in 8, 4 or 2 bits, the last tokens as they came.

Keys have a few channels that are large in every token, values do not. So a group of keys shares its range
along the tokens, channel by channel, and a group of values along the channels, token by token:
`z = min x`, `s = (max x - min x) / (2^b - 1)`, `q = round((x - z) / s)`, read as `x' = s q + z`, whence
`|x - x'| <= s / 2`. Of n tokens the first `G floor((n - R) / G)` are kept so, packed to whole bytes, and the
other R to R + G - 1 as they came; a pass reads its own tokens as they came. Groups begin with the text, not
with its padding, so a row of a batch is what it is alone.
Paper: Liu et al., ICML 2024, arXiv:2402.02750 (KIVI: algorithm 1; the residual).
Differs: keys keep at least R tokens as values do, where the paper's keys keep 0 to R - 1; what is read is
restored layer by layer before the product, where the paper's kernel multiplies as it reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.model.cache.full import KVCache

if TYPE_CHECKING:
    from tinygpt.model.lm import LM

BITS = (2, 4, 8)
GROUP = 32  # tokens of keys, and at most so many channels of values, that share a range
RESIDUAL = 64  # tokens that are always kept as they came

Packed = tuple[mx.array, mx.array, mx.array]  # whole numbers in bytes, steps s, least values z


def quantized(x: mx.array, bits: int, axis: int) -> Packed:
    """x in whole numbers from 0 to 2^bits - 1, packed along the last axis; one range over `axis`."""
    kept_as = mx.float32 if x.dtype == mx.float32 else mx.float16  # bfloat16 would cost half a step of 255
    x = x.astype(mx.float32)
    low = x.min(axis=axis, keepdims=True)
    step = ((x.max(axis=axis, keepdims=True) - low) / (2**bits - 1)).astype(kept_as)
    low = low.astype(kept_as)
    q = mx.round((x - low) / mx.where(step == 0, 1, step).astype(mx.float32))
    q = mx.clip(q, 0, 2**bits - 1).astype(mx.uint8)
    each = 8 // bits
    if each > 1:
        q = mx.pad(q, [(0, 0)] * (q.ndim - 1) + [(0, -q.shape[-1] % each)])
        q = q.reshape(*q.shape[:-1], -1, each) << (mx.arange(each, dtype=mx.uint8) * bits)
        q = q.sum(axis=-1).astype(mx.uint8)
    return q, step, low


def restored(packed: Packed, bits: int, width: int) -> mx.array:
    """What `quantized` was given, up to half a step; `width` numbers in the last axis."""
    q, step, low = packed
    each = 8 // bits
    if each > 1:
        q = (q[..., None] >> (mx.arange(each, dtype=mx.uint8) * bits)) & mx.array(2**bits - 1, mx.uint8)
        q = q.reshape(*q.shape[:-2], -1)[..., :width]
    return q.astype(step.dtype) * step + low


class QuantizedCache(KVCache):
    """Keys and values of one layer: packed (B, N, G, T, K) in N blocks of T tokens, counted from the
    beginning of each row's text; those of the last `kept` places of the row (B, G, S, K) as they came."""

    def __init__(self, n_bits: int, *, tailed: bool = False) -> None:
        super().__init__(tailed=tailed)
        self.n_bits = n_bits  # not `bits`: to mlx-lm's attention that means a cache of its own kind
        self.kept = 0
        self.blocks: list[mx.array] = []  # keys: numbers, steps, least; values: the same
        self._counts: list[int] = []  # blocks of each row
        self._padding: tuple[Any, list[int]] = (None, [])
        self._widths = (0, 0)
        self._need = 0  # places that rows of two caches need as they came, while they are joined

    def _pads(self, rows: int) -> list[int]:
        """Padding of each row, looked up where it has changed."""
        if self.left_padding is None:
            return [0] * rows
        if self._padding[0] is not self.left_padding:
            self._padding = (self.left_padding, self.left_padding.tolist())  # type: ignore[assignment]
        return self._padding[1]

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append (B, G, L, K) and return all keys and values held; then pack those that have become old."""
        rows, length = keys.shape[0], keys.shape[2]
        self._widths = keys.shape[3], values.shape[3]
        self._counts = self._counts or [0] * rows
        end = self.kept + length
        if self.keys is None or self.values is None or end > self.keys.shape[2]:
            stay = min(self.kept, max(*self._fresh(rows), 0))
            room = -(-(stay + length) // self.step) * self.step
            self.keys, self.values = (
                _moved(old, new, self.kept - stay, self.kept, room)
                for old, new in ((self.keys, keys), (self.values, values))
            )
            self.kept, end = stay, stay + length
        self.keys[:, :, self.kept : end], self.values[:, :, self.kept : end] = keys, values
        self.kept, self.held = end, self.held + length
        found = self._read(rows)
        self._pack(rows)
        return found

    def _fresh(self, rows: int) -> list[int]:
        """Tokens of each row that are kept as they came."""
        return [self.held - pad - n * GROUP for pad, n in zip(self._pads(rows), self._counts, strict=True)]

    def _read(self, rows: int) -> tuple[mx.array, mx.array]:
        """Keys and values (B, G, S, K) of all places."""
        assert self.keys is not None and self.values is not None
        fresh = [x[:, :, : self.kept] for x in (self.keys, self.values)]
        if not any(self._counts):
            front = [(0, 0), (0, 0), (self.held - self.kept, 0), (0, 0)]  # places that are padding
            return mx.pad(fresh[0], front), mx.pad(fresh[1], front)
        most = max(self._counts)
        old: list[mx.array] = []
        for i, width in enumerate(self._widths):
            q, step, low = (x[:, :most] for x in self.blocks[3 * i : 3 * i + 3])
            x = restored((q, step, low), self.n_bits, group_of(width) if i else width)
            x = x.reshape(rows, most, -1, GROUP, width).transpose(0, 2, 1, 3, 4).astype(fresh[i].dtype)
            old.append(x.reshape(rows, -1, most * GROUP, width))
        pads, first = self._pads(rows), self.held - self.kept
        if not any(pads) and min(self._counts) == most:
            new = [x[:, :, most * GROUP - first :] for x in fresh]
            return mx.concatenate([old[0], new[0]], axis=2), mx.concatenate([old[1], new[1]], axis=2)
        places = mx.arange(self.held)
        text_BS = places - mx.array(pads)[:, None]
        is_old = text_BS < mx.array(self._counts)[:, None] * GROUP
        from_BS = mx.where(is_old, text_BS, most * GROUP + places - first)
        from_BS = mx.clip(from_BS, 0, most * GROUP + self.kept - 1)[:, None, :, None]
        k, v = (
            mx.take_along_axis(mx.concatenate([a, b], axis=2), from_BS, axis=2) for a, b in zip(old, fresh)
        )
        return k, v

    def _pack(self, rows: int) -> None:
        """Turn the blocks that no longer belong to the last tokens into whole numbers."""
        assert self.keys is not None and self.values is not None
        row_n, block_n, place_n = [], [], []
        pads, first = self._pads(rows), self.held - self.kept
        for row, fresh in enumerate(self._fresh(rows)):
            for _ in range(max(0, fresh - RESIDUAL) // GROUP):
                row_n.append(row)
                block_n.append(self._counts[row])
                place_n.append(pads[row] + self._counts[row] * GROUP - first)
                self._counts[row] += 1
        if not row_n:
            return
        at_n, to_n = mx.array(row_n), mx.array(block_n)
        from_nT = mx.array(place_n)[:, None] + mx.arange(GROUP)
        new: list[mx.array] = []
        for i, x in enumerate((self.keys, self.values)):
            x_nGTK = x.transpose(0, 2, 1, 3)[at_n[:, None], from_nT].transpose(0, 2, 1, 3)
            if i == 1:  # groups of channels, token by token
                x_nGTK = x_nGTK.reshape(*x_nGTK.shape[:3], -1, group_of(self._widths[1]))
            new += quantized(x_nGTK, self.n_bits, axis=-1 if i else 2)
        have = self.blocks[0].shape[1] if self.blocks else 0
        if max(self._counts) > have:
            more = max(self._counts) - have
            more += more // 4 if have else 0
            empty = [mx.zeros((rows, more, *x.shape[1:]), x.dtype) for x in new]
            self.blocks = [mx.concatenate(p, axis=1) for p in zip(self.blocks, empty)] or empty
        for x, block in zip(new, self.blocks):
            block[at_n, to_n] = x

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays held, room for coming tokens included."""
        return super().nbytes + sum(x.nbytes for x in self.blocks)

    @property
    def state(self) -> tuple[mx.array, ...]:
        """What is held: the last tokens, then what is packed."""
        assert self.keys is not None and self.values is not None, "an empty cache has no state"
        return (self.keys[:, :, : self.kept], self.values[:, :, : self.kept], *self.blocks)

    @state.setter
    def state(self, value: tuple[mx.array, ...]) -> None:
        raise ValueError("a quantised cache cannot be restored from its keys and values alone")

    def is_trimmable(self) -> bool:
        """Never any number: what is packed stays."""
        return False

    @property
    def forgettable(self) -> int:
        """How many of the last tokens can be forgotten: those that are not packed."""
        fresh = self._fresh(len(self._counts)) if self._counts else [self.held]
        return min(super().forgettable, *fresh)

    def trim(self, n: int) -> int:
        """Forget the last n tokens; returns how many were forgotten."""
        n = super().trim(n)
        self.kept -= n
        return n

    def put(self, blocks: list[mx.array], keys: mx.array, values: mx.array, n: int) -> None:
        """Hold one row of n tokens: packed blocks, and the last tokens as they came."""
        self.blocks, self.keys, self.values = blocks, keys, values
        self._counts = [blocks[0].shape[1] if blocks else 0]
        self._widths, self.kept, self.held = (keys.shape[3], values.shape[3]), keys.shape[2], n

    def _shift(self, shift_B: mx.array, most: int) -> None:
        if self.keys is not None and self.values is not None:
            from_BS = mx.maximum(mx.arange(self.kept) - shift_B[:, None], 0)[:, None, :, None]
            self.keys, self.values = (
                mx.take_along_axis(x, from_BS, axis=2) for x in (self.keys, self.values)
            )

    def crop(self, n: int) -> None:
        """Drop the first n places, which are padding in every row."""
        assert self.left_padding is not None
        self.left_padding, self.held = self.left_padding - n, self.held - n
        if self.kept > self.held and self.keys is not None and self.values is not None:
            gone = self.kept - self.held
            self.keys, self.values, self.kept = self.keys[:, :, gone:], self.values[:, :, gone:], self.held

    def filter(self, rows: mx.array) -> None:
        """Keep only these rows of the batch; see KVCache."""
        super().filter(rows)
        if self._counts:
            self._counts = [self._counts[row] for row in rows.tolist()]  # type: ignore[union-attr]
        self.blocks = [x[rows] for x in self.blocks]

    def extend(self, other: Any) -> None:
        """Append the rows of another cache of this kind; see KVCache."""
        assert self.left_padding is not None and other.left_padding is not None
        sizes = [c.left_padding.size for c in (self, other)]
        self._counts, other._counts = (c._counts or [0] * n for c, n in zip((self, other), sizes))
        need = [max(c._fresh(n)) for c, n in zip((self, other), sizes)]
        self.blocks = _stacked(self.blocks, other.blocks, sizes)
        self._need, self._widths = max(need), max(self._widths, other._widths)
        super().extend(other)
        self._counts = self._counts + other._counts

    def _common(self, other: Any, n: int, m: int) -> int:
        return self._need

    def _here(self) -> tuple[Any, ...]:
        return (self.kept,) if self.keys is None else (self.kept, self.keys, self.values)

    def _put(self, n: int, keys: mx.array, values: mx.array) -> None:
        self.keys, self.values, self.kept = keys, values, n


def group_of(width: int) -> int:
    """Channels of a value that share a range."""
    return next(n for n in range(min(GROUP, width), 0, -1) if width % n == 0)


def _moved(old: mx.array | None, new: mx.array, first: int, end: int, room: int) -> mx.array:
    """Space for `room` tokens that begins with those in the places `first` to `end`."""
    kept = [] if old is None else [old[:, :, first:end]]
    empty = mx.zeros((*new.shape[:2], room - (end - first), new.shape[3]), new.dtype)
    return mx.concatenate([*kept, empty], axis=2)


def _stacked(mine: list[mx.array], theirs: list[mx.array], rows: Sequence[int]) -> list[mx.array]:
    """Rows of both, with as many blocks as either has."""
    found = []
    for i in range(len(mine or theirs)):
        a, b = (blocks[i] if blocks else None for blocks in (mine, theirs))
        like = a if a is not None else b
        assert like is not None
        most = max(x.shape[1] for x in (a, b) if x is not None)
        parts = []
        for x, n in zip((a, b), rows, strict=True):
            have = 0 if x is None else x.shape[1]
            empty = mx.zeros((n, most - have, *like.shape[2:]), like.dtype)
            parts.append(empty if x is None else mx.concatenate([x, empty], axis=1))
        found.append(mx.concatenate(parts))
    return found


def check(model: LM, bits: int) -> None:
    """ConfigError where no cache of this model can be quantised."""
    if not any(map(_may, model.make_cache())):
        raise ConfigError(
            "none of this model's caches can be quantised: they keep a window, or chosen tokens",
            hint="leave --kv-bits out",
        )
    if bits not in BITS:
        raise ConfigError(f"caches are quantised to 2, 4 or 8 bits, not {bits}")


def make(model: LM, bits: int, left_padding: Sequence[int] | None = None) -> list[Any]:
    """Empty caches for `model`: quantised where all tokens are kept, its own where not."""
    check(model, bits)
    head = getattr(getattr(model, "head", None), "key_width", 0)  # keeps token ids, last in the list
    caches = model.make_cache(left_padding)
    for i, like in enumerate(model.make_cache()):
        if _may(like) and not (head and i == len(caches) - 1):
            caches[i] = QuantizedCache(bits, tailed=getattr(like, "tailed", False))
            caches[i].left_padding = None if left_padding is None else mx.array(list(left_padding))
    return caches


def _may(cache: Any) -> bool:
    """Whether it keeps keys and values of all tokens: ours, or mlx-lm's plain one, whose calls ours has."""
    kind = type(cache)
    return kind is KVCache or (kind.__module__, kind.__name__) == ("mlx_lm.models.cache", "KVCache")
