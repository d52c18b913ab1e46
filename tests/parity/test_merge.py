"""Merging equals peft's functions on the same changes."""

from __future__ import annotations

import numpy as np
import pytest

import nano
from tinygpt.core.backend import mx
from tinygpt.merge import dare, task_arithmetic, ties
from tinygpt.merge._change import Parts

pytestmark = pytest.mark.parity
SHAPE = (17, 9)


def changes(n: int) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.normal(size=SHAPE).astype(np.float32) for _ in range(n)]


@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("weight", [1.0, 0.6])
def test_equal_to_peft(density: float, weight: float, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = nano.require("torch")
    peft = nano.require("peft.utils.merge_utils")
    found = changes(3)
    base = mx.zeros(SHAPE)
    weights = (weight,) * 3
    parts = Parts("t", [mx.array(x) for x in found], weights, base)
    tensors, w = [torch.tensor(x) for x in found], torch.tensor(weights)
    theirs = peft.ties(tensors, w, density)
    nano.close(ties.combine(ties.Config(density=density, normalize=False), parts), theirs, 1e-6)
    nano.close(
        task_arithmetic.combine(task_arithmetic.Config(), parts), peft.task_arithmetic(tensors, w), 1e-6
    )
    for then in ("linear", "ties"):
        config = dare.Config(density=density, then=then)
        masks = iter([torch.tensor(np.array(dare._drawn(config, "t", i, SHAPE))).float() for i in range(3)])
        monkeypatch.setattr(torch, "bernoulli", lambda _, masks=masks: next(masks))
        theirs = getattr(peft, f"dare_{then}")(tensors, w, density)
        nano.close(dare.combine(config, parts), theirs, 1e-6)
