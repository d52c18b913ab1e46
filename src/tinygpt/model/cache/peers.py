"""What mlx-lm's caches hold of one row, taken out and put back; see parts.

Its plain cache can be cut at any token. Of all others, recurrent states and windows among them, a snapshot is
what mlx-lm itself calls their state, one row of it."""

from __future__ import annotations

from typing import Any

from tinygpt.core.backend import mx
from tinygpt.model.cache.parts import Arrays, Keeper, Snapshot

PLAIN = ("KVCache", "BatchKVCache")


class PlainKeeper(Keeper):
    """Keys and values of all tokens."""

    def __init__(self, layer: Any) -> None:
        self.needs_end = False

    def cut(self, layer: Any, row: int, pad: int, first: int, end: int) -> Arrays:
        one = _row(layer, row)
        if one.keys is None:
            return []
        return [mx.take(x, mx.arange(first, end), axis=2) for x in (one.keys, one.values)]

    def snapshot(self, layer: Any, row: int, pad: int) -> Snapshot:
        return {}

    def restore(self, layer: Any, parts: list[Arrays], end: Snapshot, n: int) -> None:
        if parts and parts[0]:
            layer.keys, layer.values = (mx.concatenate(list(same), axis=2) for same in zip(*parts))
            layer.offset = n


class StateKeeper(Keeper):
    """Any other cache."""

    def __init__(self, layer: Any) -> None:
        self.needs_end = True

    def cut(self, layer: Any, row: int, pad: int, first: int, end: int) -> Arrays:
        return []

    def snapshot(self, layer: Any, row: int, pad: int) -> Snapshot:
        found: Snapshot = {}
        _flatten(_state(_row(layer, row)), "", found)
        return found

    def restore(self, layer: Any, parts: list[Arrays], end: Snapshot, n: int) -> None:
        _put(layer, _unflatten(end))


def keeper(layer: Any) -> Keeper:
    """Of a cache of mlx-lm."""
    return PlainKeeper(layer) if is_plain(layer) else StateKeeper(layer)


def is_plain(layer: Any) -> bool:
    """Whether a cache of mlx-lm keeps keys and values of all tokens."""
    return type(layer).__name__ in PLAIN and type(layer).__module__.startswith("mlx_lm.")


def joins(layer: Any) -> bool:
    """Whether rows of a cache, ours or mlx-lm's, can join those of another."""
    inner = getattr(layer, "caches", None)
    if inner is not None:
        return all(map(joins, inner))
    return hasattr(layer, "left_padding") or (hasattr(layer, "merge") and not getattr(layer, "keep", 0))


def in_order(layer: Any) -> None:
    """Have a cache of mlx-lm hold its tokens in the order of the text. Its windows of a batch are rings after
    a step; the mask that they make for several tokens takes a ring's end for the text's, and the padding for
    longer than it is (0.32)."""
    for one in getattr(layer, "caches", ()):
        in_order(one)
    if type(layer).__name__ == "BatchRotatingKVCache":
        layer._temporal_order()


def _row(layer: Any, row: int) -> Any:
    """A cache of one row with what this one has in it."""
    name = type(layer).__name__
    if name == "CacheList":
        return type(layer)(*(_row(one, row) for one in layer.caches))
    if name == "ArraysCache":  # its own `extract` wants every slot to be filled
        one = type(layer)(len(layer.cache))
        one.cache = [None if x is None else x[row : row + 1] for x in layer.cache]
        return one
    return layer.extract(row) if name.startswith("Batch") else layer


def _state(layer: Any) -> Any:
    return [_state(one) for one in layer.caches] if hasattr(layer, "caches") else layer.state


def _put(layer: Any, state: Any) -> None:
    if hasattr(layer, "caches"):
        for one, own in zip(layer.caches, state, strict=True):
            _put(one, own)
    else:
        layer.state = state


def _flatten(value: Any, name: str, into: Snapshot) -> None:
    """A tree of lists, arrays and numbers as arrays by name: "0.l" is a list, "0.1.n" a number."""
    if isinstance(value, (list, tuple)):
        into[f"{name}l"] = mx.array([len(value), isinstance(value, tuple)])
        for i, one in enumerate(value):
            _flatten(one, f"{name}{i}.", into)
    elif isinstance(value, mx.array):
        into[f"{name}a"] = value + 0 if value.dtype != mx.bool_ else value[...]
    elif value is None:
        into[f"{name}z"] = mx.array(0)
    elif isinstance(value, bool):
        into[f"{name}b"] = mx.array(int(value))
    else:
        into[f"{name}n"] = mx.array(int(value))


def _unflatten(found: Snapshot, name: str = "") -> Any:
    if f"{name}l" in found:
        n, is_tuple = (int(x) for x in found[f"{name}l"].tolist())  # type: ignore[union-attr]
        items = [_unflatten(found, f"{name}{i}.") for i in range(n)]
        return tuple(items) if is_tuple else items
    if f"{name}a" in found:
        return found[f"{name}a"][...]
    if f"{name}z" in found:
        return None
    if f"{name}b" in found:
        return bool(found[f"{name}b"].item())
    return int(found[f"{name}n"].item())
