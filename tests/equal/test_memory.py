"""The memory that is told before step 1 is the memory that steps then take."""

from __future__ import annotations

import gc
from typing import Any

import pytest

import nano
from tinygpt.core.backend import mx
from tinygpt.core.config import Pick
from tinygpt.model.lm import LM, initialize
from tinygpt.runs._settings import OBJECTIVE, OPTIM
from tinygpt.runs.bench_train import random_batch
from tinygpt.train.memory import step_bytes
from tinygpt.train.update import Gradient

SIZES = {
    "tiny": ({"hidden_size": 32}, 8, 48),
    "small": ({"hidden_size": 96, "num_hidden_layers": 3}, 6, 128),
    "12 layers": ({"hidden_size": 64, "num_hidden_layers": 12}, 4, 128),
}
WIDE = {"vocab_size": 6000, "hidden_size": 64}


def updater(shape: str, changes: dict[str, Any], length: int, optimizer: str, **how: Any) -> Gradient:
    config = nano.config(shape, **{"vocab_size": 256, **changes, "max_position_embeddings": length})
    model = initialize(LM(config), 0)
    pick = Pick(optimizer).resolve(OPTIM, "optimizer")
    return Gradient(
        OBJECTIVE.load("next_token").build(model), OPTIM.load(pick.name).build(pick.options),
        lambda step: 1e-4, **how,
    )  # fmt: skip


def ratio(update: Gradient, rows: int, length: int) -> float:
    """Estimate by what two steps then took."""
    model: Any = update.objective.module
    given = random_batch(model.config.vocab_size, rows, length, 0)
    mx.eval(update.weights, update.optimizer_state)
    gc.collect()
    mx.clear_cache()
    estimate = step_bytes(update, given)
    mx.clear_cache()
    mx.reset_peak_memory()
    for step in (1, 2):
        update.step(given, step)
    return estimate / mx.get_peak_memory()


@pytest.fixture(autouse=True)
def alone() -> None:
    gc.collect()


@pytest.mark.parametrize("size", SIZES)
def test_three_sizes(size: str, shape: str) -> None:
    changes, rows, length = SIZES[size]
    assert 0.8 < ratio(updater(shape, changes, length, "adamw"), rows, length) < 1.25


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "lion"])
@pytest.mark.parametrize(("rows", "length", "changes"), [(2, 32, WIDE), (8, 64, {"hidden_size": 64})])
def test_each_state(optimizer: str, rows: int, length: int, changes: dict[str, Any]) -> None:
    """With many weights and few tokens the update is where most is held, else the backward pass."""
    assert 0.8 < ratio(updater("llama", changes, length, optimizer), rows, length) < 1.25


def test_parts_of_a_step() -> None:
    changes, rows, length = SIZES["small"]
    whole = ratio(split := updater("llama", changes, length, "adamw", accumulate=3), rows, length)
    assert 0.8 < whole < 1.25
    assert 0.8 < ratio(updater("llama", WIDE, 32, "adamw", accumulate=2), 4, 32) < 1.25
    given = random_batch(256, rows, length, 0)

    def added(update: Gradient) -> int:
        """Bytes beside all that is held, by other tests too."""
        return step_bytes(update, given) - mx.get_active_memory()

    assert added(split) < 0.6 * added(updater("llama", changes, length, "adamw"))


def test_the_question_changes_nothing() -> None:
    asked, straight = (updater("llama", {}, 32, "adamw", compiled=False) for _ in range(2))
    given = random_batch(256, 4, 32, 0)
    step_bytes(asked, given)
    assert [asked.step(given, s) for s in (1, 2)] == [straight.step(given, s) for s in (1, 2)]
    for name, value in nano.flat(straight.objective.module).items():
        assert (nano.flat(asked.objective.module)[name] == value).all()
