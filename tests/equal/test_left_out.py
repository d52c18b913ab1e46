"""A refresh that was due at a step which did not count is made up for, on disk and after going back too."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import nano
from tinygpt.core.backend import mx
from tinygpt.model import checkpoint
from tinygpt.runs._settings import OPTIM
from tinygpt.train.objective import next_token
from tinygpt.train.update import Gradient

KNOBS: dict[str, dict[str, Any]] = {
    "galore": {"rank": 4, "every": 5}, "lisa": {"layers": 1, "every": 5}, "sophia": {"every": 5},
}  # fmt: skip
NOTHING, NEVER = (-math.inf, -math.inf), (math.inf, math.inf)


def updater(name: str) -> Gradient:
    optimizer = OPTIM.load(name).build(OPTIM.config(name)(**KNOBS[name]))
    return Gradient(next_token.build(nano.model()), optimizer, lambda step: 3e-3, compiled=False)


def step(update: Gradient, number: int, *, counts: bool = True) -> None:
    update.limits = NEVER if counts else NOTHING
    update.step(nano.batch(4, 12, seed=number), number)


def renewed(name: str, before: dict[str, mx.array], after: dict[str, mx.array]) -> bool:
    """Whether what the refresh makes is another."""
    kind = {"galore": "projector.", "lisa": "places.", "sophia": "h."}[name]
    names = [n for n in before if n.startswith(kind)]
    assert names
    return not all(mx.array_equal(before[n], after[n]) for n in names)


@pytest.mark.parametrize("name", KNOBS)
@pytest.mark.parametrize("stopped", [False, True])
def test_the_next_step_that_counts_refreshes(name: str, stopped: bool, tmp_path: Path) -> None:
    """The first two are left out, and so is step 6, where a second refresh is due; bit for bit on disk."""
    update = updater(name)
    start = update.state()
    for number in (1, 2):
        step(update, number, counts=False)
        assert all(mx.array_equal(start[n], value) for n, value in update.state().items())
    if stopped:
        checkpoint.write_tensors(tmp_path, "optimizer", update.state())
        update = updater(name)
        update.restore(checkpoint.read_tensors(tmp_path, "optimizer"))
    hidden = "model.layers.{}.mlp.up_proj.weight"
    weights = dict(update.weights)
    step(update, 3)
    assert renewed(name, start, update.state())
    assert any(not mx.array_equal(weights[n], update.weights[n]) for n in map(hidden.format, (0, 1)))
    for number in (4, 5):
        held = update.state()
        step(update, number)
        assert not renewed(name, held, update.state()), "once is enough"
    step(update, 6, counts=False)
    held = update.state()
    step(update, 7)
    assert update.refreshed == 7
    assert name == "lisa" or renewed(name, held, update.state())
    step(update, 11)
    assert update.refreshed == 11, "the next one is due when it always was"


@pytest.mark.parametrize("name", KNOBS)
def test_going_back_behind_a_refresh_asks_for_another(name: str) -> None:
    update = updater(name)
    for number in range(1, 5):
        step(update, number)
    held = update.snapshot()
    for number in range(5, 8):
        step(update, number)
    assert update.refreshed == 6
    update.rewind(held)
    assert update.refreshed == 1
    step(update, 8)
    assert update.refreshed == 8


def test_moments_are_corrected_by_the_steps_that_they_have_seen() -> None:
    """LISA's, which begin anew at a draw, whatever is left out after it or undone."""
    update = updater("lisa")
    for number in (1, 2):
        step(update, number)
    step(update, 3, counts=False)
    held = update.snapshot()
    step(update, 4)
    update.rewind(held)
    step(update, 5)
    ages = {int(a.item()) for n, a in update.state().items() if n.startswith("age.")}
    assert ages == {3}, "steps 1, 2 and 5"
