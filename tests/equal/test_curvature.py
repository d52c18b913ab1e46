"""Sophia in training: its estimate is right on average, its steps are the paper's, and draws repeat."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_flatten

import nano
from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import ConfigError
from tinygpt.model.lm import LM
from tinygpt.model.seeds import key_of
from tinygpt.train.objective import response
from tinygpt.train.objective._drawn import DRAWS, drawn_targets
from tinygpt.train.optim import lisa, sophia, sophia_light
from tinygpt.train.update import Gradient, arrays

BUILD = {
    "sophia": lambda: sophia.build(sophia.Config(every=3)),
    "sophia_light": lambda: sophia_light.build(sophia_light.Config(every=3)),
    "lisa": lambda: lisa.build(lisa.Config(layers=1, every=3)),
}


class Bigram(nn.Module):
    """The smallest language model: a row of logits for each token."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.table = mx.array(np.random.default_rng(0).normal(size=(n, n)).astype(np.float32))
        self.config = SimpleNamespace(vocab_size=n)

    def __call__(self, tokens: mx.array, **_: Any) -> mx.array:
        return self.table[tokens]

    def losses(self, tokens: mx.array, targets: mx.array, **_: Any) -> mx.array:
        return nn.losses.cross_entropy(self.table[tokens], targets)


def updater(model: Any, optimizer: Any, *, prompt_weight: float = 0.0, **how: Any) -> Gradient:
    objective = response.build(model, response.Config(prompt_weight=prompt_weight))
    how = {"compiled": False, "seed": 5, **how}
    return Gradient(objective, optimizer, lambda step: 3e-3, **how)


@pytest.mark.parametrize("prompt_weight", [0.0, 0.25])
def test_the_estimate_is_on_average_the_gauss_newton_diagonal(prompt_weight: float) -> None:
    """Of a softmax: sum_t w_t p (1 - p) / sum w, over tokens that are learned; masked ones count nothing."""
    n = 4
    model = Bigram(n)
    batch = nano.batch(8, 12, real=[12, 9, 5, 12, 12, 7, 3, 12], prompt=4)
    ids = replace(batch, tokens=batch.tokens % n, targets=batch.targets % n)
    update = updater(model, sophia.build(sophia.Config()), prompt_weight=prompt_weight)
    parts = [arrays(ids)]
    w_BL = np.array(update.objective.weights(parts[0]), np.float64)
    logits = np.array(model.table, np.float64)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    share = np.array([w_BL[ids.tokens == token].sum() for token in range(n)]) / w_BL.sum()
    exact = share[:, None] * p * (1 - p)
    draws = 600
    found = np.zeros((n, n))
    for step in range(draws):
        found += w_BL.sum() * np.array(update.drawn(parts, 8, step)["table"], np.float64) ** 2 / draws
    assert np.abs(found / exact - 1).max() < 0.25 and abs(found.sum() / exact.sum() - 1) < 0.04


def test_twenty_steps_are_the_papers() -> None:
    """Algorithm 3 in numpy, with gradients of the cross-entropy at the true and at the drawn targets."""
    config = sophia.Config(every=4, rho=0.5)
    update = updater(nano.model(), sophia.build(config), clip=0.0)
    model = nano.model()
    w = {n: np.array(x, np.float64) for n, x in update.weights.items()}
    m, h = ({n: np.zeros_like(x) for n, x in w.items()} for _ in range(2))

    def gradients(part: Any, targets: mx.array) -> dict[str, np.ndarray]:
        model.load_weights([(n, mx.array(x.astype(np.float32))) for n, x in w.items()])

        def loss(model: LM) -> mx.array:
            logits = model(part["tokens"], positions=part["positions"], segments=part["segments"])
            losses = nn.losses.cross_entropy(logits, targets)
            return (losses * part["weights"]).sum() / part["weights"].sum()

        _, found = nn.value_and_grad(model, loss)(model)
        return {n: np.array(g, np.float64) for n, g in tree_flatten(found)}

    for t in range(1, 21):
        batch = nano.Rows()[t]
        update.step(batch, t)
        part = arrays(batch)
        g = gradients(part, part["targets"])
        if t % 4 == 1:
            keys = mx.random.split(key_of(5, t, "targets"), 8)
            looked_at = gradients(part, drawn_targets(model, part | {DRAWS: keys}))
            for n in w:
                h[n] = config.beta2 * h[n] + (1 - config.beta2) * batch.weights.sum() * looked_at[n] ** 2
        for n in w:
            m[n] = config.beta1 * m[n] + (1 - config.beta1) * g[n]
            w[n] = w[n] * (1 - 3e-3 * config.weight_decay * (w[n].ndim > 1))
            w[n] = w[n] - 3e-3 * np.clip(m[n] / np.maximum(config.rho * h[n], config.eps), -1, 1)
            nano.close(update.weights[n], w[n], 2e-4)


def test_targets_are_drawn_as_the_model_expects_them() -> None:
    model: Any = Bigram(3)
    part = {
        "tokens": mx.array(np.arange(3)[None].repeat(2000, 0)), "positions": mx.zeros((2000, 3)),
        "segments": mx.ones((2000, 3)), DRAWS: mx.random.split(mx.random.key(1), 2000),
    }  # fmt: skip
    found = np.array(drawn_targets(model, part))
    p = np.array(mx.softmax(model.table, axis=-1))
    for token in range(3):
        shares = np.bincount(found[:, token], minlength=3) / 2000
        assert np.abs(shares - p[token]).max() < 0.04


@pytest.mark.parametrize("parts", [2, 8])
def test_accumulated_draws_are_those_of_the_whole_batch(parts: int) -> None:
    whole, split = (updater(nano.model(), BUILD["sophia"](), accumulate=n) for n in (1, parts))
    for update in (whole, split):
        update.step(nano.Rows()[0], 1)
    for n, value in whole.state().items():
        nano.close(split.state()[n], value, 1e-4)


def test_other_seeds_and_steps_draw_other_targets() -> None:
    part = arrays(nano.Rows()[0])
    keys = [key_of(seed, step, "targets") for seed, step in ((1, 1), (1, 2), (2, 1), (1, 1))]
    one, two, three, again = (
        np.array(drawn_targets(nano.model(), part | {DRAWS: mx.random.split(key, 8)})) for key in keys
    )
    assert (one == again).all() and (one != two).any() and (one != three).any()
    assert (one[0] != one[3]).any(), "rows draw each for itself"


@pytest.mark.parametrize("name", BUILD)
def test_compiled_is_eager(name: str) -> None:
    eager, fast = (updater(nano.model(), BUILD[name](), compiled=c) for c in (False, True))
    for step in range(1, 6):
        one, two = eager.step(nano.Rows()[step], step), fast.step(nano.Rows()[step], step)
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)


@pytest.mark.parametrize("name", BUILD)
def test_learns(name: str) -> None:
    update = updater(nano.model(), BUILD[name](), compiled=True)
    losses = [update.step(nano.Rows()[0], step)["loss"] for step in range(1, 41)]
    assert losses[-1] < 0.8 * losses[0]


def test_an_objective_without_draws_is_refused() -> None:
    class Plain:
        def __init__(self, model: LM) -> None:
            inner = response.build(model)
            self.module, self.loss, self.weights = model, inner.loss, inner.weights

    update = Gradient(Plain(nano.model()), BUILD["sophia"](), lambda step: 1e-3, compiled=False)
    with pytest.raises(ConfigError, match="curvature from drawn targets, and this objective has none"):
        update.step(nano.Rows()[0], 1)
