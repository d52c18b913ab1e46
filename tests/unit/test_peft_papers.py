"""Each adapter of LoRA's family against its paper's equations, in numpy and float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_flatten

import nano
from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import ConfigError, UnsupportedError
from tinygpt.peft import _layers
from tinygpt.peft._adapter import PEFT

X = np.random.default_rng(0).normal(size=(5, 24))


def linear(bias: bool = True) -> nn.Linear:
    layer = nn.Linear(24, 16, bias=bias)
    layer.weight = mx.random.normal((16, 24), key=mx.random.key(1))
    return layer


def wrapped(name: str, layer: nn.Module | None = None, move: float = 0.3, **options: Any) -> Any:
    """A layer with an adapter, moved off its start."""
    technique = PEFT.load(name)
    layer = linear() if layer is None else layer
    layer.freeze()
    adapter = technique.wrap(
        layer, technique.Config(**{"rank": 4, "alpha": 6.0, **options}), mx.random.key(2)
    )
    if move:
        for i, (tensor, value) in enumerate(tree_flatten(adapter.trainable_parameters())):
            noise = mx.random.normal(value.shape, key=mx.random.key(10 + i))
            part, last = adapter, tensor.split(".")
            for step in last[:-1]:
                part = part[step]
            part[last[-1]] = value + move * noise
    return adapter


def f64(*arrays: mx.array) -> list[np.ndarray]:
    return [np.array(a, np.float64) for a in arrays]


@pytest.mark.parametrize(
    ("name", "scale"), [("lora", 6 / 4), ("rslora", 6 / math.sqrt(4)), ("lora_fa", 6 / 4)]
)
def test_the_scale_of_the_change(name: str, scale: float) -> None:
    layer = linear()
    adapter = wrapped(name, layer)
    w, bias, a, b = f64(layer.weight, layer.bias, *adapter.pair)
    nano.close(adapter(mx.array(X)), X @ (w + scale * b @ a).T + bias, 1e-5)
    nano.close(adapter.delta(), scale * b @ a, 1e-5)


def test_lora_fa_learns_b_alone() -> None:
    names = {n for n, _ in tree_flatten(wrapped("lora_fa").trainable_parameters())}
    assert names == {"lora_B.weight"}
    embedding = nn.Embedding(30, 8)
    adapter = wrapped("lora_fa", embedding)
    assert {n for n, _ in tree_flatten(adapter.trainable_parameters())} == {"lora_embedding_B"}
    assert mx.abs(adapter.delta()).max() > 0.1, "the frozen part is not zero, or nothing could be learned"


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_dora_is_the_papers_equation_5_with_the_norm_a_constant(packed: bool, rslora: bool) -> None:
    layer: Any = nn.Linear(32, 16)
    if packed:
        layer = nn.QuantizedLinear.from_linear(layer, 32, 4)
    x = np.random.default_rng(1).normal(size=(5, 32))
    adapter = wrapped("dora", layer, rslora=rslora)
    s = 6 / (2 if rslora else 4)
    w, bias, a, b, m = f64(_layers.dense(layer), layer.bias, *adapter.pair, adapter.lora_magnitude_vector)
    v = w + s * b @ a
    norm = np.linalg.norm(v, axis=1)
    nano.close(adapter(mx.array(x)), x @ (m / norm * v.T) + bias, 1e-5)
    nano.close(_layers.fused_weight(adapter), (m / norm)[:, None] * v, 1e-5)

    # Section 4.3: with C = norm fixed, dL/dm = sum(dW' V / C), dL/dV = m dW' / C; the loss is a sum of cubes.
    y = x @ (m / norm * v.T) + bias
    d_w = (3 * y**2).T @ x
    expected = {
        "lora_magnitude_vector": (d_w * v).sum(axis=1) / norm,
        "lora_A.weight": s * b.T @ ((m / norm)[:, None] * d_w),
        "lora_B.weight": s * ((m / norm)[:, None] * d_w) @ a.T,
    }

    def loss(parameters: dict) -> mx.array:
        adapter.update(parameters)
        return (adapter(mx.array(x)) ** 3).sum()

    found = dict(tree_flatten(mx.grad(loss)(adapter.trainable_parameters())))
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        nano.close(found[name], gradient, 1e-4)


def test_dora_of_a_row_of_zeros_is_finite() -> None:
    layer = linear()
    layer.weight = layer.weight * (mx.arange(16) != 3)[:, None]
    adapter = wrapped("dora", layer, move=0)
    assert mx.array_equal(adapter(mx.array(X)), layer(mx.array(X)))


def test_pissa_learns_the_principal_part_and_freezes_the_residual() -> None:
    layer = linear()
    w = np.array(layer.weight, np.float64)
    u, sigma, vh = np.linalg.svd(w)
    principal = (u[:, :4] * sigma[:4]) @ vh[:4]
    adapter = wrapped("pissa", layer, move=0)
    a, b = f64(*adapter.pair)
    nano.close(1.5 * b @ a, principal, 1e-5)
    nano.close(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=0), 1e-5)  # sqrt(S) in each, eq. 2 and 3
    assert mx.array_equal(adapter(mx.array(X)), layer(mx.array(X)))
    adapter = wrapped("pissa", layer)
    a, b = f64(*adapter.pair)
    residual = w - principal  # eq. 4
    nano.close(adapter(mx.array(X)), X @ (residual + 1.5 * b @ a).T + np.array(layer.bias), 1e-5)


def test_the_fast_svd_of_pissa_is_nearly_the_exact_one() -> None:
    layer = nn.Linear(96, 80, bias=False)
    layer.weight = mx.random.normal((80, 96), key=mx.random.key(1))
    u, sigma, vh = np.linalg.svd(np.array(layer.weight, np.float64))
    exact = (u[:, :4] * sigma[:4]) @ vh[:4]

    def off(niter: int) -> float:
        a, b = f64(*wrapped("pissa", layer, 0, niter=niter).pair)
        return float(np.linalg.norm(1.5 * b @ a - exact) / np.linalg.norm(exact))

    errors = [off(n) for n in (1, 4, 16)]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.02, errors
    assert off(0) < 1e-5


def test_olora_starts_from_the_qr_decomposition() -> None:
    layer = linear()
    q, r = np.linalg.qr(np.array(layer.weight, np.float64))
    adapter = wrapped("olora", layer, move=0)
    a, b = f64(*adapter.pair)
    nano.close(b @ a, q[:, :4] @ r[:4], 1e-5)
    nano.close(b.T @ b, np.eye(4), 1e-5)
    assert mx.array_equal(adapter(mx.array(X)), layer(mx.array(X)))
    adapter = wrapped("olora", layer)
    a1, b1 = f64(*adapter.pair)
    whole = np.array(layer.weight) - 1.5 * b @ a + 1.5 * b1 @ a1
    nano.close(adapter(mx.array(X)), X @ whole.T + np.array(layer.bias), 1e-5)


@pytest.mark.parametrize(("mode", "bits"), [("affine", 2), ("affine", 4), ("mxfp4", 4), ("nvfp4", 4)])
def test_loftq_alternates_as_algorithm_1(mode: str, bits: int) -> None:
    layer = nn.Linear(64, 48)
    layer.weight = 0.1 * mx.random.normal((48, 64), key=mx.random.key(1))
    w = np.array(layer.weight)
    group = {"affine": 64, "mxfp4": 32, "nvfp4": 16}[mode]
    low, losses = np.zeros_like(w), []
    for _ in range(4):
        packed = mx.quantize(mx.array(w - low), group, bits, mode=mode)
        scales, biases = packed[1], packed[2] if len(packed) > 2 else None
        q = np.array(mx.dequantize(packed[0], scales, biases, group, bits, mode=mode).astype(mx.float32))
        u, sigma, vh = np.linalg.svd(w - q)
        low = (u[:, :4] * sigma[:4]) @ vh[:4]
        losses.append(np.linalg.norm(w - q - low))
    adapter = wrapped("loftq", layer, 0, bits=bits, mode=mode, iters=4)
    base = adapter.base_layer
    assert isinstance(base, nn.QuantizedLinear) and (base.bits, base.mode, base.group_size) == (
        bits,
        mode,
        group,
    )
    nano.close(_layers.fused_weight(adapter), q + low, 1e-4)
    plain = np.array(
        _layers.dense(nn.QuantizedLinear.from_linear(layer, group, bits, mode)).astype(mx.float32)
    )
    assert np.linalg.norm(w - np.array(_layers.fused_weight(adapter))) < np.linalg.norm(w - plain)


def test_what_loftq_refuses() -> None:
    config = PEFT.load("loftq").Config
    for wrong in ({"bits": 7}, {"bits": 8, "mode": "mxfp4"}, {"group_size": 48}, {"iters": 0}):
        with pytest.raises(ConfigError):
            config(**wrong)
    with pytest.raises(UnsupportedError, match="cannot be split into groups"):
        wrapped("loftq", nn.Linear(24, 16))
    packed = nn.QuantizedLinear.from_linear(nn.Linear(64, 16), 64, 4)
    with pytest.raises(UnsupportedError, match="has 4 bits already"):
        wrapped("loftq", packed)
    assert wrapped("loftq", packed, bits=3).base_layer.bits == 3
    with pytest.raises(UnsupportedError, match="carries an adapter"):
        wrapped("loftq", wrapped("lora", nn.Linear(64, 16)))
    with pytest.raises(ConfigError, match="tied must be false"):
        PEFT.load("dora").Config(tied=True)
