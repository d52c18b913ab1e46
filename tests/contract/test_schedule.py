"""What every learning-rate schedule promises."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from tinygpt.core.config import from_dict
from tinygpt.core.errors import ConfigError
from tinygpt.core.family import Family

SCHEDULE = Family("tinygpt.train.schedule", verb="at")
WARMUPS = (0.0, 0.1, 1, 7, 50)


@pytest.fixture(params=SCHEDULE.names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[n for n in SCHEDULE.names() if "final" in SCHEDULE.config(n).__dataclass_fields__])
def ending(request: pytest.FixtureRequest) -> str:
    """A schedule that ends at a chosen fraction of its peak."""
    return request.param


def curve(name: str, steps: int, **knobs: Any) -> list[float]:
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
def test_an_end_outside_zero_and_the_peak_is_refused(ending: str, final: float) -> None:
    with pytest.raises(ConfigError, match="final must be from 0 to 1"):
        curve(ending, 10, final=final)


@pytest.mark.parametrize("final", [0.0, 0.1, 1.0])
def test_the_last_step_has_the_final_rate(ending: str, final: float) -> None:
    for steps in (2, 50):
        assert curve(ending, steps, final=final)[-1] == pytest.approx(final, abs=1e-12)


def test_cosine_is_its_formula() -> None:
    factors = curve("cosine", 100, warmup=10, final=0.1)
    assert factors[9] == 1 and factors[99] == pytest.approx(0.1) and factors[4] == 0.5
    # Half-way down the factor is the mean of peak and end.
    assert factors[54] == pytest.approx(0.55)
    assert factors[32] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * 23 / 90)) / 2)


def test_constant_is_constant() -> None:
    assert curve("constant", 10, warmup=4) == [0.25, 0.5, 0.75] + [1.0] * 7


def test_linear_is_its_formula() -> None:
    factors = curve("linear", 100, warmup=10, final=0.2)
    assert factors[4] == 0.5 and factors[9] == 1
    assert factors[32] == pytest.approx(0.2 + 0.8 * (1 - 23 / 90)) and factors[54] == pytest.approx(0.6)
    assert curve("linear", 50, warmup=0, final=0) == pytest.approx([1 - t / 50 for t in range(1, 51)])


# What is left after a share p of the decay, as the papers write it.
SHAPES = {
    "1-sqrt": lambda p: 1 - math.sqrt(p),
    "linear": lambda p: 1 - p,
    "cosine": lambda p: math.cos(math.pi * p / 2) ** 2,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_wsd_is_its_formula(shape: str) -> None:
    factors = curve("wsd", 100, warmup=10, decay=20, shape=shape, final=0)
    assert factors[:10] == [t / 10 for t in range(1, 11)]
    assert factors[10:80] == [1] * 70
    assert factors[80:] == pytest.approx([SHAPES[shape](n / 20) for n in range(1, 21)], abs=1e-12)
    floored = curve("wsd", 100, warmup=10, decay=20, shape=shape, final=0.3)
    assert floored == pytest.approx([*factors[:80], *(0.3 + 0.7 * f for f in factors[80:])])


def test_the_decay_of_wsd_is_steps_or_a_fraction() -> None:
    assert curve("wsd", 200, decay=0.25) == curve("wsd", 200, decay=50) != curve("wsd", 200)
    assert SCHEDULE.config("wsd")().shape == "1-sqrt"


def test_trapezoid_is_its_formula_and_wsd_with_a_line() -> None:
    factors = curve("trapezoid", 100, warmup=10, decay=20, final=0)
    assert factors[:80] == [t / 10 for t in range(1, 11)] + [1] * 70
    assert factors[80:] == pytest.approx([(100 - t) / 20 for t in range(81, 101)], abs=1e-12)
    assert curve("trapezoid", 60) == curve("wsd", 60, shape="linear")
    with pytest.raises(ConfigError, match="decay must be positive"):
        curve("trapezoid", 10, decay=0.0)


@pytest.mark.parametrize("decay", [0.95, 1000])
@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_wsd_without_a_stable_stretch_is_the_schedule_of_its_shape(shape: str, decay: float) -> None:
    knobs = {"warmup": 0.05, "final": 0.1}
    assert curve("wsd", 60, decay=decay, shape=shape, **knobs) == pytest.approx(curve(shape, 60, **knobs))


@pytest.mark.parametrize("shape", SHAPES)
def test_before_the_decay_wsd_does_not_know_the_length_of_the_run(shape: str) -> None:
    short, long = (curve("wsd", n, warmup=5, decay=10, shape=shape) for n in (40, 400))
    assert short[:30] == long[:30] and short[30] < long[30] == 1
    assert short[30:] == long[390:], "and the decay is the same wherever it begins"


@pytest.mark.parametrize("decay", [0.0, -1.0])
def test_wsd_without_a_decay_is_refused(decay: float) -> None:
    with pytest.raises(ConfigError, match="decay must be positive") as caught:
        curve("wsd", 10, decay=decay)
    assert "constant" in str(caught.value.hint)


def test_an_unknown_shape_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'schedule\.shape' cannot be 'sqrt'. Did you mean '1-sqrt'"):
        from_dict(SCHEDULE.config("wsd"), {"shape": "sqrt"}, "schedule")
