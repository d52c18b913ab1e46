"""Adapters baked into a base by the real command line: dense, packed, or refused where it would be lost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

import nano
from e2e.shell import good, refused, tinygpt
from tinygpt.core.backend import mx
from tinygpt.core.config import Pick
from tinygpt.data.tokenizer import byte
from tinygpt.model import checkpoint, quantized
from tinygpt.model.quantized import Packing
from tinygpt.peft import _adapter, _layers

SIZES = {"vocab_size": 300, "hidden_size": 64}
IDS = mx.array(nano.tokens(2, 24, vocab=300))


def adapted(folder: Path, base: Path, effect: float, **options: object) -> Path:
    """A LoRA whose change of each matrix is `effect` of it."""
    model = checkpoint.load(base).model
    pick = Pick("lora", {"targets": ("all-linear",), "rank": 4, **options}).resolve(_adapter.PEFT, "peft")
    _adapter.attach(model, pick, seed=1)
    for i, module in enumerate(_layers.adapters(model).values()):
        b = module.lora_B
        b.weight = mx.random.normal(b.weight.shape, key=mx.random.key(i))
        dense = _layers.dense(_layers.innermost(module))
        b.weight = b.weight * (effect * mx.linalg.norm(dense) / mx.linalg.norm(module.delta()))
    return _adapter.save_adapter(folder, model, pick, base=base)


def moved(folder: Path, name: str, base: Path) -> Path:
    """An adapter of any technique, everything that learns a little away from its start."""
    model = checkpoint.load(base).model
    pick = Pick(name).resolve(_adapter.PEFT, "peft")
    _adapter.attach(model, pick, seed=1)
    for i, (at, value) in enumerate(tree_flatten(model.trainable_parameters())):
        noise = mx.random.normal(value.shape, key=mx.random.key(i))
        model.update(tree_unflatten([(at, value + 0.1 * noise)]))
    return _adapter.save_adapter(folder, model, pick, base=base)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    model = nano.model(**SIZES)
    return checkpoint.save(tmp_path / "base", model, write_tokenizer=byte.load(None).save, ids={"eos": 0})


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """The same in 4 bits, groups of 64."""
    model = nano.model(**SIZES)
    how, _ = quantized.choose(model, Packing(bits=4))
    dense = {n: dict(model.named_modules())[n].weight for n in how}
    quantized.place(model, how, mx.float32)
    modules = dict(model.named_modules())
    for name, one in how.items():
        modules[name].update(dict(zip(quantized.PARTS, one.pack(dense[name]))))
    return checkpoint.save(tmp_path / "packed", model, write_tokenizer=byte.load(None).save)


def logits(base: Path, adapter: Path | None = None) -> np.ndarray:
    model = checkpoint.load(base).model
    if adapter is not None:
        _adapter.load_adapter(adapter, model)
    return np.array(model(IDS), np.float64)


@pytest.mark.parametrize("name", _adapter.PEFT.names())
@pytest.mark.parametrize("shape", ["llama", "gpt2"])
def test_baked_is_adapted(name: str, shape: str, tmp_path: Path) -> None:
    base = checkpoint.save(tmp_path / "base", nano.model(shape, **SIZES))
    adapter = moved(tmp_path / "a", name, base)
    made = good("bake-lora", base, adapter, "--out", tmp_path / "out", "--json").json
    assert made["error"] < 1e-5 and made["logits_error"] < 1e-3 and made["matrices"] > 1
    nano.close(logits(tmp_path / "out"), logits(base, adapter), 1e-4)
    good("validate", tmp_path / "out")


@pytest.mark.parametrize("name", ["lora", "loftq"])
def test_of_qlora_the_base_is_baked_that_it_learned_beside(name: str, base: Path, tmp_path: Path) -> None:
    how = Packing(bits=4, group_size=32)
    model = checkpoint.load(base, packing=how).model
    pick = Pick(name, {"bits": 2} if name == "loftq" else {}).resolve(_adapter.PEFT, "peft")
    _adapter.attach(model, pick, seed=1)
    for i, (at, value) in enumerate(tree_flatten(model.trainable_parameters())):
        noise = mx.random.normal(value.shape, key=mx.random.key(i))
        model.update(tree_unflatten([(at, value + 0.1 * noise)]))
    adapter = _adapter.save_adapter(tmp_path / "a", model, pick, base=base, packed=how.table())
    made = good("bake-lora", base, adapter, "--out", tmp_path / "out")
    assert "packed in 4 bits" in made.err
    baked = checkpoint.load(tmp_path / "out").model
    assert not quantized.packed(baked)
    nano.close(baked(IDS), model(IDS), 1e-4)
    # In another program's format it no longer says so, and lies on the base as it is.
    good("adapter-convert", adapter, "--out", tmp_path / "again")
    assert checkpoint.read_json(tmp_path / "again/tinygpt.json")["packed"] == how.table()
    if name == "loftq":
        done = tinygpt("adapter-convert", adapter, "--format", "mlx", "--out", tmp_path / "x")
        assert done.code == 2 and "base's matrices too" in done.err
        return
    assert (
        "packed in 4 bits" in good("adapter-convert", adapter, "--format", "mlx", "--out", tmp_path / "m").err
    )
    good("bake-lora", base, tmp_path / "m", "--out", tmp_path / "dense")
    fused = checkpoint.load(base).model
    _adapter.load_adapter(adapter, fused)
    nano.close(logits(tmp_path / "dense"), fused(IDS), 1e-4)


def test_an_output_matrix_of_its_own_is_baked(tmp_path: Path) -> None:
    base = checkpoint.save(tmp_path / "base", nano.model(tie_word_embeddings=False, **SIZES))
    model = checkpoint.load(base).model
    pick = Pick("dora", {"targets": ("lm_head", "embed_tokens")}).resolve(_adapter.PEFT, "peft")
    _adapter.attach(model, pick, seed=1)
    for i, (at, value) in enumerate(tree_flatten(model.trainable_parameters())):
        noise = mx.random.normal(value.shape, key=mx.random.key(i))
        model.update(tree_unflatten([(at, value + 0.1 * noise)]))
    adapter = _adapter.save_adapter(tmp_path / "a", model, pick, base=base)
    good("bake-lora", base, adapter, "--out", tmp_path / "out")
    nano.close(logits(tmp_path / "out"), model(IDS), 1e-4)
    assert set(_adapter.fuse(model)) == {"lm_head", "model.embed_tokens"}


def test_its_dtype_config_tokenizer_and_untouched_tensors(base: Path, tmp_path: Path) -> None:
    adapter = adapted(tmp_path / "a", base, 0.01, targets=("q_proj",))
    (base / "chat_template.jinja").write_text("{{ messages }}")
    (base / "tinygpt.json").unlink()  # as another tool's
    done = good("bake-lora", base, adapter, "--out", tmp_path / "out")
    assert "lora baked into 2 matrices" in done.out
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (base / name).read_bytes()
    assert json.loads((tmp_path / "out/config.json").read_text()) == json.loads(
        (base / "config.json").read_text()
    )
    old, new = (checkpoint.read_tensors(p, "model") for p in (base, tmp_path / "out"))
    assert set(old) == set(new)
    changed = {n for n in old if not mx.array_equal(old[n], new[n])}
    assert changed == {f"model.layers.{i}.self_attn.q_proj.weight" for i in range(2)}
    done = good("bake-lora", base, adapter, "--out", tmp_path / "half", "--dtype", "bf16")
    assert "rounding to bfloat16 takes" in done.err and "--dtype f32" in done.err
    half = checkpoint.read_tensors(tmp_path / "half", "model")
    assert {t.dtype for t in half.values()} == {mx.bfloat16}
    assert json.loads((tmp_path / "half/config.json").read_text())["dtype"] == "bfloat16"
    again = good(
        "bake-lora", tmp_path / "half", adapter, "--out", tmp_path / "kept", "--force", "--json"
    ).json
    assert {t["form"] for t in again["layers"]} == {"bfloat16"}


def test_a_packed_base_does_not_lose_the_adapter_in_silence(packed: Path, tmp_path: Path) -> None:
    adapter = adapted(tmp_path / "a", packed, 0.011)
    done = tinygpt("bake-lora", packed, adapter, "--out", tmp_path / "out")
    refused(
        done,
        r"packed again \(4 bits, affine, groups of 64\), the 14 adapted matrices miss \d+%",
        hint="--dequantize",
    )
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))
    # What it guards against, as mlx_lm's fuse does: of the adapter's effect more than all is lost.
    naive = good("bake-lora", packed, adapter, "--out", tmp_path / "naive", "--max-error", 9, "--json").json
    assert naive["error"] > 0.9
    want, plain = logits(packed, adapter), logits(packed)
    effect = np.linalg.norm(want - plain)
    assert np.linalg.norm(logits(tmp_path / "naive") - want) > 0.8 * effect
    left = good("bake-lora", packed, adapter, "--out", tmp_path / "dense", "--dequantize", "--json").json
    assert left["error"] < 1e-4 and {t["form"] for t in left["layers"]} == {"float32"}
    assert np.linalg.norm(logits(tmp_path / "dense") - want) < 1e-3 * effect
    model = checkpoint.load(tmp_path / "dense").model
    assert list(quantized.packed(model)) == ["model.embed_tokens"]  # what is not adapted stays packed
    finer = good(
        "bake-lora", packed, adapter, "--out", tmp_path / "eight", "--bits", 8, "--max-error", 1, "--json"
    )
    assert left["error"] < finer.json["error"] < 0.6 * naive["error"]
    kept = quantized.packed(checkpoint.load(tmp_path / "eight").model)
    assert {m.bits for n, m in kept.items() if "layers" in n} == {8} and kept["model.embed_tokens"].bits == 4
    assert np.linalg.norm(logits(tmp_path / "eight") - want) < 0.7 * effect
    assert "--bits 8 packs them finer" in done.err
    again = tinygpt("bake-lora", packed, adapter, "--out", tmp_path / "x", "--bits", 8, "--max-error", 1e-3)
    refused(again, "packed again", hint="--dequantize")
    assert "--bits" not in again.err


def test_a_large_change_survives_being_packed(packed: Path, tmp_path: Path) -> None:
    adapter = adapted(tmp_path / "a", packed, 2.0)
    made = good("bake-lora", packed, adapter, "--out", tmp_path / "out", "--max-error", 0.2, "--json").json
    assert made["error"] < 0.2
    assert set(quantized.packed(checkpoint.load(tmp_path / "out").model)) == set(
        quantized.packed(checkpoint.load(packed).model)
    )
    good("inspect", tmp_path / "out")


def test_an_adapter_that_learned_nothing_leaves_every_bit(packed: Path, tmp_path: Path) -> None:
    model = checkpoint.load(packed).model
    pick = Pick("lora").resolve(_adapter.PEFT, "peft")
    _adapter.attach(model, pick, seed=1)
    adapter = _adapter.save_adapter(tmp_path / "a", model, pick, base=packed)
    good("bake-lora", packed, adapter, "--out", tmp_path / "out")
    old, new = (checkpoint.read_tensors(p, "model") for p in (packed, tmp_path / "out"))
    assert set(old) == set(new) and all(mx.array_equal(old[n], new[n]) for n in old)


def test_what_makes_no_sense_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = adapted(tmp_path / "a", base, 0.01)
    out = tmp_path / "out"

    def bake(*more: object, base: Path = base, adapter: Path = adapter) -> object:
        return tinygpt("bake-lora", base, adapter, "--out", out, *more)

    refused(bake("--dequantize"), "--dequantize is about a quantized base, and .*base is dense")
    refused(bake("--bits", 8), "--bits is about a quantized base")
    refused(bake("--bits", 8, "--dequantize"), "--bits packs what --dequantize leaves dense")
    refused(bake("--dtype", "f64"), "'dtype' cannot be 'f64'", hint="bf16")
    refused(bake("--max-error", 0), "--max-error must be positive")
    refused(bake(adapter=base), "is of kind model, not an adapter")
    refused(bake(base=adapter), "is of kind adapter, not a model")
    refused(bake(adapter=tmp_path / "none"), "there is nothing at")
    other = checkpoint.save(tmp_path / "other", nano.model(seed=5, **SIZES))
    refused(bake(base=other), "was trained on other weights", hint="--force")
    assert not out.exists()
    good("bake-lora", other, adapter, "--out", out, "--force")
    refused(bake(), "exists", hint="--out")
