"""Losses whose logits are made a chunk at a time equal those of all logits, gradients and all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_flatten

import nano
from tinygpt.core.backend import mx, nn
from tinygpt.core.config import Pick
from tinygpt.model import ops
from tinygpt.model.output import Output, token_losses
from tinygpt.train.objective import next_token
from tinygpt.train.optim import adamw
from tinygpt.train.update import Gradient

V, D = 50, 16
TARGETS = mx.array(nano.tokens(2, 9, vocab=V))


def states(dtype: mx.Dtype = mx.float32) -> mx.array:
    return mx.random.normal((2, 9, D), key=mx.random.key(1)).astype(dtype)


def tied() -> nn.Module:
    return nn.Embedding(V, D)


def untied() -> nn.Module:
    return nn.Linear(D, V, bias=False)


def value_and_gradients(module: nn.Module, x_BLD: mx.array, **ends: float) -> list[mx.array]:
    """Loss with a z-loss, and its gradients with respect to the hidden states and what the matrix learns."""

    def loss(learned: dict[str, Any], x_BLD: mx.array) -> mx.array:
        module.update(learned)
        nats_BL, log_z_BL = token_losses(Output(module, **ends), x_BLD, TARGETS, V)
        weights_BL = mx.arange(18).reshape(2, 9)
        return (nats_BL * weights_BL).sum() + 0.1 * log_z_BL.square().sum()

    value, gradients = mx.value_and_grad(loss, argnums=(0, 1))(module.trainable_parameters(), x_BLD)
    return [value, *(g for _, g in tree_flatten(gradients))]


@pytest.mark.parametrize("make", [tied, untied])
@pytest.mark.parametrize(("chunk", "ends"), [(1, {}), (4, {}), (17, {}), (4, {"divisor": 3.0, "cap": 1.5})])
def test_chunks_equal_the_whole(
    make: Callable[[], nn.Module], chunk: int, ends: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, weight = make(), mx.random.normal((V, D), key=mx.random.key(2))
    module.update({"weight": weight})
    whole = value_and_gradients(module, states(), **ends)
    monkeypatch.setattr(ops, "LOGITS", chunk * V)
    module.update({"weight": weight})
    for got, want in zip(value_and_gradients(module, states(), **ends), whole, strict=True):
        nano.close(got, want, 1e-5)


def test_divided_and_bounded_logits_are_their_formula() -> None:
    module = untied()
    module.update({"weight": mx.random.normal((V, D), key=mx.random.key(2))})
    plain = np.array(Output(module)(states()), np.float64)
    wanted = 1.5 * np.tanh(plain / 3.0 / 1.5)
    nano.close(Output(module, divisor=3.0, cap=1.5)(states()), wanted, 1e-6)
    assert np.abs(plain).max() > 4.5, "the bound is felt"


def test_a_frozen_or_quantized_matrix_only_hands_gradients_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for quantized in (False, True):
        module = nn.Linear(64, V, bias=False)
        module = nn.QuantizedLinear.from_linear(module) if quantized else module
        module.freeze()
        x_BLD = mx.random.normal((2, 9, 64), key=mx.random.key(1))
        monkeypatch.setattr(ops, "LOGITS", 1 << 25)
        whole = value_and_gradients(module, x_BLD)
        monkeypatch.setattr(ops, "LOGITS", 4 * V)
        for got, want in zip(value_and_gradients(module, x_BLD), whole, strict=True):
            nano.close(got, want, 1e-5)
        assert len(whole) == 2


def test_chunks_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    module = tied()
    module.update({"weight": mx.random.normal((V, D), key=mx.random.key(2)).astype(mx.bfloat16)})
    whole = value_and_gradients(module, states(mx.bfloat16))
    monkeypatch.setattr(ops, "LOGITS", 4 * V)
    for got, want in zip(value_and_gradients(module, states(mx.bfloat16)), whole, strict=True):
        assert got.dtype == want.dtype
        nano.close(got.astype(mx.float32), want.astype(mx.float32), 0.02)


@pytest.mark.parametrize("head", ["linear", "pointer", "mtp", "mtp_parallel"])
def test_training_in_chunks_is_training(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the model, with a z-loss, as a step takes it (compiled or not) on every lane of a CPU."""
    found = []
    for logits in (1 << 25, 64 * 5):
        monkeypatch.setattr(ops, "LOGITS", logits)
        lm = nano.model(head=Pick(head), initializer_range=0.1)
        update = Gradient(
            next_token.build(lm, next_token.Config(z_loss=0.01)), adamw.build(adamw.Config()),
            lambda step: 1e-3, compiled=head == "linear",
        )  # fmt: skip
        found.append((update.step(nano.batch(4, 12, real=[12, 9, 12, 3]), 1), update.state()))
    (facts, state), (chunked, other) = found
    for name, value in facts.items():
        assert chunked[name] == pytest.approx(value, rel=1e-5), name
    for name in (n for n in state if n.startswith("m.")):
        nano.close(other[name], state[name], 2e-5)


def test_no_chunk_holds_more_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither pass makes the logits of more tokens than the rule allows."""
    seen: list[int] = []

    class Watching(nn.Linear):
        def __call__(self, x: mx.array) -> mx.array:
            seen.append(int(np.prod(x.shape[:-1])) * V)
            return super().__call__(x)

    monkeypatch.setattr(ops, "LOGITS", 5 * V)
    value_and_gradients(Watching(D, V, bias=False), states())
    assert max(seen) == 5 * V and len(seen) >= 8
