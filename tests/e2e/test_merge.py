"""Merging whole models by the real command line: streamed, in their dtype, refused where they do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import nano
from e2e.shell import good, refused, snapshot, tinygpt
from tinygpt.core.backend import mx
from tinygpt.core.config import Pick
from tinygpt.data.tokenizer import byte
from tinygpt.merge import ties
from tinygpt.model import checkpoint, shards
from tinygpt.model.shards import Shards
from tinygpt.peft import _adapter

SIZES = {"vocab_size": 300}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Folders base, a and b of one architecture, with a tokenizer, stored in bfloat16."""
    for seed, name in enumerate(("base", "a", "b")):
        model = nano.model(seed=seed, **SIZES)
        checkpoint.save(tmp_path / name, model, write_tokenizer=byte.load(None).save, dtype="bfloat16")
    return tmp_path


def tensors(folder: Path) -> dict[str, np.ndarray]:
    found = checkpoint.read_tensors(folder, "model")
    return {n: np.array(t.astype(mx.float32), np.float64) for n, t in found.items()}


def test_a_mean_of_two(models: Path) -> None:
    done = good("merge", models / "a", models / "b", "--method", "linear", "--out", models / "out")
    assert "linear of 1 x" in done.out and "tensors" in done.out
    a, b, out = (tensors(models / n) for n in ("a", "b", "out"))
    for name in a:
        nano.close(out[name], (a[name] + b[name]) / 2, 2**-8)
    entries = Shards(models / "out").entries
    assert {e.dtype for e in entries.values()} == {"bfloat16"}
    good("validate", models / "out")
    assert (models / "out/config.json").read_bytes() == (models / "a/config.json").read_bytes()
    assert (models / "out/tokenizer.json").read_bytes() == (models / "a/tokenizer.json").read_bytes()
    merged = json.loads((models / "out/tinygpt.json").read_text())["merged"]
    assert merged["method"] == {"name": "linear", "normalize": True} and merged["weights"] == [1.0, 1.0]
    assert [m["hash"] for m in merged["models"]] == [checkpoint.identity(models / n) for n in "ab"]
    assert len(good("sample", models / "out", "--prompt", "a", "--tokens", 2, "--seed", 1).out) > 1


def test_a_config_spelled_otherwise_is_the_same(models: Path) -> None:
    """A base as transformers 4 wrote it, and its child as 5 did; another base of positions is refused."""
    path = models / "b/config.json"
    data = json.loads(path.read_text())
    (models / "b/tinygpt.json").unlink()
    theta = data.pop("rope_parameters")["rope_theta"]
    line = ("merge", models / "a", models / "b", "--method", "linear", "--out", models / "out")
    path.write_text(json.dumps({**data, "rope_theta": 2 * theta}))
    refused(tinygpt(*line), "the models differ in what they compute")
    path.write_text(json.dumps({**data, "rope_theta": theta}))
    good(*line)


def test_ties_from_a_base_twice_the_same_and_in_shards(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SHARD_BYTES", 20_000)
    line = (
        "merge", models / "a", models / "b", "--base", models / "base",
        "--weights", "1,0.5", "--density", 0.4, "--json",
    )  # fmt: skip
    one = good(*line, "--out", models / "one").json
    good(*line, "--out", models / "two")
    assert one["method"]["density"] == 0.4 and one["weights"] == [1.0, 0.5]
    files = snapshot(models / "one")
    assert len([n for n in files if n.endswith(".safetensors")]) > 2
    assert {n: c for n, c in files.items() if "tinygpt" not in n} == {
        n: c for n, c in snapshot(models / "two").items() if "tinygpt" not in n
    }
    a, b, base = (checkpoint.read_tensors(models / n, "model") for n in ("a", "b", "base"))
    out = tensors(models / "one")
    for name in ("model.embed_tokens.weight", "model.norm.weight"):
        x, y, z = (t[name].astype(mx.float32) for t in (a, b, base))
        expected = ties.combine(ties.Config(density=0.4), ties.Parts(name, [x, y], (1.0, 0.5), z))
        nano.close(out[name], expected.astype(mx.bfloat16).astype(mx.float32), 1e-6)


def test_memory_holds_a_tensor_of_each_not_the_models(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        checkpoint.save(tmp_path / name, nano.model(seed=seed, num_hidden_layers=24, hidden_size=64))
    whole = sum(e.end - e.start for e in Shards(tmp_path / "a").entries.values())
    largest = max(e.end - e.start for e in Shards(tmp_path / "a").entries.values())
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    good("merge", tmp_path / "a", tmp_path / "b", "--method", "slerp", "--out", tmp_path / "out")
    used = mx.get_peak_memory() - before
    assert used < 12 * largest < whole, (used, largest, whole)


def test_what_does_not_fit_is_refused(models: Path) -> None:
    out = models / "out"

    def merge(*more: object, first: str = "a", second: str = "b") -> object:
        return tinygpt("merge", models / first, models / second, "--out", out, *more)

    refused(merge(), "'ties' adds up changes from a base", hint="--method linear or slerp")
    refused(merge("--method", "linear", "--base", models / "base"), "a base plays no part")
    refused(merge("--method", "mean"), "unknown merge 'mean'", hint="linear")
    refused(
        merge("--method", "slerp", "--density", 0.5), "the method 'slerp' has no density", hint="--method"
    )
    refused(merge("--method", "linear", "--dare-seed", 1), "the method 'linear' has no seed", hint="dare")
    refused(
        merge("--method", "linear", "--weights", "1,2,3"), "--weights has 3 numbers, and there are 2 models"
    )
    refused(merge("--method", "linear", "--weights", "1,-1"), "must not be negative or all zero")
    refused(merge("--method", "linear", "--weights", "1,x"), r"'weights\[1\]' must be a number, got 'x'")
    done = tinygpt("merge", "--models", models / "a", models / "b", "--out", out)
    refused(done, "tinygpt merge has no option --models", hint="tinygpt merge A B --out OUT")
    refused(merge("--base", models / "base", "--density", 2), "--density must be above 0 and at most 1")
    refused(tinygpt("merge", models / "a", "--out", out), "two or more models are merged, 1 given")
    refused(merge("--method", "linear", second="none"), "there is nothing at .*none")
    linear = ("--method", "linear")
    checkpoint.save(models / "wide", nano.model(hidden_size=48, **SIZES))
    refused(merge(*linear, second="wide"), "hidden_size is 32 in .*a and 48 in .*wide", hint="one kind")
    checkpoint.save(models / "gpt2", nano.model("gpt2", **SIZES))
    refused(merge(*linear, second="gpt2"), "model_type is 'llama' in .* and 'gpt2'")
    named = json.loads((models / "b/tokenizer.json").read_text())
    other = models / "other"
    tokenizer = byte.load(None)
    checkpoint.save(other, nano.model(seed=2, **SIZES), write_tokenizer=tokenizer.save)
    vocab = named["model"]["vocab"]
    first, second = sorted(vocab)[:2]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    (other / "tokenizer.json").write_text(json.dumps(named))
    (other / "tinygpt.json").unlink()
    refused(merge(*linear, second="other"), "have different tokenizers")
    model = nano.model(seed=1, **SIZES)
    _adapter.attach(model, Pick("lora"))
    _adapter.save_adapter(models / "adapter", model, Pick("lora"), base=models / "a")
    refused(merge(*linear, second="adapter"), "is of kind adapter, not a model", hint="bake-lora")
    broken = models / "b/model.safetensors"
    broken.write_bytes(broken.read_bytes()[:-100])
    refused(merge(*linear), "bytes, the manifest says")
    assert not out.exists() and not list(models.glob(".*"))


def test_integers_are_no_weights(models: Path) -> None:
    found = checkpoint.read_tensors(models / "b", "model")
    whole = {n: t.astype(mx.int32) for n, t in found.items()}
    mx.save_safetensors(str(models / "b/model.safetensors"), whole)
    (models / "b/tinygpt.json").unlink()
    line = ("merge", models / "a", models / "b", "--method", "linear", "--out", models / "out")
    refused(tinygpt(*line), "numbers of the type I32")
    assert not (models / "out").exists()


def test_a_nan_in_a_model_leaves_nothing_behind(models: Path) -> None:
    bad = nano.model(seed=1, **SIZES)
    bad.model.norm.weight = bad.model.norm.weight * float("nan")
    checkpoint.save(models / "bad", bad, write_tokenizer=byte.load(None).save)
    done = tinygpt("merge", models / "a", models / "bad", "--method", "linear", "--out", models / "out")
    refused(done, "model.norm.weight holds NaN or infinity")
    assert not (models / "out").exists() and not list(models.glob(".*"))
    good("merge", models / "a", models / "b", "--method", "linear", "--out", models / "out")
    again = ("merge", models / "a", models / "b", "--method", "slerp", "--out", models / "out")
    refused(tinygpt(*again), "exists", hint="--force")
    good(*again, "--force")
    refused(tinygpt(*again[:-1], models / "a", "--force"), "--out .*a is")


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int32", "uint8"])
def test_what_is_written_is_what_mlx_writes(dtype: str, tmp_path: Path) -> None:
    values = mx.arange(24).reshape(4, 6).astype(getattr(mx, dtype))
    shards.write(tmp_path, "model", {"t": (dtype, (4, 6))}, lambda _: values)
    read = mx.load(str(tmp_path / "model.safetensors"))["t"]
    assert read.dtype == values.dtype and mx.array_equal(read, values)
    assert mx.array_equal(Shards(tmp_path).read("t"), values)
