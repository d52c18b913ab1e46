"""What every learning-rate schedule promises."""

from __future__ import annotations

import math
import random

import pytest

from tinygpt.core.errors import ConfigError
from tinygpt.core.family import Family

SCHEDULE = Family("tinygpt.train.schedule", verb="at")
WARMUPS = (0.0, 0.1, 1, 7, 50)


@pytest.fixture(params=SCHEDULE.names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def curve(name: str, steps: int, **knobs: float) -> list[float]:
    at = SCHEDULE.load(name).at
    config = SCHEDULE.config(name)(**knobs)
    return [at(step, steps, config) for step in range(1, steps + 1)]


@pytest.mark.parametrize("warmup", WARMUPS)
@pytest.mark.parametrize("steps", [1, 2, 50, 51])
def test_bounds_and_monotone_pieces(name: str, steps: int, warmup: float) -> None:
    factors = curve(name, steps, warmup=warmup)
    assert all(0 < f <= 1 + 1e-12 and math.isfinite(f) for f in factors), (
        "every step learns, none above the peak"
    )
    length = warmup if warmup >= 1 else warmup * steps
    up = [f for i, f in enumerate(factors, 1) if i <= length]
    down = factors[len(up) :]
    assert up == sorted(up)
    assert down == sorted(down, reverse=True)
    if 1 <= length <= steps and length == int(length):
        assert factors[int(length) - 1] == pytest.approx(1), "the peak is reached"


def test_resuming_in_the_middle_changes_nothing(name: str) -> None:
    """The factor is a function of the step alone, in any order."""
    at, config = SCHEDULE.load(name).at, SCHEDULE.config(name)()
    straight = curve(name, 40)
    order = list(range(1, 41))
    random.Random(0).shuffle(order)
    assert all(at(step, 40, config) == straight[step - 1] for step in order)


def test_past_the_end_stays_in_bounds(name: str) -> None:
    at, config = SCHEDULE.load(name).at, SCHEDULE.config(name)()
    assert 0 < at(45, 40, config) <= 1 and at(45, 40, config) == pytest.approx(at(40, 40, config))


def test_a_warmup_below_zero_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"warmup must not be negative, got -0\.1"):
        curve(name, 10, warmup=-0.1)


@pytest.mark.parametrize("final", [-0.1, 1.5])
def test_cosine_ends_between_zero_and_its_peak(final: float) -> None:
    with pytest.raises(ConfigError, match="final must be from 0 to 1"):
        curve("cosine", 10, final=final)


def test_cosine_is_its_formula() -> None:
    factors = curve("cosine", 100, warmup=10, final=0.1)
    assert factors[9] == 1 and factors[99] == pytest.approx(0.1) and factors[4] == 0.5
    # Half-way down the factor is the mean of peak and end.
    assert factors[54] == pytest.approx(0.55)
    assert factors[32] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * 23 / 90)) / 2)


def test_constant_is_constant() -> None:
    assert curve("constant", 10, warmup=4) == [0.25, 0.5, 0.75] + [1.0] * 7
