"""Canon and the pointer head against their formulas, written out in numpy."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import nano
from tinygpt.core.backend import mx
from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError
from tinygpt.model.earlier import earlier
from tinygpt.model.frame import Frame

IDS = nano.tokens(2, 9)


def test_earlier_looks_back_inside_a_document_only() -> None:
    x = mx.arange(1.0, 7.0).reshape(1, 6, 1)
    segments = mx.array([[1, 1, 1, 2, 2, 2]])
    one, two = earlier(x, 2, Frame(length=6, segments=segments), None, "x")
    assert one[0, :, 0].tolist() == [0, 1, 2, 0, 4, 5]
    assert two[0, :, 0].tolist() == [0, 0, 1, 0, 0, 4]


def test_canon_is_a_causal_depthwise_convolution() -> None:
    model = nano.model(residual=Pick("canon", {"kernel": 3}))
    rule, read = model.layers[0].mlp_residual, []
    rule.weight = 0.3 * mx.random.normal(rule.weight.shape, key=mx.random.key(1))
    x = mx.random.normal((1, 5, 32), key=mx.random.key(2))
    out = rule(x, lambda h: 2 * h, lambda h: read.append(h) or h * 0 + 7, Frame(length=5), None)
    h, w = 2 * np.array(x[0]), np.array(rule.weight)[..., 0]
    wanted = [h[t] + sum(w[:, i] * h[t - i] for i in range(3) if t >= i) for t in range(5)]
    nano.close(read[0][0], np.stack(wanted), 1e-6)
    nano.close(out, np.array(x) + 7, 1e-6)


def test_pointer_shares_its_mass_as_the_paper_says() -> None:
    model = nano.model(head=Pick("pointer", {"width": 8}))
    head, ids = model.head, mx.array(IDS)
    h = np.array(model.hidden(ids), np.float64)
    vocabulary = np.exp(np.array(model.output(mx.array(h.astype(np.float32))), np.float64))
    vocabulary /= vocabulary.sum(axis=-1, keepdims=True)
    queries = h @ np.array(head.query.weight).T / np.sqrt(8)
    before = np.concatenate([np.zeros_like(h[:, :1, 16:]), h[:, :-1, 16:]], axis=1)
    keys = np.concatenate([h[..., :16], before], axis=2) @ np.array(head.key.weight).T
    got = np.exp(np.array(model(ids), np.float64))
    got /= got.sum(axis=-1, keepdims=True)
    for b in range(2):
        for t in range(9):
            scores = np.append(keys[b, : t + 1] @ queries[b, t], queries[b, t] @ np.array(head.sentinel))
            a = np.exp(scores - scores.max())
            a /= a.sum()
            p = a[-1] * vocabulary[b, t]
            for j in range(t + 1):
                p[IDS[b, j]] += a[j]
            nano.close(got[b, t], p, 1e-4)


def test_foreign_caches_are_refused_and_not_misread() -> None:
    """A cache that lacks what a slot needs would give wrong logits without a word."""
    ids = mx.array(IDS)
    with pytest.raises(ConfigError, match="head has a cache of its own"):
        nano.model(head=Pick("pointer"))(ids, nano.model().make_cache())
    model = nano.model(residual=Pick("canon"))
    with pytest.raises(ConfigError, match="does not keep"):
        model(ids, [SimpleNamespace(offset=0)] * 2)
    cache = model.make_cache()
    model(ids, cache)
    with pytest.raises(ValueError, match="tails"):
        cache[0].state = cache[0].state


def test_pointer_logits_have_the_zero_of_the_vocabulary() -> None:
    """repetition_penalty divides positive logits: log-probabilities would hardly feel it."""
    model, ids = nano.model(head=Pick("pointer")), mx.array(IDS)
    plain = np.array(model.output(model.hidden(ids)))
    assert (np.array(model(ids)).max(axis=-1) > plain.max(axis=-1) - 5).all() and plain.max() > 0
