"""Bytes that caches will take, told before a prompt is read."""

from __future__ import annotations

from typing import Any

from tinygpt.core.backend import mx
from tinygpt.model.cache import quantized
from tinygpt.model.cache.full import KVCache
from tinygpt.model.cache.quantized import QuantizedCache
from tinygpt.model.cache.rotating import RotatingCache
from tinygpt.model.cache.routed import RoutedCache

BLOCK = 256  # places that mlx-lm's caches grow by


def row_bytes(layer: Any, n: int, piece: int) -> int:
    """At most so many bytes for n tokens of one row, read in pieces of at most so many. `layer`: a cache of
    the same kind that holds one row."""
    if hasattr(layer, "caches"):
        return sum(row_bytes(one, n, piece) for one in layer.caches)
    if isinstance(layer, RoutedCache):
        per = _token(*layer.state[:2]) + sum(x.itemsize for x in layer.state[2:]) if layer.state else 0
        return _grown(n) * per  # all tokens may be chosen
    keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
    tails = sum(x.nbytes for x in getattr(layer, "tails", {}).values())
    if not isinstance(keys, mx.array) or not isinstance(values, mx.array):
        return tails + int(getattr(layer, "nbytes", 0))
    token = _token(keys, values)
    if isinstance(layer, QuantizedCache):
        fresh = quantized.RESIDUAL + quantized.GROUP + layer.step + piece
        return tails + min(_grown(n), fresh) * token + _grown(n) * _packed(layer, keys, values)
    if isinstance(layer, RotatingCache):
        sinks = sum(x.nbytes for x in layer.state[:-2])
        return tails + sinks + min(_grown(n), layer.window + layer.spare + layer.step + piece) * token
    if isinstance(layer, KVCache):
        return tails + _grown(n) * token
    most = getattr(layer, "max_size", None)  # mlx-lm's windows
    return -(-(n if most is None else min(n, most + piece)) // BLOCK) * BLOCK * token


def _grown(n: int) -> int:
    """Places that a cache of n tokens may have: a quarter more, in steps."""
    return -(-(n + n // 4) // KVCache.step) * KVCache.step


def _token(keys: mx.array, values: mx.array) -> int:
    return sum(x.shape[1] * x.shape[3] * x.itemsize for x in (keys, values))


def _packed(layer: QuantizedCache, keys: mx.array, values: mx.array) -> int:
    """Bytes of one packed token, rounded up."""
    kept = 4 if keys.dtype == mx.float32 else 2  # steps and least values
    k, v = keys.shape[3], values.shape[3]
    size = quantized.group_of(v)
    each = -(-k * layer.n_bits // 8) + 2 * kept * k / quantized.GROUP
    each += v // size * (-(-size * layer.n_bits // 8) + 2 * kept)
    return int(keys.shape[1] * each + 1)
