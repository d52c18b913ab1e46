"""What every optimizer promises."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nano
from tinygpt.core.backend import compile, mx
from tinygpt.core.family import Family
from tinygpt.model import checkpoint

OPTIM = Family("tinygpt.train.optim")
SHAPES = {"matrix": (4, 3), "vector": (3,), "layers.0.weight": (2, 5), "embed_tokens.weight": (6, 2)}


@pytest.fixture(params=OPTIM.names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def build(name: str, **knobs: Any) -> Any:
    cls = OPTIM.config(name)
    known = {f.name for f in dataclasses.fields(cls)}
    return OPTIM.load(name).build(cls(**{k: v for k, v in knobs.items() if k in known}))


def start(seed: int = 0) -> dict[str, mx.array]:
    rng = np.random.default_rng(seed)
    return {name: mx.array(rng.normal(size=size).astype(np.float32)) for name, size in SHAPES.items()}


def gradients(step: int) -> dict[str, mx.array]:
    return start(1000 + step)


def walk(
    optimizer: Any, weights: Any, state: Any, first: int, last: int, *, compiled: bool = False
) -> tuple[Any, Any]:
    apply = compile(optimizer.apply) if compiled else optimizer.apply
    for step in range(first, last + 1):
        weights, state = apply(weights, gradients(step), state, mx.array(0.01), mx.array(step, mx.float32))
        mx.eval(weights, state)
    return weights, state


def test_solves_a_quadratic(name: str) -> None:
    optimizer, goal, weights = build(name, weight_decay=0.0), start(1), start(2)
    state = optimizer.init(weights)

    def distance() -> float:
        return sum(((weights[n] - goal[n]) ** 2).sum().item() for n in goal)

    before = distance()
    for step in range(1, 301):
        gradient = {n: weights[n] - goal[n] for n in goal}
        lr = 0.05 * (1 - step / 301)
        weights, state = optimizer.apply(weights, gradient, state, mx.array(lr), mx.array(step, mx.float32))
        mx.eval(weights, state)
    assert distance() < 1e-3 * before


def test_state_survives_saving(name: str, tmp_path: Path) -> None:
    """Ten steps straight are five, a save, a load, and five more, bit for bit."""
    optimizer = build(name)
    straight = walk(optimizer, start(), optimizer.init(start()), 1, 10)
    weights, state = walk(optimizer, start(), optimizer.init(start()), 1, 5)
    assert state.keys() == optimizer.init(start()).keys(), "the state has its names from the start"
    checkpoint.write_tensors(tmp_path, "optimizer", state)
    resumed = walk(build(name), weights, checkpoint.read_tensors(tmp_path, "optimizer"), 6, 10)
    for one, two in zip(straight, resumed):
        assert one.keys() == two.keys() and all(mx.array_equal(one[n], two[n]) for n in one)


def test_decay_pulls_matrices_to_zero_and_leaves_vectors(name: str) -> None:
    optimizer = build(name, weight_decay=0.5)
    weights = start()
    still = {n: mx.zeros(w.shape) for n, w in weights.items()}
    after, _ = optimizer.apply(weights, still, optimizer.init(weights), mx.array(0.1), mx.array(1.0))
    for n in weights:
        expected = weights[n] * (1 - 0.1 * 0.5) if weights[n].ndim > 1 else weights[n]
        nano.close(after[n], expected, 1e-6)


def test_moves_against_the_gradient(name: str) -> None:
    optimizer, weights = build(name, weight_decay=0.0), start()
    after, _ = optimizer.apply(weights, gradients(1), optimizer.init(weights), mx.array(0.01), mx.array(1.0))
    along = sum(((after[n] - weights[n]) * gradients(1)[n]).sum().item() for n in weights)
    assert along < 0


def test_compiled_is_eager(name: str) -> None:
    optimizer = build(name)
    eager = walk(optimizer, start(), optimizer.init(start()), 1, 6)
    fast = walk(optimizer, start(), optimizer.init(start()), 1, 6, compiled=True)
    for one, two in zip(eager, fast):
        for n in one:
            nano.close(two[n], one[n], 1e-5)


def test_inputs_are_left_alone(name: str) -> None:
    optimizer, weights = build(name), start()
    state = optimizer.init(weights)
    before = {n: np.array(w) for n, w in (weights | state).items()}
    optimizer.apply(weights, gradients(1), state, mx.array(0.1), mx.array(1.0))
    assert all(np.array_equal(np.array(w), before[n]) for n, w in (weights | state).items())


def adamw_in_numpy(weights: Any, steps: int, c: Any, lr: float) -> Any:
    """Algorithm 2 of Loshchilov and Hutter, in float64, with decay times the learning rate."""
    w = {n: np.array(v, np.float64) for n, v in weights.items()}
    m, v = ({n: np.zeros_like(x) for n, x in w.items()} for _ in range(2))
    for t in range(1, steps + 1):
        for n, g in ((n, np.array(g, np.float64)) for n, g in gradients(t).items()):
            m[n] = c.beta1 * m[n] + (1 - c.beta1) * g
            v[n] = c.beta2 * v[n] + (1 - c.beta2) * g**2
            step = (m[n] / (1 - c.beta1**t)) / (np.sqrt(v[n] / (1 - c.beta2**t)) + c.eps)
            w[n] -= lr * (step + (c.weight_decay * w[n] if w[n].ndim > 1 else 0))
    return w


def muon_in_numpy(weights: Any, steps: int, c: Any, lr: float) -> Any:
    """Jordan's algorithm with the scale of Liu et al., one matrix at a time; tables and vectors by AdamW."""
    result = adamw_in_numpy(weights, steps, c, lr)
    for n in (n for n in weights if weights[n].ndim > 1 and "embed" not in n):
        w, momentum = np.array(weights[n], np.float64), 0
        for t in range(1, steps + 1):
            g = np.array(gradients(t)[n], np.float64)
            momentum = c.momentum * momentum + g
            x = g + c.momentum * momentum
            x = x / np.linalg.norm(x)
            for _ in range(5):
                s = x @ x.T
                x = 3.4445 * x - 4.7750 * s @ x + 2.0315 * s @ s @ x
            w = w - lr * (0.2 * np.sqrt(max(w.shape)) * x + c.weight_decay * w)
        result[n] = w
    return result


# The paper's algorithm by technique; a new optimizer adds its own.
REFERENCE = {"adamw": adamw_in_numpy, "muon": muon_in_numpy}


@pytest.mark.parametrize("knobs", [{}, {"beta2": 0.999, "eps": 1e-3, "weight_decay": 0.3}])
def test_equals_its_paper_step_by_step(name: str, knobs: dict[str, float]) -> None:
    optimizer = build(name, **knobs)
    weights, state = start(), optimizer.init(start())
    for step in range(1, 21):
        weights, state = walk(optimizer, weights, state, step, step)
        expected = REFERENCE[name](start(), step, optimizer.config, 0.01)
        for n in weights:
            nano.close(weights[n], expected[n], 2e-6)


@pytest.mark.parity
def test_adamw_equals_pytorch_step_by_step() -> None:
    torch = nano.require("torch")
    optimizer = build("adamw", beta2=0.95, weight_decay=0.1)
    weights, state = start(), optimizer.init(start())
    theirs = {n: torch.nn.Parameter(torch.tensor(np.array(w))) for n, w in weights.items()}
    groups = [
        {"params": [p for p in theirs.values() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in theirs.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    peer = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95), eps=1e-8)
    for step in range(1, 21):
        weights, state = walk(optimizer, weights, state, step, step)
        for n, p in theirs.items():
            p.grad = torch.tensor(np.array(gradients(step)[n]))
        peer.step()
        for n, p in theirs.items():
            nano.close(weights[n], p.detach().numpy(), 2e-6)
