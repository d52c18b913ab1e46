"""Sliding windows: attention equals the masked one, the cache keeps no more than the window."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nano
from tinygpt.core.backend import mx
from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError
from tinygpt.model import count, ops


def draw(*shape: int, seed: int) -> mx.array:
    return mx.random.normal(shape, key=mx.random.key(seed))


def masked(q: mx.array, k: mx.array, v: mx.array, window: int, extra: mx.array | float = 0.0) -> mx.array:
    """The definition: all scores, those out of the window at minus infinity."""
    L, S = q.shape[2], k.shape[2]
    apart = mx.arange(S - L, S)[:, None] - mx.arange(S)
    k, v = (mx.repeat(x, q.shape[1] // k.shape[1], axis=1) for x in (k, v))
    scores = q @ k.swapaxes(-1, -2) * 0.3 + extra
    return mx.softmax(mx.where((apart >= 0) & (apart < window), scores, -mx.inf), axis=-1) @ v


@pytest.mark.parametrize(
    "window", [3, 100, *(pytest.param(n, marks=pytest.mark.wide) for n in (1, 64, 200, 500))]
)
@pytest.mark.parametrize(("L", "S"), [(200, 200), (70, 200), (1, 200), (300, 300)])
def test_windowed_attention_and_its_gradients_are_the_masked_ones(L: int, S: int, window: int) -> None:
    q, k, v = draw(2, 4, L, 8, seed=1), draw(2, 2, S, 8, seed=2), draw(2, 2, S, 8, seed=3)
    weigh = draw(2, 4, L, 8, seed=4)

    def ours(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return (ops.attention(q, k, v, scale=0.3, window=window) * weigh).sum()

    def wanted(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return (masked(q, k, v, window) * weigh).sum()

    for a, b in zip(mx.grad(ours, (0, 1, 2))(q, k, v), mx.grad(wanted, (0, 1, 2))(q, k, v)):
        assert np.abs(np.array(a - b)).max() <= 1e-5 * max(1.0, mx.abs(b).max().item())
    nano.close(ops.attention(q, k, v, scale=0.3, window=window), masked(q, k, v, window), 1e-5)


def test_a_window_in_packed_documents_and_with_a_bias() -> None:
    q, k, v = (draw(1, h, 150, 8, seed=h) for h in (4, 2, 2))
    segments = mx.array([[1] * 60 + [2] * 90])
    apart = mx.where(segments[:, None, :, None] == segments[:, None, None, :], 0.0, -mx.inf)
    bias = draw(1, 4, 150, 150, seed=9)
    for extra, how in ((apart, {"segments": segments}), (bias, {"bias": bias})):
        nano.close(ops.attention(q, k, v, scale=0.3, window=40, **how), masked(q, k, v, 40, extra), 1e-5)


def held(cache: Any) -> int:
    return cache.keys.nbytes + cache.values.nbytes


@pytest.mark.parametrize("name", ["gqa", "diff"])
def test_the_cache_stops_growing_and_the_text_goes_on(name: str) -> None:
    model = nano.model(attention=Pick(name, {"window": 8}), position=Pick("rope"))
    ids = nano.tokens(1, 80, seed=2)
    whole = np.array(model(mx.array(ids)))
    cache, sizes = model.make_cache(), []
    for i in range(80):
        step = np.array(model(mx.array(ids[:, i : i + 1]), cache))
        nano.close(step[:, 0], whole[:, i], 2e-5)
        sizes.append(held(cache[0]))
    assert max(sizes) == (8 + 64) * 2 * 2 * 8 * 4 and cache[0].held == 80, "window and step, two groups of 8"
    assert cache[0].state[0].shape[2] == 8 and not cache[0].is_trimmable()
    assert count.cache_bytes(model.config, 80) == sum(c.state[0].nbytes + c.state[1].nbytes for c in cache)


@pytest.mark.parametrize("name", ["gqa", "diff"])
def test_far_tokens_do_not_matter_to_one_layer(name: str) -> None:
    model = nano.model(attention=Pick(name, {"window": 8}), num_hidden_layers=1)
    ids = nano.tokens(1, 40)
    changed = ids.copy()
    changed[:, :30] = (changed[:, :30] + 1) % 64
    one, two = (np.array(model(mx.array(x))) for x in (ids, changed))
    assert np.abs(one[:, 38:] - two[:, 38:]).max() == 0 and np.abs(one[:, 36] - two[:, 36]).max() > 0


@pytest.mark.parametrize("name", ["gqa", "diff"])
def test_the_least_that_training_takes_knows_the_window(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(count, "has_cpu_forms", lambda: True)
    sizes = (count.activation_bytes(nano.config(attention=Pick(name, {"window": w})), 3, 64) for w in (0, 8))
    assert next(sizes) - next(sizes) == 2 * 3 * 4 * (64 - 8) ** 2 // 2 * 4, "two layers, four heads"


def test_the_least_that_training_takes_knows_a_window_that_is_not_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(count, "has_cpu_forms", lambda: True)
    by_default, given = (nano.config(attention=Pick("yoco", {"window": w})) for w in (0, 32))
    assert count.activation_bytes(by_default, 3, 64) == count.activation_bytes(given, 3, 64)


@pytest.mark.parametrize("name", ["gqa", "diff", "yoco"])
def test_a_window_below_zero_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="attention.window must not be negative, got -1"):
        nano.config(attention=Pick(name, {"window": -1}))
