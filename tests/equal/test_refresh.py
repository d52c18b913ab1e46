"""The updater's seam for state that is renewed now and then: called when due, and nothing else changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nano
from tinygpt.core.backend import mx
from tinygpt.model.lm import LM
from tinygpt.train.objective import response
from tinygpt.train.optim import adamw, galore
from tinygpt.train.update import Gradient, Seen


class Noting(adamw.AdamW):
    """AdamW with one more number for each weight, which a refresh sets to the step's and the weight's."""

    def __init__(self, every: int) -> None:
        super().__init__(adamw.Config())
        self.every, self.seen, self.asked = every, {}, 0

    def init(self, weights: Any) -> Any:
        return super().init(weights) | {f"noted.{n}": mx.zeros(()) for n in weights}

    def due(self, step: int) -> bool:
        self.asked = step
        return step % self.every == 0

    def refresh(self, state: Any, seen: Seen) -> Any:
        self.seen[self.asked] = {n: np.array(g) for n, g in seen.gradients.items()}
        noted = {f"noted.{n}": mx.array(self.asked + i / 128) for i, n in enumerate(seen.gradients)}
        others = {n: value for n, value in state.items() if n not in noted}
        return others | dict(reversed(noted.items()))  # in another order than before

    def apply(self, weights: Any, gradients: Any, state: Any, lr: Any, step: Any) -> Any:
        weights, new = super().apply(weights, gradients, state, lr, step)
        return weights, new | {f"noted.{n}": state[f"noted.{n}"] for n in weights}


def updater(model: LM, optimizer: Any, **how: Any) -> Gradient:
    how = {"compiled": False, **how}
    return Gradient(response.build(model), optimizer, lambda step: 3e-3, **how)


def directions() -> galore.GaLore:
    return galore.build(galore.Config(rank=8, every=3))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("parts", [1, 4])
def test_refreshed_at_the_steps_that_are_due(parts: int, compiled: bool) -> None:
    """With the gradients of the whole batch, unclipped, and before the step that then uses the new state."""
    optimizer = Noting(3)
    update = updater(nano.model(), optimizer, accumulate=parts, compiled=compiled)
    names = list(update.optimizer_state)
    for step in range(1, 8):
        facts = update.step(nano.Rows()[step], step)
        assert list(update.optimizer_state) == names, "a trace depends on the order"
        noted = {n: value.item() for n, value in update.state().items() if n.startswith("noted.")}
        last = step - step % 3
        assert list(noted.values()) == [last and last + i / 128 for i in range(len(noted))]
        if step in optimizer.seen:
            norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in optimizer.seen[step].values()))
            assert norm == pytest.approx(facts["grad_norm"], rel=1e-4) and norm > 1.1
    assert list(optimizer.seen) == [3, 6]


@pytest.mark.parametrize("compiled", [False, True])
def test_a_refreshing_step_is_otherwise_a_plain_one(compiled: bool) -> None:
    plain = updater(nano.model(), adamw.build(adamw.Config()), compiled=compiled)
    noting = updater(nano.model(), Noting(2), compiled=compiled)
    for step in range(1, 5):
        one, two = plain.step(nano.Rows()[step], step), noting.step(nano.Rows()[step], step)
        assert one.keys() == two.keys()
        for name in one:
            assert two[name] == pytest.approx(one[name], rel=1e-4), (step, name)


def test_galore_compiled_is_eager_and_accumulated_is_whole() -> None:
    ways = [{}, {"compiled": True}, {"accumulate": 4}]
    updates = [updater(nano.model(), directions(), **how) for how in ways]
    for step in range(1, 6):
        one, *others = [update.step(nano.Rows()[step], step) for update in updates]
        for other in others:
            assert other["loss"] == pytest.approx(one["loss"], rel=1e-3)


def test_galore_learns() -> None:
    optimizer = galore.build(galore.Config(rank=8, every=10, scale=1.0))
    update = updater(nano.model(), optimizer, compiled=True)
    losses = [update.step(nano.Rows()[0], step)["loss"] for step in range(1, 41)]
    assert losses[-1] < 0.8 * losses[0]
