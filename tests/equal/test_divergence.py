"""What distillation losses are made of: the forms for CPUs equal MLX's own, values and gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from equal.test_ops import close, normal
from tinygpt.core.backend import mx
from tinygpt.distill.divergence import _events
from tinygpt.distill.divergence._events import kl, log_p_at, log_softmax, mixture

SHAPES = [(1, 2), (5, 130), (2, 3, 64)]


def twins(monkeypatch: pytest.MonkeyPatch, form: Callable[..., mx.array], *inputs: mx.array) -> None:
    """Of a form, and of the gradients of a random projection of it for every input."""
    found: list[list[mx.array]] = []
    for fast in (True, False):
        monkeypatch.setattr(_events, "has_cpu_forms", lambda fast=fast: fast)
        out = form(*inputs)
        weights = mx.random.normal(out.shape, key=mx.random.key(7))
        every = tuple(range(len(inputs)))
        gradients = mx.grad(lambda *x, w=weights: (form(*x) * w).sum(), argnums=every)(*inputs)
        found.append([out, *gradients])
        mx.eval(found)
    for got, want in zip(*found, strict=True):
        close(got, want)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1e4])
def test_log_probabilities_of_all_tokens_and_of_some(
    shape: tuple[int, ...], scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    z = normal(*shape, scale=scale)
    ids = mx.argsort(normal(*shape, seed=4), axis=-1)[..., : max(1, shape[-1] // 3)]
    for temperature in (1.0, 2.5):
        twins(monkeypatch, lambda z, t=temperature: log_softmax(z, t), z)
        twins(monkeypatch, lambda z, t=temperature: log_p_at(z, ids, t), z)
        close(log_p_at(z, ids, temperature), mx.take_along_axis(log_softmax(z, temperature), ids, axis=-1))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [0.0, 1.0, 10.0])
def test_divergences_and_mixtures(
    shape: tuple[int, ...], scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    p, q = (log_softmax(normal(*shape, seed=seed, scale=scale)) for seed in (1, 2))
    twins(monkeypatch, kl, p, q)
    twins(monkeypatch, lambda p, q: mixture(p, q, 0.3), p, q)


def test_logits_of_half_precision_are_read_in_float32() -> None:
    z, ids = normal(4, 50).astype(mx.bfloat16), mx.array([[0, 7]] * 4)
    for form in (log_softmax, lambda z: log_p_at(z, ids)):
        assert form(z).dtype == mx.float32
        assert mx.grad(lambda z, f=form: f(z).sum())(z).dtype == mx.bfloat16
