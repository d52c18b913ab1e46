"""Evolution strategies: the paper's formula, exact noise, one model of memory, any reward."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import nano
from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import CheckpointError, ConfigError, TinyGPTError
from tinygpt.data.batch import Batch
from tinygpt.train import evolution
from tinygpt.train.evolution import Config, Evolution, centered_ranks
from tinygpt.train.objective import next_token, response
from tinygpt.train.optim import adamw, galore, sgd
from tinygpt.train.update import Gradient, arrays


class Point(nn.Module):
    """A place in space, and how far each coordinate counts."""

    def __init__(self, size: int, tensors: int = 1) -> None:
        super().__init__()
        for i in range(tensors):
            self[f"w{i}"] = mx.random.normal((size,), key=mx.random.key(i))


class Distance:
    """Half the squared distance from the origin: its gradient is the weights."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def weights(self, batch: dict[str, mx.array]) -> mx.array:
        return batch["weights"]

    def loss(self, batch: dict[str, mx.array]) -> tuple[mx.array, dict[str, mx.array]]:
        return sum((w @ w / 2 for w in self.module.values()), mx.array(0.0)), {}


def es(objective: Any, *, lr: float = 0.1, optimizer: Any = None, **more: Any) -> Evolution:
    knobs = {n: more.pop(n) for n in ("population", "sigma", "shaping") if n in more}
    optimizer = optimizer or sgd.build(sgd.Config())
    more = {"seed": 1, "compiled": False, **more}
    return Evolution(objective, optimizer, lambda step: lr, Config(**knobs), **more)


BATCH = nano.batch(2, 8)


def test_ranks_are_centered_and_equals_share() -> None:
    rewards = [3.0, -1.0, 7.5, 0.0, 2.0]
    order = np.argsort(np.argsort(rewards))
    assert centered_ranks(rewards) == pytest.approx(order / 4 - 0.5)
    assert centered_ranks([1.0, 5.0, 1.0, 2.0]) == pytest.approx([0.5 / 3 - 0.5, 0.5, 0.5 / 3 - 0.5, 1 / 6])
    assert centered_ranks([2.0] * 4) == [0.0] * 4, "among equals there is no direction"


@pytest.mark.parametrize("shaping", ["ranks", "none"])
@pytest.mark.parametrize("clip", [0.0, 0.25])
def test_a_step_is_the_papers_formula(shaping: str, clip: float) -> None:
    """Algorithm 1 with both signs of every eps, in float64, from the same noise."""
    update = es(Distance(Point(7)), population=6, sigma=0.3, shaping=shaping, clip=clip)
    before = np.array(update.weights["w0"], np.float64)
    facts = update.step(BATCH, 4)
    noise = [np.array(evolution.noise(update.key(4, i, "w0"), (7,)), np.float64) for i in range(3)]
    rewards = [-((before + sign * 0.3 * e) ** 2).sum() / 2 for e in noise for sign in (1, -1)]
    shaped = np.argsort(np.argsort(rewards)) / 5 - 0.5 if shaping == "ranks" else np.array(rewards)
    pairs = [(1, e) if i % 2 == 0 else (-1, e) for i, e in enumerate(np.repeat(noise, 2, axis=0))]
    g = sum(f * sign * e for f, (sign, e) in zip(shaped, pairs)) / (6 * 0.3)
    norm = np.linalg.norm(g)
    step = 0.1 * g * (min(1, clip / (norm + 1e-6)) if clip else 1)
    nano.close(update.weights["w0"], before + step, 1e-5)
    assert facts["grad_norm"] == pytest.approx(norm, rel=1e-5) and facts["lr"] == 0.1
    assert facts["loss"] == pytest.approx((before**2).sum() / 2, rel=1e-6)
    assert facts["reward"] == pytest.approx(np.mean(rewards), rel=1e-5)
    assert facts["reward_std"] == pytest.approx(np.std(rewards), rel=1e-4)


def test_solves_a_quadratic() -> None:
    update = es(Distance(Point(5)), population=8, sigma=0.05, shaping="none")
    losses = [update.step(BATCH, step)["loss"] for step in range(1, 41)]
    assert losses[-1] < 0.02 * losses[0]


@pytest.mark.wide
def test_a_larger_population_points_better() -> None:
    """With p pairs in d dimensions its cosine with the gradient is about sqrt(p / (p + d))."""
    found = []
    for population in (2, 16, 256):
        update = es(Distance(Point(30)), population=population, sigma=0.01, shaping="none", lr=1.0)
        before = np.array(update.weights["w0"], np.float64)
        update.step(BATCH, 1)
        moved = np.array(update.weights["w0"], np.float64) - before
        found.append(-moved @ before / np.linalg.norm(moved) / np.linalg.norm(before))
    assert found == sorted(found) and found[1] < 0.75 and 0.82 < found[2] < 0.96


def test_changes_are_taken_off_to_the_bit(shape: str) -> None:
    """Also when a reward fails halfway: nothing learned drifts, and the module holds the weights."""
    calls: list[float] = []

    def reward(batch: Batch, step: int) -> float:
        calls.append(float(model.model.embed_tokens.weight[0, 0].item()))
        if len(calls) == 5:
            raise TinyGPTError("halfway")
        return float(len(calls))

    model = nano.model(shape)
    update = es(response.build(model), population=2000, reward=reward)
    before = nano.flat(model)
    with pytest.raises(TinyGPTError, match="halfway"):
        update.step(BATCH, 1)
    after = nano.flat(model)
    assert len(set(calls)) == 5, "each reward saw weights of its own"
    assert all(np.array_equal(np.array(update.weights[n]), after[n]) for n in before)
    for n, w in before.items():  # on the grid, which is as fine as the largest weight's own spacing
        assert np.abs(after[n] - w).max() <= 2.0**-22 * max(1.0, np.abs(w).max())
    grid = update._to_grid(list(update.weights))
    assert all(np.array_equal(np.array(update.weights[n]), after[n]) for n in before), "it is there already"
    for pair in range(3):
        update._try(BATCH, 1, pair, grid)
    assert all(np.array_equal(np.array(update.weights[n]), after[n]) for n in before)


@pytest.mark.wide
def test_memory_is_a_model_and_a_tensor() -> None:
    size, n = 1 << 18, 16
    update = es(Distance(Point(size, n)), population=2, compiled=True)
    update.step(BATCH, 1)
    grid = update._to_grid(list(update.weights))
    held = mx.get_active_memory()

    def more(work: Any) -> float:
        mx.reset_peak_memory()
        work()
        return (mx.get_peak_memory() - held) / (4 * size)

    assert more(lambda: update._try(BATCH, 2, 0, grid)) < 1.1, "trying changes: one tensor more"
    assert more(lambda: update.step(BATCH, 2)) < 2.1, "the estimate of one tensor, and what sums it up"


@pytest.mark.wide
def test_learns_a_model_as_gradients_do() -> None:
    model = nano.model()
    update = es(next_token.build(model), population=10, sigma=0.02, lr=2e-3)
    losses = [update.step(BATCH, step)["loss"] for step in range(1, 13)]
    assert losses[-1] < losses[0] - 0.02
    peer = Gradient(next_token.build(nano.model()), sgd.build(sgd.Config()), lambda s: 0.0, compiled=False)
    assert losses[0] == pytest.approx(peer.step(BATCH, 1)["loss"], rel=1e-5)


def test_parts_and_half_precision_measure_the_same() -> None:
    batch = nano.batch(8, 12, real=[12, 3, 7, 12, 5, 1, 9, 12])
    whole = es(response.build(nano.model()), population=2, shaping="none")
    parts = es(response.build(nano.model()), population=2, shaping="none", accumulate=8)
    half = es(response.build(nano.model()), population=2, shaping="none", dtype="bfloat16")
    one, two, three = (update.step(batch, 1) for update in (whole, parts, half))
    for name in ("loss", "reward", "reward_std", "grad_norm"):
        assert two[name] == pytest.approx(one[name], rel=1e-4), name
    assert three["loss"] == pytest.approx(one["loss"], rel=0.02) and three["loss"] != one["loss"]
    assert all(w.dtype == mx.float32 for w in half.weights.values())
    with pytest.raises(ConfigError, match="8 rows cannot be split into 3"):
        es(response.build(nano.model()), accumulate=3).step(batch, 1)


@pytest.mark.wide
def test_climbs_a_staircase() -> None:
    """A reward that is flat almost everywhere has no gradient to follow, only better and worse."""
    point = Point(5)
    update = es(
        Distance(point), population=8, sigma=0.3, lr=0.05,
        reward=lambda batch, step: -float(mx.floor(4 * mx.abs(point["w0"])).sum().item()),
    )  # fmt: skip
    losses = [update.step(BATCH, step)["loss"] for step in range(1, 41)]
    assert losses[-1] < 0.3 * losses[0]


def test_a_reward_that_is_no_number_counts_as_the_worst() -> None:
    given = iter([1.0, math.nan, 2.0, math.inf])
    update = es(Distance(Point(3)), population=4, reward=lambda batch, step: next(given))
    facts = update.step(BATCH, 1)
    assert facts["reward"] == 1.5
    assert update.shares([1.0, math.nan, 2.0, -math.inf]) == update.shares([1.0, 1.0, 2.0, 1.0])
    bad = es(Distance(Point(3)), population=4, reward=lambda batch, step: math.nan)
    with pytest.raises(TinyGPTError, match="no change tried in step 1 has a finite reward"):
        bad.step(BATCH, 1)


def test_what_cannot_be_is_refused() -> None:
    for knobs, message in (
        ({"population": 5}, "--population must be even"),
        ({"population": 0}, "--population must be even"),
        ({"sigma": 0.0}, "--sigma must be positive"),
    ):
        with pytest.raises(ConfigError, match=message):
            Config(**knobs)
    with pytest.raises(ConfigError, match="reads all gradients at once"):
        es(Distance(Point(3)), optimizer=galore.build(galore.Config()))
    model = nano.model()
    model.freeze()
    with pytest.raises(ConfigError, match="nothing to learn"):
        es(response.build(model))
    with pytest.raises(CheckpointError, match="does not fit"):
        es(Distance(Point(3))).restore({"m.x": mx.ones((1,))})
    held = es(Distance(Point(3)), optimizer=adamw.build(adamw.Config()))
    with pytest.raises(CheckpointError, match="does not fit"):
        held.restore(held.state() | {"m.w0": mx.ones((1,))})


def test_layers_that_measure_are_adjusted() -> None:
    """What is moved by measures is not changed by noise, and what layers add is part of the reward."""
    from tinygpt.core.config import Pick

    model = nano.model(mlp=Pick("moe", {"experts": 4, "top_k": 2}))
    update = es(response.build(model), population=2)
    found = update._measure(BATCH)
    loss, facts = update.objective.loss(arrays(BATCH))
    assert found[evolution.TOTAL].item() == pytest.approx(loss.item(), rel=1e-4)
    assert found["loss"].item() == pytest.approx(facts["loss"].item(), rel=1e-4)
    assert update.step(BATCH, 1).keys() >= {"loss", "reward"}
