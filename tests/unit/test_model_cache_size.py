"""What caches will take is told before anything is read, and they take no more."""

from __future__ import annotations

from typing import Any

import pytest

import nano
from tinygpt.core.backend import mx
from tinygpt.core.config import Pick
from tinygpt.model.cache import quantized, sinks
from tinygpt.model.cache.size import row_bytes
from tinygpt.model.lm import LM

SLOTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "window": {"attention": Pick("gqa", {"window": 30})},
    "yoco": {"attention": Pick("yoco")},
    "canon": {"residual": Pick("canon"), "head": Pick("pointer")},
    "mod": {"depth": Pick("mod", {"whole": 0})},
    "sinks": {},
    "quantised": {},
}


def empty(model: LM, kind: str) -> list[Any]:
    if kind == "quantised":
        return quantized.make(model, 2)
    return sinks.make(model, 4, 60) if kind == "sinks" else model.make_cache()


@pytest.mark.parametrize("kind", SLOTS)
def test_caches_take_what_was_announced(kind: str) -> None:
    model = nano.model(max_position_embeddings=800, **SLOTS[kind])
    if kind == "mod":
        nano.route_half(model, nano.tokens(1, 64))
    sample, cache = empty(model, kind), empty(model, kind)
    ids = mx.array(nano.tokens(1, 700))
    model(ids[:, :64], sample)
    announced = sum(row_bytes(layer, 700, 128) for layer in sample)
    most = 0
    for a, b in [*((i, i + 100) for i in range(0, 600, 100)), *((i, i + 10) for i in range(600, 700, 10))]:
        model(ids[:, a:b], cache)
        mx.eval([layer.state for layer in cache])
        most = max(most, sum(layer.nbytes for layer in cache))
    least = {"mod": 0.3, "quantised": 0.6}.get(kind, 0.7)  # of tokens to be chosen no one knows how many
    assert least * announced < most <= announced
