"""VeRA and IA3 against their papers' equations, in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_unflatten

import nano
from tinygpt.core.backend import mx, nn
from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError
from tinygpt.peft import _adapter, ia3, vera

X = np.random.default_rng(0).normal(size=(3, 32))


def stirred(name: str, **knobs: Any) -> Any:
    model = nano.model(attention_bias=True)
    _adapter.attach(model, Pick(name, knobs), seed=1)
    model.update(
        tree_unflatten(
            [
                (n, w + 0.3 * mx.random.normal(w.shape, key=mx.random.key(i)))
                for i, (n, w) in enumerate(_adapter.tensors(model).items())
            ]
        )
    )
    return model


def f64(x: Any) -> np.ndarray:
    return np.array(x, dtype=np.float64)


def test_vera_is_the_papers_equation() -> None:
    """h = W x + diag(b) B diag(d) A x, with one A and one B for layers of several sizes."""
    model = stirred("vera", rank=5, targets=("q_proj", "v_proj"))
    pairs = []
    for name, (n_out, n_in) in {"q_proj": (32, 32), "v_proj": (16, 32)}.items():
        for layer in model.layers:
            module = getattr(layer.self_attn, name)
            a, b = (f64(w) for w in module.pair())
            pairs.append(module["_shared"])
            assert a.shape == (5, n_in) and b.shape == (n_out, 5)
            d, s = np.diag(f64(module.vera_lambda_d)), np.diag(f64(module.vera_lambda_b))
            base = module.base_layer
            expected = X @ (f64(base.weight) + s @ b @ d @ a).T + f64(base.bias)
            nano.close(module(mx.array(X.astype(np.float32))), expected, 1e-5)
    assert all(pair is pairs[0] for pair in pairs), "one pair, held once"
    a, b = f64(pairs[0][vera.A]), f64(pairs[0][vera.B])
    assert abs(a).max() <= math.sqrt(6 / 32) and abs(b).max() <= math.sqrt(6 / 5)
    assert abs(a).max() > 0.8 * math.sqrt(6 / 32) and abs(b).max() > 0.8 * math.sqrt(6 / 5)


def test_veras_pair_hangs_on_the_seed_alone_and_never_learns() -> None:
    def pair(seed: int, targets: tuple[str, ...]) -> dict[str, mx.array]:
        model = nano.model()
        _adapter.attach(model, Pick("vera", {"rank": 4, "targets": targets}), seed=seed)
        return next(iter(_adapter.adapters(model).values()))["_shared"]

    one, again, other = pair(1, ("q_proj",)), pair(1, ("q_proj", "v_proj")), pair(2, ("q_proj",))
    assert mx.array_equal(one[vera.A], again[vera.A]) and not mx.array_equal(one[vera.A], other[vera.A])
    model = nano.model()
    _adapter.attach(model, Pick("vera"), seed=1)
    assert {n.rsplit(".", 1)[-1] for n in _adapter.tensors(model)} == {"vera_lambda_d", "vera_lambda_b"}
    first = next(iter(_adapter.adapters(model).values()))
    assert (f64(first.vera_lambda_d) == np.float32(0.1)).all() and (f64(first.vera_lambda_b) == 0).all()


def test_ia3_is_the_papers_equations() -> None:
    """l_k * (W_k x + c), l_v * (W_v x + c), and W_2 (l_ff * inner)."""
    model = stirred("ia3")
    for layer in model.layers:
        for name in ("k_proj", "v_proj"):
            module = getattr(layer.self_attn, name)
            plain = X @ f64(module.base_layer.weight).T + f64(module.base_layer.bias)
            expected = plain * f64(module.ia3_l)[:, 0]
            nano.close(module(mx.array(X.astype(np.float32))), expected, 1e-5)
        down = layer.mlp.down_proj
        inner = np.random.default_rng(1).normal(size=(3, down.base_layer.weight.shape[1]))
        expected = (inner * f64(down.ia3_l)[0]) @ f64(down.base_layer.weight).T
        nano.close(down(mx.array(inner.astype(np.float32))), expected, 1e-5)
        assert not hasattr(layer.self_attn.q_proj, "ia3_l")


def test_ia3_refuses_a_feedforward_target_that_is_not_adapted() -> None:
    layers = {"model.layers.0.self_attn.k_proj": nn.Linear(2, 2)}
    ia3.check(ia3.Config(targets=("k_proj",)), layers)
    with pytest.raises(ConfigError, match="'up_proj' is none of the adapted"):
        ia3.check(ia3.Config(targets=("k_proj",), feedforward=("up_proj",)), layers)
