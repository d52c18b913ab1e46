"""Noise and recomputation change nothing they should not: parts, lanes, resumption and the backward pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlx.utils import tree_flatten

import nano
from tinygpt.core import backend
from tinygpt.core.backend import mx, nn
from tinygpt.core.config import Pick
from tinygpt.core.events import Events, MemorySink
from tinygpt.data.batch import Batch
from tinygpt.model import checkpoint
from tinygpt.model.block import Block
from tinygpt.model.lm import LM
from tinygpt.model.noise import Noise, row_keys
from tinygpt.peft import _adapter
from tinygpt.train.loop import Plan, fit
from tinygpt.train.objective import next_token
from tinygpt.train.optim import adamw
from tinygpt.train.update import Gradient, arrays

NOISE = Noise(dropout=0.2, layer_drop=0.2, neftune=5.0)
STACKS: dict[str, dict[str, Any]] = {
    "llama": {},
    "moe": {"mlp": Pick("moe", {"experts": 4, "bias_rate": 0.1})},
    "mod-diff": {"depth": Pick("mod", {"whole": 0}), "attention": Pick("diff")},
    "mixed": {  # the last layer's window and positions are not those of the one before
        "second_position": Pick("nope"),
        "second_layers": (0,),
        "norm": Pick("rmsnorm_plus_one"),
        "attention": Pick("gqa", {"window": 4, "full_layers": [0], "softcap": 2.0}),
        "residual": Pick("sandwich"),
        "mlp": Pick("geglu"),
        "embedding_scale": 1.5,
        "logit_cap": 3.0,
    },
    "alibi-canon": {"position": Pick("alibi"), "residual": Pick("canon")},
    "mtp": {"head": Pick("mtp", {"horizons": 3}), "mlp": Pick("moe", {"experts": 4, "bias_rate": 0.1})},
    "mtp_parallel": {"head": Pick("mtp_parallel", {"horizons": 3})},
}


class Rows:
    """Batch i is a pure function of i."""

    def __getitem__(self, index: int) -> Batch:
        return nano.batch(8, 12, seed=100 + index, real=[12, 3, 7, 12, 5, 2, 9, 12])


def noisy(recompute: bool = False, **how: Any) -> LM:
    model = nano.model(**how)
    model.noise, model.recompute = NOISE, recompute
    return model


def updater(model: LM, **how: Any) -> Gradient:
    how = {"compiled": False, "seed": 5, **how}
    return Gradient(next_token.build(model), adamw.build(adamw.Config()), lambda step: 3e-3, **how)


def gradients(model: LM) -> tuple[dict[str, mx.array], dict[str, Any]]:
    batch = arrays(Rows()[0]) | {"keys": row_keys(1, 1, 8)}
    told: dict[str, Any] = {}

    def loss(model: LM) -> mx.array:
        value, facts = next_token.build(model).loss(batch)
        told.update(facts)
        return value

    found = nn.value_and_grad(model, loss)(model)
    return dict(tree_flatten(found[1])), {"value": found[0], **told}


@pytest.mark.parametrize("stack", STACKS)
def test_recomputed_gradients_are_the_kept_ones(stack: str) -> None:
    model = noisy(**STACKS[stack])
    kept, one = gradients(model)
    model.recompute = True
    again, two = gradients(model)
    assert one.keys() == two.keys() and kept.keys() == again.keys()
    for name, value in one.items():
        nano.close(two[name], value, 1e-5)
    for name, gradient in kept.items():
        nano.close(again[name], gradient, 1e-5)
    model.noise = Noise(dropout=0.3)
    assert abs(gradients(model)[1]["value"].item() - one["value"].item()) > 1e-4, "the noise is really there"


@pytest.mark.parametrize("head", ["linear", "mtp", "mtp_parallel"])
def test_every_block_is_recomputed(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the head too: each is passed once forward, and once more in the backward pass."""
    passed: dict[str, int] = {}
    call = Block.__call__

    def counted(self: Block, *args: Any, **more: Any) -> mx.array:
        passed[self._name] = passed.get(self._name, 0) + 1
        return call(self, *args, **more)

    monkeypatch.setattr(Block, "__call__", counted)
    gradients(noisy(True, head=Pick(head)))
    blocks = 2 + {"linear": 0, "mtp": 1, "mtp_parallel": 3}[head]
    assert passed == {f"blocks.{i}": 2 for i in range(blocks)}


def test_an_adapters_gradients_come_through_recomputed_blocks() -> None:
    found = []
    for recompute in (False, True):
        model = noisy(recompute)
        _adapter.attach(model, Pick("lora").resolve(_adapter.PEFT, "adapter"), seed=0)
        found.append(gradients(model)[0])
    assert found[0].keys() == found[1].keys() and all("lora" in name for name in found[0])
    for name, gradient in found[0].items():
        nano.close(found[1][name], gradient, 1e-5)


@pytest.mark.parametrize("recompute", [False, True])
def test_noise_is_the_same_in_parts_and_lanes(recompute: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = []
    for parts, lanes, compiled in ((1, 1, False), (8, 1, False), (1, 2, False), (2, 2, False)):
        own = [mx.default_stream(mx.default_device()), *(mx.new_stream(mx.cpu) for _ in range(lanes - 1))]
        monkeypatch.setattr(backend, "streams", lambda n, own=tuple(own): own[: max(1, n)])
        update = updater(noisy(recompute), accumulate=parts, compiled=compiled)
        facts.append(update.step(Rows()[0], 1))
    for other in facts[1:]:
        for name in ("loss", "grad_norm"):
            assert other[name] == pytest.approx(facts[0][name], rel=1e-5)


@pytest.mark.parametrize("stack", ["llama", "mod-diff"])
def test_resumed_is_straight_with_noise(stack: str, tmp_path: Path) -> None:
    quiet, how = Events(MemorySink()), STACKS[stack]
    straight = updater(noisy(**how))
    fit(Rows(), straight, Plan(steps=5), quiet)
    first = updater(noisy(**how))
    fit(Rows(), first, Plan(steps=2), quiet)
    checkpoint.save(tmp_path / "m", first.objective.module, optimizer=first.state())
    model = checkpoint.load(tmp_path / "m").model
    model.noise = NOISE
    second = updater(model)
    second.restore(checkpoint.read_tensors(tmp_path / "m", "optimizer"))
    fit(Rows(), second, Plan(steps=5), quiet, start=2)
    assert all(mx.array_equal(second.weights[n], w) for n, w in straight.weights.items())
    other = updater(noisy(**how), seed=6)
    fit(Rows(), other, Plan(steps=5), quiet)
    assert not all(mx.array_equal(other.weights[n], w) for n, w in straight.weights.items())


def test_recomputed_steps_learn_what_kept_ones_learn() -> None:
    one, two = updater(noisy(), compiled=True), updater(noisy(True), compiled=True)
    for step in range(1, 4):
        a, b = one.step(Rows()[step], step), two.step(Rows()[step], step)
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)


def test_recomputed_blocks_take_less_memory() -> None:
    peaks = []
    for recompute in (False, True):
        model = noisy(recompute, num_hidden_layers=8)
        update, batch = updater(model), nano.batch(4, 96)
        update.step(batch, 1)
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        update.step(batch, 2)
        peaks.append(mx.get_peak_memory() - before)
    assert peaks[1] < 0.6 * peaks[0]
