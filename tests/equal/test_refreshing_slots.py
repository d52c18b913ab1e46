"""Optimizers that renew state now and then, in compiled steps of models with every slot filled otherwise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import nano
from tinygpt.core.backend import mx
from tinygpt.core.config import Pick
from tinygpt.model.config import ATTENTION, DEPTH, HEAD, MLP
from tinygpt.runs._settings import OPTIM
from tinygpt.train.objective import next_token
from tinygpt.train.objective._drawn import DRAWS, drawn_loss, drawn_targets
from tinygpt.train.protocols import Refreshing
from tinygpt.train.update import Gradient, arrays

SLOTS = [(f.kind, name) for f in (ATTENTION, MLP, DEPTH, HEAD) for name in f.names()]
SMALL: dict[str, dict[str, Any]] = {"galore": {"rank": 4}, "lisa": {"layers": 1}}
REFRESHING = [
    name for name in OPTIM.names()
    if issubclass(type(OPTIM.load(name).build(OPTIM.config(name)())), Refreshing)
]  # fmt: skip
ROUTED = {"whole": 0, "capacity": 0.5}


def updater(name: str, **how: Any) -> Gradient:
    optimizer = OPTIM.load(name).build(OPTIM.config(name)(**SMALL.get(name, {}), every=2))
    return Gradient(next_token.build(nano.model(**how)), optimizer, lambda step: 1e-3)


@pytest.mark.parametrize(
    ("kind", "slot", "name"),
    [(*s, "sophia") for s in SLOTS] + [("depth", "mod", n) for n in REFRESHING if n != "sophia"],
)  # fmt: skip
def test_a_compiled_step_refreshes(kind: str, slot: str, name: str) -> None:
    """Sophia runs the model once more, for logits to draw from, inside of the compiled step."""
    update = updater(name, **{kind: Pick(slot, ROUTED if slot == "mod" else {})})
    before = {n: np.array(w) for n, w in update.weights.items()}
    facts = update.step(nano.batch(4, 12), 1)
    assert math.isfinite(facts["loss"]) and facts["grad_norm"] > 0
    assert any(not np.array_equal(np.array(w), before[n]) for n, w in update.weights.items())
    if name == "sophia":
        assert all(mx.isfinite(h).all().item() for n, h in update.state().items() if n.startswith("h."))


def test_curvature_is_that_of_the_routing_that_is_learned() -> None:
    """Draws and their loss go by a row's largest router outputs, as the loss does, whatever is foretold."""
    model = nano.model(depth=Pick("mod", ROUTED))
    batch = arrays(nano.batch(4, 12)) | {DRAWS: mx.random.split(mx.random.key(0), 4)}
    weights = next_token.build(model).weights(batch)
    found = []
    for bias in (-100.0, 100.0):  # none is foretold to be chosen, or all are
        for layer in model.layers:
            layer.depth.predictor.down_proj.bias = mx.array([bias])
        found.append((drawn_targets(model, batch), drawn_loss(model, batch, weights)))
    assert mx.array_equal(found[0][0], found[1][0]) and found[0][1].item() == found[1][1].item()
