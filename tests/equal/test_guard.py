"""What a guard does to a run: bad steps change nothing, and going back is exact, on disk too."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nano
from tinygpt.core import events as ev
from tinygpt.core.backend import mx
from tinygpt.core.config import Pick, from_dict
from tinygpt.core.events import Events, MemorySink
from tinygpt.data.batch import Batch
from tinygpt.model import checkpoint
from tinygpt.runs import pretrain
from tinygpt.runs._settings import OPTIM
from tinygpt.train.guard import Guard
from tinygpt.train.loop import Plan, fit
from tinygpt.train.objective import response
from tinygpt.train.update import Gradient


def updater(name: str = "adamw", model: dict[str, Any] | None = None, **how: Any) -> Gradient:
    options = {"rank": 4, "every": 1} if name == "galore" else {}
    how = {"compiled": False, **how}
    optimizer = OPTIM.load(name).build(Pick(name, options).resolve(OPTIM, "optimizer").options)
    return Gradient(
        response.build(nano.model(**(model or {}))),
        optimizer,
        lambda step: 3e-3,
        **{"compiled": False, **how},
    )


def poisoned(batch: Batch) -> Batch:
    """The same with one weight that is no number, so that loss and gradient are none either."""
    weights = batch.weights.copy()
    weights[0, 3] = np.nan
    return replace(batch, weights=weights)


def same(one: Gradient, two: Gradient) -> bool:
    held, wanted = one.snapshot(), two.snapshot()
    module = nano.flat(one.objective.module)
    inside = all(np.array_equal(module[n], np.array(w)) for n, w in two.weights.items())
    return inside and held.keys() == wanted.keys() and all(mx.array_equal(held[n], wanted[n]) for n in wanted)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("name", OPTIM.names())
def test_a_bad_step_changes_nothing(name: str, parts: int) -> None:
    """Neither weights nor optimizer nor what layers move by measures, and the next step is as without it."""
    moe = {"mlp": Pick("moe", {"experts": 4, "bias_rate": 0.01})}
    one, two = (updater(name, moe, accumulate=parts, compiled=name == "adamw") for _ in range(2))
    rows = [nano.batch(4, 12, seed=i) for i in range(4)]
    for update in (one, two):
        update.step(rows[0], 1)
    assert not np.isfinite(one.step(poisoned(rows[1]), 2)["loss"]) and same(one, two)
    for limits in ((0.5, np.inf), (np.inf, 1e-6)):
        one.limits = limits
        assert np.isfinite(one.step(rows[1], 2)["loss"]) and same(one, two)
    one.limits = (np.inf, np.inf)
    for step in (3, 4):
        for update in (one, two):
            update.step(rows[step - 1], step)
    assert same(one, two)


def test_the_rate_is_scaled() -> None:
    one, two = updater(), updater()
    one.lr_scale, two.schedule = 0.5, lambda step: 1.5e-3
    batch = nano.batch(2, 12)
    assert one.step(batch, 1) == two.step(batch, 1) and same(one, two)


def test_damage_goes_back_and_its_batches_are_never_read_again(memory: MemorySink) -> None:
    """The rate of step 23 is far too high; the last good snapshot is the one after step 15."""
    read: list[int] = []

    class Rows:
        def __getitem__(self, index: int) -> Batch:
            read.append(index)
            return nano.batch(2, 12, seed=index)

    one, two = updater(), updater()
    one.schedule = lambda step: 30.0 if step == 23 else 3e-3
    result = fit(Rows(), one, Plan(steps=26), Events(memory), guard=Guard("on", window=10))
    (spike,), (back,) = memory.of(ev.Spike), memory.of(ev.RolledBack)
    assert (result.status, result.step, spike.step, back.step, back.to) == ("done", 26, 24, 24, 15)
    assert read == [*range(24), 12, 13, 14, 24, 25], "three are read again, to measure"
    assert [e.step for e in memory.of(ev.TrainStep)] == list(range(1, 27))
    for step in (*range(1, 16), 25, 26):
        two.step(nano.batch(2, 12, seed=step - 1), step)
    assert same(one, two)


class Killed(Exception):
    """Stands for kill -9: nothing after it is written."""


class Killer:
    """A sink that kills the run at its n-th event of a kind."""

    def __init__(self, kind: type[ev.Event], n: int) -> None:
        self.kind, self.n = kind, n

    def write(self, event: ev.Event) -> None:
        self.n -= isinstance(event, self.kind)
        if self.n < 0:
            raise Killed

    def close(self) -> None:
        """Nothing to release."""


def test_a_run_killed_around_a_rollback_ends_as_if_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine that spoils the weights after some steps."""
    take = Gradient.step

    def step(self: Gradient, batch: Batch, step: int) -> dict[str, float]:
        facts = take(self, batch, step)
        if step in (14, 27) and self.limits[0] > 0:  # not where a batch is only read again
            self.rewind({n: 9 * w if n.startswith("weights.") else w for n, w in self.snapshot().items()})
        return facts

    monkeypatch.setattr(Gradient, "step", step)
    words = np.random.default_rng(3).choice(["a bee", "sea", "cedar wood", "x"], 2000)
    (tmp_path / "t.txt").write_text(" ".join(words))

    def run(name: str, *sinks: Any) -> tuple[dict[str, Any], bytes, list[Any]]:
        out = tmp_path / name
        settings = from_dict(pretrain.Config, {
            "corpus": [str(tmp_path / "t.txt")], "out": str(out), "steps": 36, "batch": 2, "context": 16,
            "seed": 1, "compile": False, "save_every": 4, "resume": True, "held_out": 0.0,
            "auto_rollback": "on", "spike_window": 10,
            "model": {"hidden_size": 32, "num_hidden_layers": 1},
        })  # fmt: skip
        pretrain.run(settings, Events(*sinks))
        last = out / "steps" / "000036"
        state = json.loads((last / "state.json").read_text())
        tensors = b"".join((last / f"{n}.safetensors").read_bytes() for n in ("model", "optimizer"))
        told = [
            (e["kind"], e["step"], e.get("loss"), e.get("to")) for e in ev.read(out / "events.jsonl")
            if e["kind"] in ("train.step", "train.spike", "train.rollback")
        ]  # fmt: skip
        return state, tensors, told

    straight = run("straight")
    kinds = [kind for kind, *_ in straight[2]]
    assert kinds.count("train.rollback") == kinds.count("train.spike") == 2
    assert [step for kind, step, *_ in straight[2] if kind == "train.step"] == list(range(1, 37))
    killers = [
        Killer(ev.RolledBack, 0), Killer(ev.Spike, 0), Killer(ev.TrainStep, 9), Killer(ev.RolledBack, 0),
    ]  # fmt: skip
    for killer in killers:
        with pytest.raises(Killed):
            run("killed", killer)
    assert run("killed") == straight
    checkpoint.validate(tmp_path / "killed" / "final")
