"""Training equalities: accumulated = whole, compiled = eager, resumed = straight, no update too small."""

from __future__ import annotations

import contextlib
import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_map

import nano
from tinygpt.core import backend, events
from tinygpt.core.backend import mx
from tinygpt.core.errors import CheckpointError, ConfigError, TinyGPTError
from tinygpt.core.events import Evaluated, Events, FileSink, MemorySink, RunEnded, TrainStep
from tinygpt.data.batch import Batch
from tinygpt.model.lm import LM
from tinygpt.train.loop import Plan, fit
from tinygpt.train.objective import next_token, response
from tinygpt.train.optim import adamw
from tinygpt.train.update import Gradient

UNEVEN = [12, 3, 7, 12, 5, 1, 9, 12]


class Rows:
    """Batch i is a pure function of i."""

    def __init__(self, rows: int = 2, real: list[int] | None = None) -> None:
        self.rows, self.real = rows, real

    def __getitem__(self, index: int) -> Batch:
        return nano.batch(self.rows, 12, seed=100 + index, real=self.real, prompt=0 if self.real else 2)


def updater(model: LM, *, lr: float = 3e-3, **how: Any) -> Gradient:
    how = {"compiled": False, **how}
    return Gradient(
        response.build(model), adamw.build(adamw.Config()), lambda step: lr * min(1, step / 3), **how
    )


def quiet() -> Events:
    return Events(MemorySink())


@pytest.mark.parametrize(("parts", "compiled"), [(2, False), (8, False), (8, True)])
def test_accumulated_is_whole(parts: int, compiled: bool) -> None:
    """Rows have unequal numbers of learned tokens; a mean of means would differ."""
    source = Rows(8, UNEVEN)
    # One step from the same weights: further on, Adam magnifies rounding where a gradient is near zero.
    whole = updater(nano.model(), compiled=compiled)
    split = updater(nano.model(), compiled=compiled, accumulate=parts)
    one, two = whole.step(source[0], 1), split.step(source[0], 1)
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-5)
    for n, m in whole.state().items():
        if n.startswith("m."):
            nano.close(split.state()[n], m, 2e-5)
    for step in range(2, 6):
        one, two = whole.step(source[step], step), split.step(source[step], step)
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)


@pytest.mark.parametrize("rows", [1, 2])
def test_a_product_has_the_cores_that_its_part_leaves(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four parts of one row: each has all of them, however many rows the whole batch has."""
    update, lanes, found = updater(nano.model(), accumulate=4), [0], list[int]()
    shards, part = backend.shards, update._part

    @contextlib.contextmanager
    def entered(streams: Any) -> Any:
        assert not lanes[1:], "an inner one ends with all cores, and not with those of the outer one"
        lanes.append(len(streams))
        with shards(streams):
            yield
        lanes.pop()

    def passed(*given: Any) -> Any:
        found.append(lanes[-1])
        return part(*given)

    monkeypatch.setattr(backend, "shards", entered)
    update._part = passed
    update.step(Rows(4 * rows)[0], 1)
    assert found == 4 * [len(backend.streams(rows))]


def test_accumulation_must_divide_the_batch() -> None:
    with pytest.raises(ConfigError, match="8 rows cannot be split into 3"):
        updater(nano.model(), accumulate=3).step(Rows(8)[0], 1)


def test_compiled_is_eager(shape: str) -> None:
    eager, fast = updater(nano.model(shape)), updater(nano.model(shape), compiled=True)
    for step in range(1, 6):
        one, two = eager.step(Rows()[step], step), fast.step(Rows()[step], step)
        assert one.keys() == two.keys()
        for name in one:
            assert two[name] == pytest.approx(one[name], rel=1e-4), (step, name)


@pytest.mark.parametrize("compiled", [False, True])
def test_resumed_is_straight(shape: str, compiled: bool, tmp_path: Path) -> None:
    """Weights and optimizer, bit for bit, through a checkpoint on disk, stopped at every save."""

    def make(model: LM) -> Gradient:
        return updater(model, compiled=compiled)

    nano.resumes(tmp_path / "step", make, lambda: nano.model(shape), stops=(2, 3, 9))


def test_two_runs_are_the_same() -> None:
    one, two = updater(nano.model()), updater(nano.model())
    for update in (one, two):
        fit(Rows(), update, Plan(steps=4), quiet())
    assert all(mx.array_equal(one.weights[n], two.weights[n]) for n in one.weights)


@pytest.mark.parametrize("stored", [mx.float32, mx.bfloat16])
def test_tiny_updates_are_not_lost_in_half_precision(stored: mx.Dtype) -> None:
    """A step of 1e-5 on weights of 0.25 is below bfloat16's spacing there (1e-3): only masters can move."""
    model = nano.model()
    model.update(tree_map(lambda w: w.astype(stored), model.parameters()))
    before = {n: np.array(w) for n, w in updater(model).weights.items()}
    update = updater(model, lr=1e-5, dtype="bfloat16")
    for step in range(1, 31):
        facts = update.step(Rows()[0], step)
    assert all(w.dtype == mx.float32 for w in update.weights.values())
    assert all(v.dtype == mx.float32 for v in update.state().values())
    moved = np.concatenate([np.abs(np.array(w) - before[n]).ravel() for n, w in update.weights.items()])
    assert (moved > 1e-5).mean() > 0.9 and moved.max() < 5e-4
    assert math.isfinite(facts["loss"]) and facts["grad_norm"] > 0
    assert nano.flat(model)["model.norm.weight"].dtype == np.float32, (
        "the module holds the masters between steps"
    )


def test_half_precision_learns_as_full_does() -> None:
    full, half = updater(nano.model()), updater(nano.model(), dtype="bfloat16")
    for step in range(1, 11):
        one, two = full.step(Rows()[0], step), half.step(Rows()[0], step)
        assert two["loss"] == pytest.approx(one["loss"], rel=0.05)


def test_clipping_bounds_the_step_and_reports_the_norm_before() -> None:
    loose, tight = updater(nano.model(), clip=0.0), updater(nano.model(), clip=0.01)
    one, two = loose.step(Rows()[0], 1), tight.step(Rows()[0], 1)
    assert one["grad_norm"] == pytest.approx(two["grad_norm"], rel=1e-6) and one["grad_norm"] > 0.01
    name = "m.model.embed_tokens.weight"
    nano.close(tight.state()[name], np.array(loose.state()[name]) * 0.01 / one["grad_norm"], 1e-4)


def test_nothing_to_learn_is_refused() -> None:
    model = nano.model()
    model.freeze()
    with pytest.raises(ConfigError, match="nothing to learn"):
        updater(model)


def test_a_foreign_optimizer_state_is_refused() -> None:
    update = updater(nano.model())
    with pytest.raises(CheckpointError, match="does not fit"):
        update.restore({"m.x": mx.ones((1,))})
    state = update.state()
    name = next(iter(state))
    with pytest.raises(CheckpointError, match="has shape"):
        update.restore(state | {name: mx.ones((1,))})


# the loop


def test_the_loop_tells_evaluates_and_saves_when_due(memory: MemorySink) -> None:
    saved: list[int] = []
    plan = Plan(steps=5, save_every=2, eval_every=3)
    hook = ("held-out", lambda step: {"loss": float(step)})
    result = fit(Rows(), updater(nano.model()), plan, Events(memory), save=saved.append, evals=[hook])
    assert [e.step for e in memory.of(TrainStep)] == [1, 2, 3, 4, 5]
    assert saved == [2, 4, 5] and [e.step for e in memory.of(Evaluated)] == [3, 5]
    assert (result.status, result.step, result.metrics["loss"]) == ("done", 5, 5.0)
    assert isinstance(memory.events[-1], RunEnded) and memory.events[-1].status == "done"
    told = memory.of(TrainStep)[0]
    assert told.tokens == 24 and told.tok_s > 0 and told.mem_bytes > 0 and told.lr == pytest.approx(1e-3)


def test_a_signal_saves_and_ends(memory: MemorySink) -> None:
    saved: list[int] = []

    class Interrupting(Rows):
        def __getitem__(self, index: int) -> Batch:
            if index == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__getitem__(index)

    before = signal.getsignal(signal.SIGTERM)
    result = fit(Interrupting(), updater(nano.model()), Plan(steps=9), Events(memory), save=saved.append)
    assert (result.status, result.step, saved) == ("interrupted", 3, [3])
    assert memory.events[-1].status == "interrupted" and signal.getsignal(signal.SIGTERM) is before


def test_a_time_limit_ends_and_saves() -> None:
    saved: list[int] = []
    plan = Plan(steps=10_000, max_seconds=0.05)
    result = fit(Rows(), updater(nano.model()), plan, quiet(), save=saved.append)
    assert result.status == "time" and saved == [result.step]


def test_divergence_is_one_sentence_and_saves_nothing() -> None:
    class Exploding:
        def step(self, batch: Batch, step: int) -> dict[str, float]:
            return {"loss": math.nan if step == 3 else 1.0, "lr": 0.1, "grad_norm": 1.0}

        def state(self) -> dict[str, Any]:
            return {}

    saved: list[int] = []
    with pytest.raises(TinyGPTError, match="diverged at step 3: loss nan"):
        fit(Rows(), Exploding(), Plan(steps=5, save_every=1), quiet(), save=saved.append)
    assert saved == [1, 2]


def test_a_finished_run_takes_no_more_steps(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "e.jsonl")
    saved: list[int] = []
    result = fit(Rows(), updater(nano.model()), Plan(steps=3), Events(sink), start=3, save=saved.append)
    sink.close()
    assert (result.status, result.step, saved) == ("done", 3, [])
    assert [r["kind"] for r in events.read(tmp_path / "e.jsonl")] == ["run.ended"]


def test_packed_documents_learn_as_if_alone() -> None:
    """A row of two documents and the two documents in rows of their own have the same loss and gradient."""
    a, b = nano.batch(1, 6, seed=1), nano.batch(1, 6, seed=2)

    def join(name: str, shift: int) -> np.ndarray:
        return np.concatenate([getattr(a, name), getattr(b, name) + shift], axis=1)

    packed = Batch(
        *(join(n, int(n == "segments")) for n in ("tokens", "targets", "weights", "positions", "segments"))
    )
    rows = Batch(*(np.concatenate([getattr(a, n), getattr(b, n)]) for n in a.__dict__))
    for shape in nano.SHAPES:
        for build in (next_token.build, response.build):
            optimizer = adamw.build(adamw.Config())
            one, two = (
                Gradient(build(nano.model(shape)), optimizer, lambda step: 1e-3, compiled=False).step(x, 1)
                for x in (packed, rows)
            )
            assert one["loss"] == pytest.approx(two["loss"], rel=1e-5)
            assert one["grad_norm"] == pytest.approx(two["grad_norm"], rel=1e-4)
