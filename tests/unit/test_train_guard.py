"""The guard's judgement: what is a spike, what follows, and when it gives up."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError, TinyGPTError
from tinygpt.core.events import Events, MemorySink, RolledBack, Spike
from tinygpt.train.guard import HOPELESS, REPEATS, Guard


class Counter:
    """An updater whose one weight counts the steps that were applied."""

    def __init__(self) -> None:
        self.limits, self.lr_scale, self.weight = (math.inf, math.inf), 1.0, 0

    def take(self, loss: float, norm: float) -> dict[str, float]:
        good = math.isfinite(loss) and math.isfinite(norm)
        self.weight += good and loss <= self.limits[0] and norm <= self.limits[1]
        return {"loss": loss, "grad_norm": norm}

    def snapshot(self) -> dict[str, mx.array]:
        return {"weights.w": mx.array(self.weight)}

    def rewind(self, tensors: Mapping[str, mx.array]) -> None:
        weight: Any = tensors["weights.w"].item()
        self.weight = weight


class Run:
    """Steps with given losses through a guard."""

    def __init__(self, mode: str = "on", **how: Any) -> None:
        self.guard, self.updater, self.memory = Guard(mode, **how), Counter(), MemorySink()
        self.step, self.damage, self.asked = 0, 0.0, list[int]()
        self.losses = list[float]()

    def again(self, step: int) -> dict[str, float]:
        """An old batch: as it was, or worse by the damage."""
        assert self.updater.limits == (-math.inf, -math.inf), "nothing is to be applied"
        self.asked.append(step)
        return {"loss": self.losses[step - 1] + self.damage}

    def go(self, *losses: float, norm: float = 1.0) -> Run:
        for loss in losses:
            self.step += 1
            self.losses.append(loss)
            self.guard.before(self.updater, self.step)
            facts = self.updater.take(loss, norm)
            self.guard.after(self.updater, self.step, facts, Events(self.memory), self.again)
        return self

    def calm(self, n: int) -> Run:
        return self.go(*(2 + 0.05 * math.sin(7 * (self.step + i)) for i in range(n)))


def test_limits_are_median_and_mad_of_the_window() -> None:
    noise = np.random.default_rng(0).normal(size=(2, 20))
    losses, norms = 3 + noise[0], np.exp(noise[1])
    run = Run(window=20, factor=4)
    for i, (loss, norm) in enumerate(zip(losses, norms)):
        assert run.guard.limits == (math.inf, math.inf), f"the window is not full after {i}"
        run.go(float(loss), norm=float(norm))

    def limit(values: np.ndarray) -> float:
        middle = np.median(values)
        return float(middle + 4 * 1.4826 * np.median(np.abs(values - middle)))

    wanted = [limit(losses), math.exp(limit(np.log(norms)))]
    assert list(run.guard.limits) == pytest.approx(wanted, rel=1e-6)
    assert all(x == float(np.float32(x)) for x in run.guard.limits), "as the updater reads them"
    same = Run(window=10, factor=5).go(*[2.0] * 10)
    wanted = [2 + 5 * 0.02 * 2, math.exp(5 * 0.1)]
    assert list(same.guard.limits) == pytest.approx(wanted), "where nothing varies, the floors"


def test_a_spike_is_skipped_and_the_next_batch_goes_on() -> None:
    run = Run().calm(60).go(9.0).calm(20)
    assert run.updater.weight == 80 and run.guard.skipped == [61]
    (spike,) = run.memory.events
    assert isinstance(spike, Spike) and (spike.step, spike.loss, spike.applied) == (61, 9.0, False)
    assert 2 < spike.loss_limit < 3
    assert run.guard.limits[0] < 3, "what was skipped is not measured against"
    assert Run().calm(60).go(2.0, norm=40.0).guard.skipped == [61], "a norm counts too"


def test_damage_goes_back_to_the_last_good_state() -> None:
    """Snapshots at 25 and 50; the one at 50 is confirmed at 55. Read again are the batches before it."""
    run = Run().calm(53)
    run.damage = 0.5
    run.go(9.0)
    assert run.asked == [23, 24, 25] and run.updater.weight == 25 and run.guard.lr_scale == 1.0
    (back,) = run.memory.of(RolledBack)
    assert (back.step, back.to) == (54, 25)
    assert run.calm(10).updater.weight == 35
    run = Run().calm(56)
    run.damage = math.nan
    assert run.go(9.0).updater.weight == 50 and run.asked == [48, 49, 50], "confirmed by then"


def test_bad_batches_alone_do_not_go_back() -> None:
    run = Run().calm(60)
    run.damage = 0.02  # less than a sigma
    run.go(*[9.0] * 5).calm(20)
    assert not run.memory.of(RolledBack) and run.updater.weight == 80 and len(run.asked) == 15
    early = Run().calm(27)
    early.damage = 0.5
    assert not early.go(math.nan).memory.of(RolledBack), "no snapshot is confirmed"


def test_noise_alone_is_no_spike() -> None:
    """2,000 steps of a falling, noisy loss; scripts/spikes.py --clean does it with a model."""
    noise = np.random.default_rng(0).normal(size=(2, 2000))
    run = Run()
    for i, (loss, norm) in enumerate(noise.T):
        run.go(2 + 4 * math.exp(-i / 500) + 0.1 * float(loss), norm=math.exp(0.3 * float(norm)))
    assert not run.memory.events and run.updater.weight == 2000


def test_what_repeats_slows_and_ends_the_run() -> None:
    run, scales = Run().calm(60), list[float]()
    run.damage = 0.5
    for bad in (9.0, 9.0, math.nan):
        run.go(bad)
        scales.append(run.guard.lr_scale)
        run.guard.before(run.updater, run.step + 1)
        assert run.updater.lr_scale == scales[-1]
    assert scales == [1.0, 0.5, 0.25] and len(scales) == REPEATS
    with pytest.raises(TinyGPTError, match=r"diverged at step 64: loss 9.*did not help 3 times"):
        run.go(9.0)
    late = Run().calm(60)
    late.damage = 0.5
    late.go(9.0).calm(110).go(9.0)
    assert late.guard.lr_scale == 1.0 and len(late.memory.of(RolledBack)) == 2, "it had helped"


def test_warn_tells_and_does_nothing() -> None:
    run = Run("warn").calm(60).go(9.0, 9.0, 9.0).calm(60)
    assert run.updater.weight == 123 and not run.guard.skipped
    (spike,) = run.memory.events
    assert isinstance(spike, Spike) and spike.applied, "a row of spikes is told once"
    assert not Run("warn", detect=False).calm(60).go(9.0).memory.events


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_no_number_is_never_a_good_step(bad: float) -> None:
    for mode in ("warn", "on"):
        run = Run(mode, detect=False).calm(5).go(bad).go(2.0, norm=bad).calm(5)
        assert run.guard.skipped == [6, 7] and [e.applied for e in run.memory.of(Spike)] == [False, False]
    for mode in ("warn", "on"):
        run = Run(mode).calm(5).go(*[bad] * (HOPELESS - 1))
        with pytest.raises(TinyGPTError, match="diverged at step 15: .* the last 10 steps were not applied"):
            run.go(bad)


def test_its_state_is_all_there_is() -> None:
    """A guard that is restored goes on as the one that was saved, wherever that happens."""
    losses = [9.0 if i in (28, 57, 90, 110) else 2 + 0.05 * math.sin(7 * i) for i in range(130)]

    def start() -> Run:
        run = Run()
        run.damage = 0.5
        return run

    straight = start().go(*losses)
    assert [e.to for e in straight.memory.of(RolledBack)] == [50, 75, 100]
    assert straight.guard.lr_scale == 0.25
    for cut in (0, 3, 29, 52, 56, 58, 91, 92, 101, 111):
        run = start().go(*losses[:cut])
        saved, tensors = json.loads(json.dumps(run.guard.state())), run.guard.tensors()
        run.guard = Guard("on")
        run.guard.restore(saved, dict(sorted(tensors.items())))
        run.go(*losses[cut:])
        assert json.dumps(run.guard.state()) == json.dumps(straight.guard.state())
        assert run.updater.weight == straight.updater.weight and run.memory.events == straight.memory.events


def test_settings_that_cannot_be() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"window": 9}, "window must be at least 10"), ({"factor": 0}, "must be positive"),
    ]  # fmt: skip
    for how, message in cases:
        with pytest.raises(ConfigError, match=message):
            Guard("on", **how)
    with pytest.raises(ConfigError, match="not 'off'"):
        Guard("off")
    with pytest.raises(ConfigError, match="cannot go back"):
        Guard("on").before(object(), 1)
