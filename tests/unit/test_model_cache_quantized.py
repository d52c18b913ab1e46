"""Quantised caches: KIVI's formula, really packed, and every call of a cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nano
from tinygpt.core.backend import mx
from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError
from tinygpt.model.cache import quantized
from tinygpt.model.cache.full import KVCache
from tinygpt.model.cache.quantized import QuantizedCache

G, R = quantized.GROUP, quantized.RESIDUAL
BITS = quantized.BITS


def draw(*shape: int, seed: int) -> mx.array:
    return mx.random.normal(shape, key=mx.random.key(seed))


def by_hand(x: np.ndarray, bits: int, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """(x', s) of arXiv:2402.02750, algorithm 1, one range over the axis."""
    low, high = x.min(axis, keepdims=True), x.max(axis, keepdims=True)
    step = (high - low) / (2**bits - 1)
    return np.round((x - low) / step) * step + low, step


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("width", [7, 32, 80])
def test_old_tokens_are_rounded_as_the_paper_says_and_new_ones_are_not(bits: int, width: int) -> None:
    n = 200
    k, v, cache = draw(1, 2, n, width, seed=1), draw(1, 2, n, width, seed=2), QuantizedCache(bits)
    for a, b in ((0, 150), (150, 151), (151, 199)):
        cache.update_and_fetch(k[:, :, a:b], v[:, :, a:b])
    got_k, got_v = (np.array(x) for x in cache.update_and_fetch(k[:, :, 199:], v[:, :, 199:]))
    old = (199 - R) // G * G
    assert np.array_equal(got_k[:, :, old:], np.array(k[:, :, old:]))
    assert np.array_equal(got_v[:, :, old:], np.array(v[:, :, old:]))
    blocks = np.array(k[:, :, :old]).reshape(1, 2, -1, G, width)
    wanted, step = by_hand(blocks, bits, 3)
    error = np.abs(got_k[:, :, :old].reshape(wanted.shape) - wanted)
    # Where a number lies in the middle of two steps, rounding may go either way.
    assert (error > 1e-5).mean() < 1e-3 and (error <= step + 1e-5).all()
    size = quantized.group_of(width)
    wanted, step = by_hand(np.array(v[:, :, :old]).reshape(1, 2, old, -1, size), bits, 4)
    error = np.abs(got_v[:, :, :old].reshape(wanted.shape) - wanted)
    assert (error > 1e-5).mean() < 1e-3 and (error <= step + 1e-5).all()


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_fewer_bits_are_fewer_bytes_and_a_larger_error(dtype: mx.Dtype) -> None:
    n, width = R + 9 * G, 64
    k, v = (draw(2, 2, n + 1, width, seed=s).astype(dtype) for s in (1, 2))
    errors, sizes = [], []
    for bits in BITS:
        cache = QuantizedCache(bits)
        cache.update_and_fetch(k[:, :, :n], v[:, :, :n])
        got, _ = cache.update_and_fetch(k[:, :, n:], v[:, :, n:])
        assert got.dtype == dtype
        x = np.array(k[:, :, : 9 * G].astype(mx.float32)).reshape(2, 2, 9, G, width)
        error = np.abs(np.array(got[:, :, : 9 * G].astype(mx.float32)).reshape(x.shape) - x)
        step = np.ptp(x, axis=3, keepdims=True) / (2**bits - 1)
        slack = 1e-5 if dtype == mx.float32 else 0.02  # bfloat16 rounds what is read
        assert (error <= step / 2 + slack).all()
        errors.append(error.mean())
        held = sum(x.nbytes for x in (*cache.blocks, cache.keys, cache.values))
        assert cache.nbytes == held
        each = 4 if dtype == mx.float32 else 2
        packed = 2 * 9 * G * 2 * 2 * width * bits // 8
        ranges = 2 * 9 * 2 * 2 * each * (width + G * width // quantized.group_of(width))
        fresh = cache.kept + (-cache.kept % 64 if cache.keys.shape[2] % 64 == 0 else 0)
        assert held == packed + ranges + 2 * 2 * 2 * cache.keys.shape[2] * width * each and fresh
        sizes.append(packed + ranges)
    assert errors[0] > 3 * errors[1] > 9 * errors[2] and sizes[0] < sizes[1] < sizes[2]
    assert sizes[0] < 0.5 * 2 * 9 * G * 2 * 2 * width * (4 if dtype == mx.float32 else 2)


@pytest.mark.parametrize(
    "slots",
    [
        {},
        pytest.param({"residual": Pick("canon"), "head": Pick("pointer")}, marks=pytest.mark.wide),
        pytest.param({"attention": Pick("yoco")}, marks=pytest.mark.wide),
    ],
    ids=["llama", "canon", "yoco"],
)
def test_rows_that_come_and_go_and_take_tokens_back_are_as_if_alone(
    slots: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantized, "GROUP", 8)
    monkeypatch.setattr(quantized, "RESIDUAL", 12)
    model, ids, ends = nano.model(**slots), nano.tokens(3, 100, seed=3), [40, 29, 64]

    def read(rows: list[int]) -> list[Any]:
        longest = max(ends[row] for row in rows)
        pads = [longest - ends[row] for row in rows]
        cache = quantized.make(model, 4, pads if any(pads) else None)
        for layer in cache:
            layer.spare = 3
        padded = [[0] * pad + ids[row, : ends[row]].tolist() for pad, row in zip(pads, rows)]
        model(mx.array(padded), cache)
        return cache

    alone = [read([row]) for row in range(3)]

    def step(rows: list[int], cache: list[Any]) -> None:
        tokens = mx.array(ids[rows, [ends[row] for row in rows]])[:, None]
        got = model(tokens, cache)
        for i, row in enumerate(rows):
            nano.close(got[i], model(tokens[i : i + 1], alone[row])[0], 1e-5)
            ends[row] += 1

    cache = read([0, 1])
    step([0, 1], cache)
    for mine, theirs in zip(cache, read([2])):
        theirs.left_padding = mx.array([0])
        mine.extend(theirs)
    for _ in range(11):
        step([0, 1, 2], cache)
    for layer in cache:
        layer.filter(mx.array([2, 1]))
    step([2, 1], cache)
    model(mx.array([[3, 4], [5, 6]]), cache)
    for layer in cache:
        layer.rewind([2, 2])
    for row in (2, 1):
        model(mx.array([[7, 8]]), alone[row])
        for layer in alone[row]:
            layer.rewind([2])
    step([2, 1], cache)


def test_what_cannot_be_quantised_says_so() -> None:
    for slots in ({"attention": Pick("gqa", {"window": 8})}, {"depth": Pick("mod", {"whole": 0})}):
        with pytest.raises(ConfigError, match="none of this model's caches can be quantised"):
            quantized.make(nano.model(**slots), 4)
    kinds = [
        type(c)
        for c in quantized.make(nano.model(attention=Pick("gqa", {"window": 8, "full_layers": [1]})), 4)
    ]
    assert kinds[1] is QuantizedCache and kinds[0] is not KVCache
