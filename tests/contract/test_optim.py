"""What every optimizer promises."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nano
from papers import REFERENCE, TOKENS, drawn, gradients, start
from tinygpt.core.backend import compile, mx
from tinygpt.core.family import Family
from tinygpt.model import checkpoint
from tinygpt.model.lm import LM
from tinygpt.train.objective import response
from tinygpt.train.protocols import Refreshing, Seen
from tinygpt.train.update import Gradient

OPTIM = Family("tinygpt.train.optim")
# Knobs with which a technique does on these small tensors what it is for.
SMALL: dict[str, dict[str, Any]] = {
    "adam8bit": {"block": 4, "minimum": 6},
    "galore": {"rank": 1, "every": 7, "scale": 1.0},
    "lisa": {"layers": 1, "every": 7},
}


@pytest.fixture(params=OPTIM.names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def build(name: str, **knobs: Any) -> Any:
    cls = OPTIM.config(name)
    known = {f.name for f in dataclasses.fields(cls)}
    knobs = {**SMALL.get(name, {}), **knobs}
    return OPTIM.load(name).build(cls(**{k: v for k, v in knobs.items() if k in known}))


def take(
    optimizer: Any, weights: Any, gradients: Any, state: Any, lr: float, step: int, apply: Any = None
) -> tuple[Any, Any]:
    """One step as the updater takes it: what is due is refreshed first."""
    if isinstance(optimizer, Refreshing) and optimizer.due(step):
        seen = Seen(
            gradients=gradients, tokens=mx.array(float(TOKENS)), key=mx.random.key(step),
            drawn=lambda: drawn(step),
        )  # fmt: skip
        state = optimizer.refresh(state, seen)
    apply = apply or optimizer.apply
    weights, state = apply(weights, gradients, state, mx.array(lr), mx.array(step, mx.float32))
    mx.eval(weights, state)
    return weights, state


def walk(
    optimizer: Any, weights: Any, state: Any, first: int, last: int, *, compiled: bool = False
) -> tuple[Any, Any]:
    apply = compile(optimizer.apply) if compiled else optimizer.apply
    for step in range(first, last + 1):
        weights, state = take(optimizer, weights, gradients(step), state, 0.01, step, apply)
    return weights, state


@pytest.mark.wide
def test_solves_a_quadratic(name: str) -> None:
    optimizer, goal, weights = build(name, weight_decay=0.0), start(1), start(2)
    state = optimizer.init(weights)

    def distance() -> float:
        return sum(((weights[n] - goal[n]) ** 2).sum().item() for n in goal)

    before = distance()
    for step in range(1, 301):
        gradient = {n: weights[n] - goal[n] for n in goal}
        weights, state = take(optimizer, weights, gradient, state, 0.05 * (1 - step / 301), step)
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


@pytest.mark.wide
@pytest.mark.parametrize("compiled", [False, True])
def test_resumed_is_straight(name: str, compiled: bool, tmp_path: Path) -> None:
    """Where an optimizer renews something every third step: stopped before, at and after that (1, 4, 7)."""

    def make(model: LM) -> Gradient:
        return Gradient(
            response.build(model), build(name, rank=8, every=3), lambda step: 3e-3, compiled=compiled, seed=5
        )

    nano.resumes(tmp_path / "step", make, nano.model)


def test_decay_pulls_matrices_to_zero_and_leaves_vectors(name: str) -> None:
    optimizer = build(name, weight_decay=0.5)
    weights = start()
    still = {n: mx.zeros(w.shape) for n, w in weights.items()}
    after, _ = take(optimizer, weights, still, optimizer.init(weights), 0.1, 1)
    for n in weights:
        expected = weights[n] * (1 - 0.1 * 0.5) if weights[n].ndim > 1 else weights[n]
        nano.close(after[n], expected, 1e-6)


def test_moves_against_the_gradient(name: str) -> None:
    optimizer, weights = build(name, weight_decay=0.0), start()
    after, _ = take(optimizer, weights, gradients(1), optimizer.init(weights), 0.01, 1)
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
    take(optimizer, weights, gradients(1), state, 0.1, 1)
    assert all(np.array_equal(np.array(w), before[n]) for n, w in (weights | state).items())


# Knobs of one technique that must act as well, one set a run.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "adafactor": [
        {"relative_step": False, "parameter_scale": 0.0, "decay_power": 0.5, "clip": 0.5},
        {"parameter_scale": 3.0, "weight_decay": 0.3},
    ],
    "adam8bit": [{"codes": "linear"}, {"block": 3, "minimum": 11}],
    "galore": [{"rank": 2, "every": 3, "scale": 0.7}],
    "lion": [{"beta1": 0.5, "beta2": 0.6}],
    "lisa": [{"every": 1}, {"every": 3}],
    "sophia": [{"beta1": 0.5, "rho": 3.0, "every": 3}, {"every": 1}],
    "sophia_light": [{"rho": 3.0, "every": 4}],
    "sgd": [{"momentum": 0.9, "weight_decay": 0.1}],
}
BOTH: list[dict[str, Any]] = [{}, {"beta2": 0.999, "eps": 1e-3, "weight_decay": 0.3}]
RUNS = [(name, knobs) for name in OPTIM.names() for knobs in [*BOTH, *OPTIONS.get(name, [])]]
MARKED = [pytest.param(*run, marks=[pytest.mark.wide] if run[1] else []) for run in RUNS]


@pytest.mark.parametrize(("name", "knobs"), MARKED, ids=lambda x: x if isinstance(x, str) else ",".join(x))
def test_equals_its_paper_step_by_step(name: str, knobs: dict[str, Any]) -> None:
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


@pytest.mark.parity
@pytest.mark.parametrize("lr", [0.01, 0.5])
def test_adafactor_equals_pytorch_step_by_step(lr: float) -> None:
    torch = nano.require("torch")
    optimizer = build("adafactor", weight_decay=0.1)
    weights, state = start(), optimizer.init(start())
    theirs = {n: torch.nn.Parameter(torch.tensor(np.array(w))) for n, w in weights.items()}
    groups = [
        {"params": [p for p in theirs.values() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in theirs.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    peer = torch.optim.Adafactor(groups, lr=lr, eps=(1e-30, 1e-3))
    for step in range(1, 21):
        weights, state = take(optimizer, weights, gradients(step), state, lr, step)
        for n, p in theirs.items():
            p.grad = torch.tensor(np.array(gradients(step)[n]))
        peer.step()
        for n, p in theirs.items():
            nano.close(weights[n], p.detach().numpy(), 5e-6)
