"""AdaLoRA's budget: the paper's formulas, the target rank, and runs that stop and go on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nano
from tinygpt.core.backend import mx
from tinygpt.core.config import Pick
from tinygpt.core.events import Events, MemorySink
from tinygpt.data.tokenizer import byte
from tinygpt.model import checkpoint
from tinygpt.model.lm import LM
from tinygpt.peft import _adapter, adalora
from tinygpt.peft.adalora import Budget, Config
from tinygpt.runs import debug, sft
from tinygpt.train.objective import response
from tinygpt.train.optim import adamw, sgd
from tinygpt.train.update import Gradient

KNOBS: dict[str, Any] = {"rank": 2, "init_rank": 4, "every": 2, "warmup": 0.1, "settled": 0.3}
STEPS = 12


def start() -> LM:
    model = nano.model()
    _adapter.attach(model, Pick("adalora", KNOBS), seed=1)
    return model


def update(model: LM, *, inner: Any = None, steps: int = STEPS, **how: Any) -> Gradient:
    inner = inner or adamw.build(adamw.Config())
    budget = adalora.optimizer(inner, Config(**KNOBS), steps=steps)
    return Gradient(response.build(model), budget, lambda step: 2e-2, **how)


def values(model: LM) -> np.ndarray:
    """Every lambda (matrices, r0)."""
    found = _adapter.tensors(model)
    return np.stack([np.array(v)[:, 0] for n, v in sorted(found.items()) if n.endswith("lora_E")])


def test_the_budget_is_the_papers() -> None:
    budget = Budget(None, Config(rank=2, init_rank=6, warmup=0.1, settled=0.25, every=4), 40)
    n, t_i, t_f, total = 3, 4, 10, 40
    for t in range(1, total + 1):
        share = (1 - (t - t_i) / (total - t_f - t_i)) ** 3
        expected = 18 if t < t_i else 6 if t >= total - t_f else int(6 + 12 * share)
        assert budget.budget(t, n) == expected, t
    assert [t for t in range(1, total + 1) if budget.settles(t)] == [8, 12, 16, 20, 24, 28, 30]
    later = Budget(None, budget.config, 40, before=100)
    assert later.budget(115, n) == budget.budget(15, n) and later.settles(130)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 12, 33])
def test_the_target_is_met_whatever_the_number_of_steps(steps: int) -> None:
    model = start()
    updater = update(model, steps=steps)
    for step in range(1, steps + 1):
        updater.step(nano.batch(4, 12, seed=step), step)
    left = values(model)
    assert (left != 0).sum() <= 2 * len(left)
    if steps > 3:  # from there on every value has moved off its start, which is zero too
        assert (left != 0).sum() == 2 * len(left), "n r values are left, not fewer"


def test_what_is_given_up_in_the_end_stays_zero_and_may_return_before() -> None:
    model = start()
    updater = update(model)
    seen = []
    for step in range(1, STEPS + 1):
        updater.step(nano.batch(4, 12, seed=step), step)
        seen.append(values(model) != 0)
    last = STEPS - round(0.3 * STEPS)
    assert seen[last - 1].sum() == 2 * len(seen[0])
    assert all(np.array_equal(found, seen[last - 1]) for found in seen[last:])
    assert seen[1].sum() < seen[1].size and seen[2].all(), "a choice on the way is not for good"


def test_a_step_is_the_papers_formulas() -> None:
    """Sensitivity, uncertainty, penalty and choice in float64, with plain gradient descent inside."""
    model, lr, gamma = start(), 0.5, 0.1
    updater = update(model, inner=sgd.build(sgd.Config()), clip=0.0, compiled=False)
    updater.schedule = lambda step: lr
    plain = Gradient(
        response.build(model), sgd.build(sgd.Config()), lambda step: lr, clip=0.0, compiled=False
    )
    w = {n: np.array(v, np.float64) for n, v in updater.weights.items()}
    w = {n: v + (0.3 if n.endswith("lora_E") else 0.0) for n, v in w.items()}
    updater.weights = {n: mx.array(v.astype(np.float32)) for n, v in w.items()}
    ibar = {n: np.zeros_like(v) for n, v in w.items()}
    u = {n: np.zeros_like(v) for n, v in w.items()}
    for step in (1, 2):
        batch = nano.batch(4, 12, seed=step)
        from tinygpt.train.state import arrays

        given = {n: mx.array(v.astype(np.float32)) for n, v in w.items()}
        gradients = {n: np.array(g, np.float64) for n, g in plain._gradients(given, arrays(batch))[0].items()}
        for n, value in w.items():
            if n.endswith("lora_A"):
                gradients[n] += 4 * gamma * (value @ value.T - np.eye(4)) @ value
            if n.endswith("lora_B"):
                gradients[n] += 4 * gamma * value @ (value.T @ value - np.eye(4))
            sensitivity = np.abs(value * gradients[n])
            ibar[n] = 0.85 * ibar[n] + 0.15 * sensitivity
            u[n] = 0.85 * u[n] + 0.15 * np.abs(sensitivity - ibar[n])
            w[n] = value - lr * gradients[n]
        updater.step(batch, step)
    stems = [n.removesuffix("lora_E") for n in w if n.endswith("lora_E")]
    score = {
        s: (ibar[s + "lora_E"] * u[s + "lora_E"])[:, 0]
        + (ibar[s + "lora_B"] * u[s + "lora_B"]).mean(axis=0)
        + (ibar[s + "lora_A"] * u[s + "lora_A"]).mean(axis=1)
        for s in stems
    }
    b = Budget(None, Config(**KNOBS), STEPS).budget(2, len(stems))
    assert 0 < b < 4 * len(stems)
    least = sorted(np.concatenate(list(score.values())))[-b]
    for s in stems:
        w[s + "lora_E"][score[s] < least] = 0
    for n, value in w.items():
        nano.close(updater.weights[n], value, 1e-4)
        nano.close(updater.optimizer_state[f"ibar.{n}"], ibar[n], 1e-3)
    zero = {n for n, v in updater.weights.items() if n.endswith("lora_E") and (np.array(v) == 0).any()}
    assert zero, "something was given up"


def test_eight_parts_are_one_batch_and_compiled_is_eager() -> None:
    whole, parts, eager = (start() for _ in range(3))
    updaters = [update(whole), update(parts, accumulate=8), update(eager, compiled=False)]
    for step in range(1, STEPS + 1):
        for updater in updaters:
            updater.step(nano.batch(8, 12, seed=step, real=[12, 3, 7, 12, 5, 1, 9, 12]), step)
    for other in (parts, eager):
        assert np.array_equal(values(whole) != 0, values(other) != 0)
        for n, value in _adapter.tensors(whole).items():
            nano.close(_adapter.tensors(other)[n], value, 1e-3)


def test_a_run_that_stops_goes_on_bit_for_bit(tmp_path: Path) -> None:
    base = checkpoint.save(tmp_path / "base", nano.model())
    straight = update(start())
    for step in range(1, STEPS + 1):
        straight.step(nano.batch(4, 12, seed=step), step)
    for stop in (1, 3, 7, 8, 9, 11):
        first = start()
        updater = update(first)
        for step in range(1, stop + 1):
            updater.step(nano.batch(4, 12, seed=step), step)
        path = _adapter.save_adapter(
            tmp_path / f"{stop}", first, Pick("adalora", KNOBS), base=base, state={"step": stop},
            optimizer=updater.state(),
        )  # fmt: skip
        model = nano.model()
        loaded = _adapter.load_adapter(path, model, base=base)
        again = update(model)
        again.restore(loaded.optimizer())
        for step in range(stop + 1, STEPS + 1):
            again.step(nano.batch(4, 12, seed=step), step)
        assert all(mx.array_equal(straight.weights[n], again.weights[n]) for n in straight.weights), stop
        assert all(mx.array_equal(v, again.state()[n]) for n, v in straight.state().items()), stop


def test_a_run_of_sft_meets_its_target_and_resumes(tmp_path: Path) -> None:
    """Through the settings of a run: the budget is around its optimizer, and in its checkpoints."""
    tokenizer = byte.load(None)
    base = nano.model(vocab_size=tokenizer.vocab_size)
    checkpoint.save(tmp_path / "base", base, write_tokenizer=tokenizer.save)
    rows = [{"prompt": f"say {i}", "completion": f"it is {7 * i}"} for i in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(out: str, **how: Any) -> None:
        sft.run(
            sft.Config(
                base=tmp_path / "base", data=(tmp_path / "rows.jsonl",), adapter=Pick("adalora", KNOBS),
                out=tmp_path / out, steps=STEPS, batch=4, accumulate=2, seed=3, save_every=3, keep=9,
                no_decay=("lora_E",), lr=1e-2, lock=False, **how,
            ),
            Events(MemorySink()),
        )  # fmt: skip

    run("straight")
    shutil.copytree(tmp_path / "straight", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "final")
    for step in (6, 9, 12):
        shutil.rmtree(tmp_path / "again" / "steps" / f"{step:06d}")
    run("again", resume=True)
    held, again = (
        checkpoint.read_tensors(tmp_path / name / "final", "adapter_model") for name in ("straight", "again")
    )
    assert sum(v.shape[0] for n, v in held.items() if n.endswith("lora_E")) == 2 * 4, "four matrices"
    assert held.keys() == again.keys() and all(mx.array_equal(v, again[n]) for n, v in held.items())
    assert all(row["difference"] == 0 for row in debug.load(tmp_path / "straight"))


def test_a_finished_adapter_holds_the_triplets_that_are_left(tmp_path: Path) -> None:
    base, model = checkpoint.save(tmp_path / "base", nano.model()), start()
    updater = update(model)
    for step in range(1, STEPS + 1):
        updater.step(nano.batch(4, 12, seed=step), step)
    path = _adapter.save_adapter(tmp_path / "final", model, Pick("adalora", KNOBS), base=base)
    held = checkpoint.read_tensors(path, "adapter_model")
    assert sum(v.shape[0] for n, v in held.items() if n.endswith("lora_E")) == (values(model) != 0).sum()
    fresh = nano.model()
    _adapter.load_adapter(path, fresh, base=base)
    ids = mx.array(nano.tokens(2, 12))
    assert mx.array_equal(fresh(ids), model(ids))
