"""What a cache holds of one row, taken out so that it can be kept, divided, and put into a cache again.

Two things make up what a layer remembers of a text: what adds up token by token (keys and values, or the
blocks that are packed), which can be cut at any token, and what stands only at the end (a window, tails, a
recurrent state), of which there is a snapshot for the place where it was taken. Arrays that come out are
copies."""

from __future__ import annotations

from typing import Any

from tinygpt.core.backend import mx
from tinygpt.model.cache import quantized
from tinygpt.model.cache.full import KVCache
from tinygpt.model.cache.quantized import QuantizedCache
from tinygpt.model.cache.rotating import RotatingCache
from tinygpt.model.cache.routed import RoutedCache
from tinygpt.model.cache.sinks import SinkCache

Arrays = list[mx.array]
Snapshot = dict[str, mx.array]
PIECE = 256  # quantised caches depend on where a prompt was cut, so theirs are cut at multiples of this


class Keeper:
    """Full caches, and borrowed ones. What adds up: keys and values (1, G, n, K). At the end: tails.

    unit: places where a text can be cut are multiples of it. needs_end: whether a snapshot is needed."""

    unit = 1

    def __init__(self, layer: Any) -> None:
        self.needs_end = bool(layer.tailed)

    def cut(self, layer: Any, row: int, pad: int, first: int, end: int) -> Arrays:
        """Of the tokens `first` to `end` of a row's text that begins after `pad` places."""
        if layer.keys is None:
            return []
        return [_places(x, row, pad + first, pad + end) for x in (layer.keys, layer.values)]

    def snapshot(self, layer: Any, row: int, pad: int) -> Snapshot:
        """What stands at the end of a row's text."""
        return {f"tail.{name}": x[row : row + 1] + 0 for name, x in layer.tails.items()}

    def divide(self, arrays: Arrays, first: int, n: int) -> tuple[Arrays, Arrays]:
        """What adds up in tokens from `first` on, in two: of n tokens, and of the rest."""
        return [_places(x, 0, 0, n) for x in arrays], [_places(x, 0, n, x.shape[2]) for x in arrays]

    def restore(self, layer: Any, parts: list[Arrays], end: Snapshot, n: int) -> None:
        """Have an empty cache of one row hold a text of n tokens."""
        layer.held = n
        if parts and parts[0]:
            layer.keys, layer.values = _joined(parts, axis=2)
        _put_tails(layer, end)


class WindowKeeper(Keeper):
    """Rotating caches, with sinks or without: all that they hold stands at the end."""

    def __init__(self, layer: Any) -> None:
        self.needs_end = True

    def cut(self, layer: Any, row: int, pad: int, first: int, end: int) -> Arrays:
        return []

    def snapshot(self, layer: Any, row: int, pad: int) -> Snapshot:
        n = min(layer.kept, layer.window + layer.spare, layer.held - pad)
        found = {name: _places(getattr(layer, name), row, layer.kept - n, layer.kept) for name in KEYS}
        for name in SINKS if isinstance(layer, SinkCache) else ():
            found[name] = getattr(layer, name)[row : row + 1] + 0
        return {**found, **super().snapshot(layer, row, pad)}

    def restore(self, layer: Any, parts: list[Arrays], end: Snapshot, n: int) -> None:
        layer.held, layer.kept = n, end["keys"].shape[2]
        for name, x in end.items():
            if not name.startswith("tail."):
                setattr(layer, name, x[...])
        _put_tails(layer, end)


class QuantizedKeeper(Keeper):
    """Quantised caches. What adds up: packed blocks (1, N, ...). At the end: the last tokens as they came."""

    unit = PIECE

    def __init__(self, layer: Any) -> None:
        self.needs_end = True

    def cut(self, layer: Any, row: int, pad: int, first: int, end: int) -> Arrays:
        a, b = _blocks(first), _blocks(end)
        return [mx.take(x[row : row + 1], mx.arange(a, b), axis=1) for x in layer.blocks] if b > a else []

    def snapshot(self, layer: Any, row: int, pad: int) -> Snapshot:
        n = layer.held - pad - _blocks(layer.held - pad) * quantized.GROUP
        found = {name: _places(getattr(layer, name), row, layer.kept - n, layer.kept) for name in KEYS}
        return {**found, **super().snapshot(layer, row, pad)}

    def divide(self, arrays: Arrays, first: int, n: int) -> tuple[Arrays, Arrays]:
        k = _blocks(first + n) - _blocks(first)
        if not arrays:
            return [], []
        left = [mx.take(x, mx.arange(k), axis=1) for x in arrays] if k else []
        return left, [mx.take(x, mx.arange(k, x.shape[1]), axis=1) for x in arrays]

    def restore(self, layer: Any, parts: list[Arrays], end: Snapshot, n: int) -> None:
        layer.put(_joined([part for part in parts if part], axis=1), end["keys"][...], end["values"][...], n)
        _put_tails(layer, end)


class RoutedKeeper(Keeper):
    """Routed caches. What adds up, or stands in the window: keys, values, and which token each is of."""

    def __init__(self, layer: Any) -> None:
        self.needs_end = bool(layer.window)

    def cut(self, layer: Any, row: int, pad: int, first: int, end: int) -> Arrays:
        return [] if self.needs_end else layer.entries_of(row, pad + first, pad + end)

    def snapshot(self, layer: Any, row: int, pad: int) -> Snapshot:
        found = layer.entries_of(row, pad, layer.held) if self.needs_end else []
        return dict(zip((*KEYS, "at"), found))

    def divide(self, arrays: Arrays, first: int, n: int) -> tuple[Arrays, Arrays]:
        if not arrays:
            return [], []
        k = int((arrays[2] < first + n).sum().item())
        left, right = super().divide(arrays[:2], first, k)
        return [*left, arrays[2][:k] + 0], [*right, arrays[2][k:] + 0]

    def restore(self, layer: Any, parts: list[Arrays], end: Snapshot, n: int) -> None:
        parts = [[end[name] for name in (*KEYS, "at")]] if end else [part for part in parts if part]
        keys, values = _joined([part[:2] for part in parts], axis=2) or (None, None)
        at = mx.concatenate([part[2] for part in parts]) if parts else None
        layer.put(keys, values, at, n)


KEYS, SINKS = ("keys", "values"), ("sink_keys", "sink_values")


def keeper(layer: Any) -> Keeper:
    """Of a cache, ours or mlx-lm's."""
    kinds = {SinkCache: WindowKeeper, RotatingCache: WindowKeeper, QuantizedCache: QuantizedKeeper}
    for kind, found in {**kinds, RoutedCache: RoutedKeeper, KVCache: Keeper}.items():
        if isinstance(layer, kind):
            return found(layer)
    from tinygpt.model.cache import peers

    return peers.keeper(layer)


def _places(x: mx.array, row: int, first: int, end: int) -> mx.array:
    """Some places of a row, copied: a slice would keep the whole array alive."""
    if end <= first:
        return x[row : row + 1, :, :0]
    return mx.take(x[row : row + 1], mx.arange(first, end), axis=2)


def _joined(parts: list[Arrays], axis: int) -> Arrays:
    return [mx.concatenate(list(same), axis=axis) for same in zip(*parts)]


def _blocks(n: int) -> int:
    """Packed blocks of a text of n tokens."""
    return max(0, n - quantized.RESIDUAL) // quantized.GROUP


def _put_tails(layer: Any, end: Snapshot) -> None:
    for name, x in end.items():
        if name.startswith("tail."):
            layer.put_tail(name.removeprefix("tail."), x[...])
