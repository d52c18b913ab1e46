"""Continuations scored together, apart, and after a context that was read once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nano
from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.data.tokenizer.byte import ByteTokenizer
from tinygpt.infer import continuation
from tinygpt.infer.engine import Engine


def engine(shape: str) -> Engine:
    return Engine(nano.model(shape, vocab_size=260), ByteTokenizer())


def plainly(model: Any, context: list[int], after: list[int]) -> tuple[float, bool]:
    """One pass over the whole text, by the definition."""
    logits = np.array(model(mx.array([context + after])))[0].astype(np.float64)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    places = range(len(context) - 1, len(context) + len(after) - 1)
    return (
        sum(float(logs[p, t]) for p, t in zip(places, after)),
        all(int(logs[p].argmax()) == t for p, t in zip(places, after)),
    )


@pytest.mark.parametrize("shape", nano.SHAPES)
def test_however_they_are_batched(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = engine(shape)
    long, short = nano.tokens(1, 40)[0].tolist(), [5, 6]
    best = int(np.array(lm.model(mx.array([long])))[0, -1].argmax())
    pairs = [
        (long, [best]), (long, [3]), (long, [best, 7, 9]), (long, [4, 4]), (long, [4, 5]), (long, [1, 2, 3]),
        (short, [1]), (short, [8, 8, 8, 8]), (long[:30], long[30:]), (long[:38], [9, best]),
    ]  # fmt: skip
    expected = [plainly(lm.model, context, after) for context, after in pairs]
    assert [greedy for _, greedy in expected].count(True) == 1
    read: list[int] = []
    forward = type(lm.model).__call__
    monkeypatch.setattr(
        type(lm.model), "__call__", lambda self, x, *a, **k: read.append(x.size) or forward(self, x, *a, **k)
    )
    for rows in (1, 3, 16):
        n_read = []
        for shared in (16, 10**6):
            monkeypatch.setattr(continuation, "SHARED", shared)
            read.clear()
            found = continuation.continuations(lm, pairs, rows=rows)
            for (logp, greedy), (other, other_greedy) in zip(found, expected, strict=True):
                assert logp == pytest.approx(other, abs=1e-4) and greedy == other_greedy
            n_read.append(sum(read))
        assert rows == 1 or n_read[0] < n_read[1], "a shared context is read once"


def test_what_cannot_be_scored() -> None:
    lm = engine("llama")
    assert len(continuation.continuations(lm, [([1] * 128, [2])])) == 1, "the last token is only predicted"
    for context, after in (([1] * 128, [2, 3]), ([], [1]), ([1], [])):
        with pytest.raises(ConfigError, match="cannot be scored"):
            continuation.continuations(lm, [(context, after)])
