"""Mixtures of experts: the sparse one equals a loop over tokens, its losses equal their papers' formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_flatten

import nano
from tinygpt.core.backend import mx, nn
from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError
from tinygpt.model import count
from tinygpt.model.frame import Frame
from tinygpt.model.lm import LM
from tinygpt.model.mlp import moe
from tinygpt.model.terms import Terms
from tinygpt.train.objective import next_token
from tinygpt.train.optim import adamw
from tinygpt.train.update import Gradient

X = np.random.default_rng(3).normal(size=(2, 7, 32)).astype(np.float32)


def layer(name: str = "moe", **knobs: Any) -> Any:
    return nano.model(mlp=Pick(name, {"experts": 6, **knobs})).layers[0].mlp


@pytest.mark.parametrize("tokens", [3, 200])
def test_a_gpus_way_through_the_experts_is_the_cpus(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One product a row, sorted by expert, and products of padded blocks: values and all gradients."""
    experts = layer().experts
    rng = np.random.default_rng(0)
    x_ND = mx.array(rng.normal(size=(tokens, 32)).astype(np.float32))
    chosen_Nk = mx.array(np.stack([rng.permutation(6)[:2] for _ in range(tokens)]))

    def loss(weights: Any, x_ND: mx.array) -> mx.array:
        experts.update(weights)
        return experts(x_ND, chosen_Nk).square().sum()

    found = []
    for on_cpu in (True, False):
        monkeypatch.setattr(moe, "on_cpu", lambda on_cpu=on_cpu: on_cpu)
        value, gradients = mx.value_and_grad(loss, argnums=(0, 1))(experts.parameters(), x_ND)
        found.append([value, *(g for _, g in tree_flatten(gradients))])
    assert len(found[0]) == 5
    for ours, theirs in zip(*found, strict=True):
        nano.close(ours, theirs, 1e-5)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def expert(mlp: Any, e: int, x: np.ndarray) -> np.ndarray:
    gate, up, down = (np.array(mlp.experts[n][e], np.float64) for n in ("gate_proj", "up_proj", "down_proj"))
    h = x @ gate.T
    return (h / (1 + np.exp(-h)) * (x @ up.T)) @ down.T


def routed(mlp: Any, x: np.ndarray, k: int, bias: np.ndarray | float = 0.0) -> tuple[np.ndarray, ...]:
    """(output, probabilities, chosen) of a loop over tokens, in float64."""
    p = softmax(x.reshape(-1, 32).astype(np.float64) @ np.array(mlp.router.weight, np.float64).T)
    chosen = np.argsort(-(p + bias), axis=-1)[:, :k]
    y = np.zeros((len(p), 32))
    for n, token in enumerate(x.reshape(-1, 32)):
        weights = p[n, chosen[n]] / (p[n, chosen[n]].sum() if k > 1 else 1)
        y[n] = sum(w * expert(mlp, e, token) for w, e in zip(weights, chosen[n]))
    return y.reshape(x.shape), p, chosen


@pytest.mark.parametrize("k", [1, 2, 6])
def test_only_the_chosen_experts_make_the_output(k: int) -> None:
    mlp = layer(top_k=k)
    nano.close(mlp(mx.array(X), Frame(length=7)), routed(mlp, X, k)[0], 1e-5)


@pytest.mark.parametrize("k", [1, 2])
def test_the_router_learns_from_the_task_alone(k: int) -> None:
    """Without the losses of its own: a gate that is always 1 would teach it nothing."""
    mlp = layer(top_k=k, balance=0.0, z=0.0)

    def loss(weight: mx.array) -> mx.array:
        mlp.router.weight = weight
        return mlp(mx.array(X), Frame(length=7, terms=Terms())).square().sum()

    assert mx.abs(mx.grad(loss)(mlp.router.weight)).max().item() > 1e-3


def test_biases_that_experts_would_not_have_are_refused() -> None:
    for name in ("moe", "moe_dense"):
        with pytest.raises(ConfigError, match=f"the experts of mlp '{name}' have no biases"):
            LM(nano.config(mlp=Pick(name), mlp_bias=True))


def test_shared_experts_see_every_token() -> None:
    mlp = layer(top_k=2, shared=2, width=8)
    x = mx.array(X)
    assert mlp.shared.up_proj.weight.shape == (16, 32) and mlp.experts.up_proj.shape == (6, 8, 32)
    nano.close(mlp(x, Frame(length=7)), routed(mlp, X, 2)[0] + np.array(mlp.shared(x, Frame(length=7))), 1e-5)


def test_the_dense_mixture_is_the_weighted_sum_of_all() -> None:
    mlp = layer("moe_dense", width=16)
    p = softmax(X.reshape(-1, 32).astype(np.float64) @ np.array(mlp.router.weight, np.float64).T)
    wanted = sum(p[:, e : e + 1] * expert(mlp, e, X.reshape(-1, 32)) for e in range(6))
    nano.close(mlp(mx.array(X), Frame(length=7)), wanted.reshape(X.shape), 1e-5)


def test_losses_are_their_formulas_and_padding_does_not_count() -> None:
    mlp = layer(top_k=2, balance=0.5, z=0.25)
    frame = Frame(length=7, segments=mx.array([[1] * 7, [1] * 4 + [0] * 3]), terms=Terms())
    mlp(mx.array(X), frame)
    _, p, chosen = routed(mlp, X, 2)
    real = np.array([True] * 11 + [False] * 3)
    load = np.array([(chosen[real] == e).mean() for e in range(6)])
    logits = X.reshape(-1, 32)[real].astype(np.float64) @ np.array(mlp.router.weight, np.float64).T
    balance = 6 * (load * p[real].mean(axis=0)).sum()
    z = (np.log(np.exp(logits).sum(axis=-1)) ** 2).mean()
    facts = frame.terms.facts()
    nano.close(facts["balance"], balance, 1e-5)
    nano.close(facts["router_z"], z, 1e-5)
    nano.close(facts["busiest_expert"], 6 * load.max(), 1e-6)
    nano.close(frame.terms.loss(), 0.5 * balance + 0.25 * z, 1e-5)


def test_an_even_router_has_the_least_balance_loss() -> None:
    mlp = layer(top_k=6)
    mlp.router.weight = mx.zeros((6, 32))
    frame = Frame(length=7, terms=Terms())
    mlp(mx.array(X), frame)
    nano.close(frame.terms.facts()["balance"], 1.0, 1e-6)


def test_gradients_are_those_of_the_dense_computation() -> None:
    """With all experts chosen, sorting and un-sorting must carry every gradient back to its token."""
    mlp = layer(top_k=6)

    def sparse(weights: Any, x: mx.array) -> mx.array:
        mlp.update(weights)
        return mlp(x, Frame(length=7)).square().sum()

    def dense(weights: Any, x: mx.array) -> mx.array:
        mlp.update(weights)
        p = mx.softmax(mlp.router(x), axis=-1)
        y = 0.0
        for e in range(6):
            h = nn.silu(x @ mlp.experts.gate_proj[e].T) * (x @ mlp.experts.up_proj[e].T)
            y = y + p[..., e : e + 1] * (h @ mlp.experts.down_proj[e].T)
        return y.square().sum()

    weights = mlp.parameters()
    one, two = (mx.grad(f, argnums=(0, 1))(weights, mx.array(X)) for f in (sparse, dense))
    for (name, a), (_, b) in zip(tree_flatten(one), tree_flatten(two), strict=True):
        nano.close(a, b, 2e-4), name


def test_the_bias_moves_towards_idle_experts_and_leaves_the_weights_alone() -> None:
    mlp = layer(top_k=2, bias_rate=0.1)
    mlp.balance_bias = mx.array([0.0, 0.0, 0.0, 9.0, 0.0, 0.0])
    y, _, chosen = routed(mlp, X, 2, np.array(mlp.balance_bias))
    assert (chosen[:, 0] == 3).all()
    nano.close(mlp(mx.array(X), Frame(length=7)), y, 1e-5)
    moved = mlp.adjusted(mx.zeros(6), mx.array([0.5, 0.5, 0.0, 0.0, 0.0, 0.0]))
    nano.close(moved, [-0.1, -0.1, 0.1, 0.1, 0.1, 0.1], 1e-6)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_training_step_adjusts_the_bias_and_tells_the_load(accumulate: int, compiled: bool) -> None:
    model = nano.model(mlp=Pick("moe", {"experts": 6, "top_k": 1, "bias_rate": 0.01}))
    before = [np.array(one.mlp.balance_bias) for one in model.layers]
    updater = Gradient(
        next_token.build(model), adamw.build(adamw.Config()), lambda step: 1e-3,
        accumulate=accumulate, compiled=compiled,
    )  # fmt: skip
    facts = updater.step(nano.batch(4, 16), 1)
    assert {"balance", "router_z", "busiest_expert"} <= facts.keys() and facts["busiest_expert"] >= 1
    assert not any(name.startswith("@") for name in facts)
    for old, one in zip(before, model.layers):
        step = np.array(one.mlp.balance_bias) - old
        assert np.isclose(np.abs(step), 0.01, atol=1e-6).sum() >= 5 and (step > 0).any() and (step < 0).any()


def test_impossible_knobs_are_refused() -> None:
    for knobs in ({"experts": 2, "top_k": 3}, {"top_k": 0}, {"balance": -1.0}, {"bias_rate": -0.1}):
        with pytest.raises(ConfigError, match="mlp.(top_k|balance|bias_rate)"):
            moe.Config(**knobs)


def test_only_what_a_token_passes_counts_as_work() -> None:
    """Of experts alone: a convolution's weights (D, K, 1) are no experts."""
    canon, plain = (nano.config(mlp=Pick("moe", {"top_k": 1}), residual=Pick(r)) for r in ("canon", "plain"))
    kernels = 2 * 2 * 32 * 4  # before both sublayers of two layers
    assert count.flops_per_token(canon, 0) - count.flops_per_token(plain, 0) == 6 * kernels
    few, all_of_them = (nano.config(mlp=Pick("moe", {"experts": 8, "top_k": k, "width": 16})) for k in (2, 8))
    assert count.parameters(few) == count.parameters(all_of_them)
    more = count.flops_per_token(all_of_them, 0) - count.flops_per_token(few, 0)
    assert more == 6 * (8 - 2) * 3 * 16 * 32 * 2, "six experts of three matrices in two layers"
