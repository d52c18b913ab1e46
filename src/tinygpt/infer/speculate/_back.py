"""Taking back what a pass wrote into the caches beyond what stayed.

Most caches forget (`Decoder.rewind`; windows and tails as much as they keep spare), and in those of a pass
over a tree the nodes that stayed move together first. Caches that cannot forget, as recurrent states, are
copied before the pass, and what stayed is read again on the copy.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from tinygpt.core.backend import mx
from tinygpt.infer.decode import Decoder
from tinygpt.model.cache.full import KVCache
from tinygpt.model.cache.peers import is_plain


def forgets(decoder: Decoder, n: int) -> bool:
    """Whether all caches can take back up to the n tokens of a pass to come, another number of each row."""
    return all(
        c.is_trimmable() or c.spare >= n if hasattr(c, "rewind") else is_plain(c) for c in decoder.cache
    )


def branches(decoder: Decoder) -> bool:
    """Whether the caches can take in a tree."""
    return all(type(c) is KVCache and not c.tailed for c in decoder.cache)


class Branching:
    """A full cache that new tokens enter as a tree. N new nodes, M nodes with those of passes before."""

    def __init__(self, cache: KVCache, lineage_BNM: mx.array) -> None:
        self._cache, self._lineage = cache, lineage_BNM
        self.held, self.offset, self.left_padding = cache.held, cache.offset, cache.left_padding

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append (B, G, N, K) and return all keys and values held."""
        return self._cache.update_and_fetch(keys, values)

    def make_mask(self, length: int, return_array: bool = False, window_size: int | None = None) -> mx.array:
        """Each node reads the text, and the nodes that lead to it."""
        assert window_size is None, "a tree reads all of the text"
        rows, n = self._lineage.shape[0], self.held + length - self._lineage.shape[2]
        padding = mx.zeros((rows,), mx.int32) if self.left_padding is None else self.left_padding
        text_BS = mx.broadcast_to(mx.arange(n) >= padding[:, None], (rows, n))
        text_BNS = mx.broadcast_to(text_BS[:, None], (rows, length, n))
        return mx.concatenate([text_BNS, self._lineage], axis=2)[:, None]


def keep_paths(decoder: Decoder, n: int, paths: Sequence[Sequence[int]]) -> None:
    """Of the last n places, hold the nodes of each row's path alone."""
    if any(list(path) != list(range(len(path))) for path in paths):
        order_BN = mx.array([[*path, *(i for i in range(n) if i not in set(path))] for path in paths])
        for layer in decoder.cache:
            first = layer.held - n
            for name in ("keys", "values"):
                x = getattr(layer, name)
                moved = mx.take_along_axis(x[:, :, first : layer.held], order_BN[:, None, :, None], axis=2)
                x[:, :, first : layer.held] = moved
    if any(len(path) < n for path in paths):
        decoder.rewind([n - len(path) for path in paths])


def copied(decoder: Decoder) -> Decoder:
    """The same caches once more: what is written into the one does not show in the other."""
    decoder.thaw()
    other = copy.copy(decoder)
    other.pads, other.cache = list(decoder.pads), [_copied(layer) for layer in decoder.cache]
    return other


def _copied(value: Any) -> Any:
    if isinstance(value, mx.array):
        return value[...]  # arrays are written in place
    if isinstance(value, dict):
        return {name: _copied(x) for name, x in value.items()}
    if isinstance(value, list):
        return [_copied(x) for x in value]
    if not hasattr(value, "update_and_fetch") and not hasattr(value, "state"):
        return value
    other = copy.copy(value)
    for name, x in vars(value).items():
        setattr(other, name, _copied(x))
    return other


def read_again(before: Decoder, tokens: Sequence[Sequence[int]]) -> Decoder:
    """`before` after each row has read its own tokens, which need not be equally many; none is well."""
    groups: dict[int, list[int]] = {}
    for row, own in enumerate(tokens):
        groups.setdefault(len(own), []).append(row)
    if len(groups) == 1:
        return _read(before, tokens)
    parts: list[Decoder] = []
    for rows in groups.values():
        part = copied(before)
        part.filter(rows)
        parts.append(_read(part, [tokens[row] for row in rows]))
    whole, *rest = parts
    for part in rest:
        whole.extend(part)
    order = [row for rows in groups.values() for row in rows]
    whole.filter([order.index(row) for row in range(len(order))])
    return whole


def _read(decoder: Decoder, tokens: Sequence[Sequence[int]]) -> Decoder:
    if tokens[0]:
        decoder.read(mx.array([list(own) for own in tokens]), last=1)
    return decoder
