"""QLoRA: learning beside a packed base is learning beside the dense matrices that it stands for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlx.utils import tree_flatten, tree_unflatten

import nano
from tinygpt.core.backend import mx
from tinygpt.core.config import Pick, from_dict
from tinygpt.core.errors import CheckpointError, ConfigError
from tinygpt.core.events import Events, MemorySink
from tinygpt.data.tokenizer import byte
from tinygpt.model import checkpoint, quantized
from tinygpt.model.lm import LM
from tinygpt.model.quantized import MODES, Packing
from tinygpt.peft import _adapter
from tinygpt.runs import _pieces, sft
from tinygpt.train.objective import next_token
from tinygpt.train.optim import adamw
from tinygpt.train.update import Gradient

SIZES: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128}
LORA = Pick("lora", {"targets": ["all-linear"], "rank": 4})
IDS = mx.array(nano.tokens(2, 20))
CLOSE = 2e-2  # of weights after some steps: Adam makes gradients of mere rounding as large as others
FORMS = [Packing(mode=mode, bits=bits) for mode, (_, all_) in MODES.items() for bits in all_]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    model = nano.model(vocab_size=320, **SIZES)
    return checkpoint.save(tmp_path / "base", model, write_tokenizer=byte.load().save)


def unpacked(base: Path, how: Packing) -> LM:
    """The base with every matrix as its packed form has it."""
    model, packed = checkpoint.load(base).model, checkpoint.load(base, packing=how).model
    found = {f"{n}.weight": quantized.dense(m) for n, m in quantized.packed(packed).items()}
    assert len(found) == 15
    model.update(tree_unflatten(list(found.items())))
    return model


def learn(model: LM, steps: int = 4, recompute: bool = False, **how: Any) -> tuple[Gradient, list[float]]:
    model.recompute = recompute
    _adapter.attach(model, LORA, seed=1)
    update = Gradient(next_token.build(model), adamw.build(adamw.Config()), lambda step: 1e-2, **how)
    return update, [update.step(nano.batch(8, 12, seed=s), s)["loss"] for s in range(1, steps + 1)]


@pytest.mark.parametrize("how", FORMS, ids=str)
def test_it_learns_what_the_dense_matrices_learn(how: Packing, base: Path) -> None:
    dense, expected = learn(unpacked(base, how), compiled=False)
    packed, losses = learn(checkpoint.load(base, packing=how).model, compiled=False)
    nano.close(losses, expected, 1e-4)
    for name, value in dense.weights.items():
        nano.close(packed.weights[name], value, CLOSE)


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_are_those_beside_the_dense_matrices(recompute: bool, base: Path) -> None:
    how, found = Packing(), []
    for model in (unpacked(base, how), checkpoint.load(base, packing=how).model):
        update, _ = learn(model, 1, recompute, compiled=False)
        update._take([({n: w + 0.05 for n, w in update.weights.items()}, update.optimizer_state)])
        given = {k: mx.array(v) for k, v in vars(nano.batch(8, 12, seed=9)).items()}
        found.append(update._gradients(update.weights, given)[0])
    assert set(found[0]) == set(found[1])
    for name, value in found[0].items():
        nano.close(found[1][name], value, 1e-3)


def test_the_base_stays_packed_and_does_not_learn(base: Path) -> None:
    model = checkpoint.load(base, packing=Packing()).model
    before = dict(tree_flatten(model.parameters()))
    update, losses = learn(model, 6)
    assert losses[-1] < losses[0]
    after = {n.replace(".base_layer.", "."): v for n, v in tree_flatten(model.parameters())}
    assert all(mx.array_equal(after[name], value) for name, value in before.items())
    assert set(update.weights) == set(_adapter.tensors(model))
    dense = sum(v.nbytes for _, v in tree_flatten(checkpoint.load(base).model.parameters()))
    assert sum(v.nbytes for v in before.values()) < 0.2 * dense


def test_parts_of_a_batch_are_the_batch(base: Path) -> None:
    one, _ = learn(checkpoint.load(base, packing=Packing()).model, 2, compiled=False)
    parts, _ = learn(checkpoint.load(base, packing=Packing()).model, 2, compiled=False, accumulate=4)
    for name, value in one.weights.items():
        nano.close(parts.weights[name], value, CLOSE)


def config(base: Path, out: Path, **more: Any) -> sft.Config:
    data = base.parent / "rows.jsonl"
    rows = [{"prompt": f"say {i}", "completion": f"{i * 7 % 10}"} for i in range(40)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {
        "base": str(base), "data": [str(data)], "out": str(out), "steps": 6, "batch": 4, "lr": 0.01,
        "seed": 3, "lock": False, "qlora": True, "context": 64, **more,
    }  # fmt: skip
    return from_dict(sft.Config, given)


def adapter(run: Path) -> dict[str, mx.array]:
    return checkpoint.read_tensors(run / "final", "adapter_model")


def test_a_run_that_was_stopped_is_the_straight_one(base: Path, tmp_path: Path) -> None:
    quiet = Events(MemorySink())
    straight = config(base, tmp_path / "straight", save_every=3)
    sft.run(straight, quiet)
    stopped = replace(straight, out=tmp_path / "stopped")
    sft.run(stopped, quiet)
    checkpoint.files.remove_directory(tmp_path / "stopped/final")
    checkpoint.files.remove_directory(tmp_path / "stopped/steps/000006")
    sft.run(replace(stopped, resume=True), quiet)
    one, two = adapter(tmp_path / "straight"), adapter(tmp_path / "stopped")
    assert set(one) == set(two) and all(mx.array_equal(one[n], two[n]) for n in one)
    with pytest.raises(ConfigError, match="qlora_bits"):
        sft.run(replace(stopped, resume=True, qlora_bits=8), quiet)


def test_a_start_that_is_kept_is_read_back_to_the_bit(base: Path, tmp_path: Path) -> None:
    """What PiSSA's file has in one array becomes arrays of its own, which a compiled step rounds alike."""
    quiet = Events(MemorySink())
    how = {"adapter": "pissa", "optimizer": "lion", "save_every": 3, "qlora": False}
    straight = config(base, tmp_path / "straight", **how)
    sft.run(straight, quiet)
    stopped = replace(straight, out=tmp_path / "stopped")
    sft.run(stopped, quiet)
    for last in ("final", "steps/000006"):
        checkpoint.files.remove_directory(tmp_path / "stopped" / last)
    sft.run(replace(stopped, resume=True), quiet)
    one, two = adapter(tmp_path / "straight"), adapter(tmp_path / "stopped")
    assert set(one) == set(two) and all(mx.array_equal(one[n], two[n]) for n in one)


def test_the_manifest_says_how_to_pack_the_base_again(base: Path, tmp_path: Path) -> None:
    quiet = Events(MemorySink())
    sft.run(config(base, tmp_path / "run", qlora_bits=3, qlora_group_size=32), quiet)
    final = tmp_path / "run" / "final"
    manifest = checkpoint.read_json(final / "tinygpt.json")
    assert manifest["packed"] == {"bits": 3, "group_size": 32, "mode": "affine"}
    model = _pieces.open_model(base, final)[0].model
    assert quantized.packing(model) == Packing(bits=3, group_size=32)
    trained = checkpoint.load(base, packing=Packing(bits=3, group_size=32)).model
    _adapter.load_adapter(final, trained, base=base)
    assert mx.array_equal(model(IDS), trained(IDS))
    # It adapts all matrices of the blocks unless told otherwise, whichever adapter it is.
    assert len(_adapter.adapters(model)) == 14
    few = config(base, tmp_path / "x", adapter={"name": "lora", "targets": ["q_proj"]})
    assert few.adapter.options.targets == ("q_proj",)
    named = config(base, tmp_path / "x", adapter="lora")
    assert named.adapter.options.targets == ("all-linear",)
    checkpoint.files.write_json(final / "tinygpt.json", manifest | {"packed": {"bits": 7}})
    with pytest.raises(CheckpointError, match="affine has 2, 3, 4, 5, 6, 8 bits a weight, not 7"):
        _pieces.open_model(base, final)


def test_rows_that_divide_into_no_groups(tmp_path: Path) -> None:
    model = nano.model(hidden_size=48, intermediate_size=80, head_dim=12)
    base = checkpoint.save(tmp_path / "odd", model)
    with pytest.raises(ConfigError, match="no matrix has rows that divide into groups of 32"):
        checkpoint.load(base, packing=Packing(group_size=32))
    assert quantized.packed(checkpoint.load(base, packing=Packing(mode="nvfp4")).model)


def test_a_base_that_is_packed_already(base: Path, tmp_path: Path) -> None:
    quiet = Events(MemorySink())
    packed = tmp_path / "packed"
    checkpoint.save(packed, checkpoint.load(base, packing=Packing()).model, write_tokenizer=byte.load().save)
    for name, more in (("as-it-lies", {"qlora": False}), ("the-same", {"qlora_bits": 4})):
        sft.run(config(packed, tmp_path / name, **more), quiet)
        model = _pieces.open_model(packed, tmp_path / name / "final")[0].model
        assert quantized.packing(model) == Packing()
    with pytest.raises(ConfigError, match="quantized already, .* in 4 bits.* and 8 bits.* is asked for"):
        sft.run(config(packed, tmp_path / "other", qlora_bits=8), quiet)
    with pytest.raises(ConfigError, match="packed weights do not learn"):
        sft.run(config(packed, tmp_path / "full", qlora=False, full=True), quiet)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"full": True}, "--qlora packs a base under an adapter"),
        ({"qlora": False, "qlora_bits": 4}, "--qlora-bits means nothing without --qlora"),
        ({"qlora": False, "qlora_mode": "mxfp4"}, "--qlora-mode means nothing without --qlora"),
        ({"qlora_mode": "mxfp4", "qlora_bits": 8}, "mxfp4 has 4 bits a weight, not 8"),
        ({"qlora_group_size": 100}, "affine has groups of 32, 64, 128 weights, not 100"),
    ],
)
def test_settings_that_say_nothing(more: dict[str, Any], sentence: str, base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=sentence):
        config(base, tmp_path / "x", **more)


def test_the_compute_dtype_is_the_bases_too(base: Path, tmp_path: Path) -> None:
    opened = config(base, tmp_path / "x", dtype="bfloat16", qlora=False).open(0)
    assert {w.dtype for _, w in tree_flatten(opened.model.parameters())} == {mx.bfloat16}
    opened = config(base, tmp_path / "x", dtype="bfloat16").open(0)
    assert opened.model(IDS).dtype == mx.bfloat16
