"""What every objective promises."""

from __future__ import annotations

import math

import numpy as np
import pytest

import nano
from tinygpt.core.backend import mx
from tinygpt.core.family import Family
from tinygpt.data.batch import Batch
from tinygpt.model.lm import LM
from tinygpt.train.optim import adamw
from tinygpt.train.update import Gradient, arrays

OBJECTIVE = Family("tinygpt.train.objective")


@pytest.fixture(params=OBJECTIVE.names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model() -> LM:
    return nano.model(initializer_range=0.1)


@pytest.fixture
def batch() -> Batch:
    """Four rows: a prompt of 3, then an answer; the last two are padded."""
    return nano.batch(4, 10, real=[10, 10, 7, 4], prompt=3)


def loss(objective: object, batch: Batch) -> float:
    value, facts = objective.loss(arrays(batch))  # type: ignore[attr-defined]
    assert value.shape == () and all(v.shape == () for v in facts.values())
    return value.item()


def weights(objective: object, batch: Batch) -> np.ndarray:
    return np.array(objective.weights(arrays(batch)))  # type: ignore[attr-defined]


def test_finite_and_near_uniform_at_the_start(name: str, model: LM, batch: Batch) -> None:
    objective = OBJECTIVE.load(name).build(model)
    assert objective.module is model
    value = loss(objective, batch)
    assert math.isfinite(value) and abs(value - math.log(64)) < 1


def test_overfits_four_rows(name: str, batch: Batch) -> None:
    model = nano.model(initializer_range=0.1, num_hidden_layers=1)
    objective = OBJECTIVE.load(name).build(model)
    update = Gradient(
        objective, adamw.build(adamw.Config(weight_decay=0.0)), lambda step: 1e-2, compiled=False
    )
    for step in range(1, 41):
        facts = update.step(batch, step)
    assert facts["loss"] < 0.05


def test_ignores_what_is_masked(name: str, model: LM, batch: Batch) -> None:
    objective = OBJECTIVE.load(name).build(model)
    silent = weights(objective, batch) == 0
    assert silent.any()
    other = Batch(
        tokens=np.where(batch.segments == 0, 9, batch.tokens).astype(np.int32),
        targets=np.where(silent, 5, batch.targets).astype(np.int32),
        weights=batch.weights, positions=batch.positions, segments=batch.segments,
    )  # fmt: skip
    assert loss(objective, other) == pytest.approx(loss(objective, batch), rel=1e-6)


def test_a_batch_is_the_weighted_mean_of_its_rows(name: str, model: LM, batch: Batch) -> None:
    objective = OBJECTIVE.load(name).build(model)
    rows = [batch.rows(i, i + 1) for i in range(4)]
    shares = [weights(objective, row).sum() for row in rows]
    assert len(set(shares)) > 1, "the rows have unequal counts"
    mean = sum(s * loss(objective, row) for s, row in zip(shares, rows)) / sum(shares)
    assert loss(objective, batch) == pytest.approx(mean, rel=1e-5)


def test_a_batch_with_nothing_to_learn_is_zero(name: str, model: LM) -> None:
    batch = nano.batch(2, 6, real=[0, 0])
    assert loss(OBJECTIVE.load(name).build(model), batch) == 0


def log_p(model: LM, batch: Batch) -> np.ndarray:
    """log p(target) of every position, in float64."""
    parts = {n: a for n, a in arrays(batch).items() if n in ("positions", "segments")}
    logits = np.array(model(mx.array(batch.tokens), **parts), np.float64)
    top = logits.max(axis=-1, keepdims=True)
    log_z = np.log(np.exp(logits - top).sum(axis=-1)) + top[..., 0]
    return np.take_along_axis(logits, batch.targets[..., None], axis=-1)[..., 0] - log_z


def next_token_in_numpy(model: LM, batch: Batch) -> float:
    total, n = 0.0, 0
    scores = log_p(model, batch)
    for b in range(batch.tokens.shape[0]):
        for t in range(batch.tokens.shape[1]):
            last = t + 1 == batch.tokens.shape[1] or batch.segments[b, t + 1] != batch.segments[b, t]
            if batch.weights[b, t] > 0 or (batch.segments[b, t] > 0 and not last):
                total, n = total - scores[b, t], n + 1
    return total / n


def response_in_numpy(model: LM, batch: Batch) -> float:
    return -(log_p(model, batch) * batch.weights).sum() / batch.weights.sum()


# The paper's formula by technique; a new objective adds its own.
REFERENCE = {"next_token": next_token_in_numpy, "response": response_in_numpy}


def test_equals_the_formula(name: str, model: LM, batch: Batch) -> None:
    packed = Batch(
        **{**batch.__dict__, "segments": np.where(np.arange(10) < 5, batch.segments, 2 * batch.segments)}
    )
    for one in (batch, packed):
        assert loss(OBJECTIVE.load(name).build(model), one) == pytest.approx(
            REFERENCE[name](model, one), rel=1e-5
        )


def test_prompts_weigh_what_they_are_told(model: LM, batch: Batch) -> None:
    from tinygpt.core.errors import ConfigError
    from tinygpt.train.objective import response

    objective = response.build(model, response.Config(prompt_weight=0.25))
    got = weights(objective, batch)
    assert (got[0, :2] == 0.25).all() and (got[0, 3:9] == 1).all(), "a prompt's token, an answer's token"
    assert (got[batch.segments == 0] == 0).all()
    assert loss(objective, batch) == pytest.approx(-(log_p(model, batch) * got).sum() / got.sum(), rel=1e-5)
    for wrong in (-0.1, 1.5):
        with pytest.raises(ConfigError, match="from 0 to 1"):
            response.Config(prompt_weight=wrong)
