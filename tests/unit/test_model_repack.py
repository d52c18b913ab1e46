"""AWQ and GPTQ files stand for the integers that their published layouts say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nano
from tinygpt.core.backend import mx
from tinygpt.core.errors import CheckpointError
from tinygpt.model import checkpoint, quantized, repack

SIZES = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1}
IDS = mx.array(nano.tokens(2, 12))


def words(values: np.ndarray, bits: int) -> np.ndarray:
    """Integers along the last axis as one stream of bits, lowest first, cut into words of 32."""
    stream = (values[..., None] >> np.arange(bits)) & 1
    stream = stream.reshape(*values.shape[:-1], -1, 32).astype(np.uint64)
    return (stream << np.arange(32, dtype=np.uint64)).sum(-1).astype(np.uint32).view(np.int32)


def drawn(seed: int, n_in: int, n_out: int, bits: int, group: int) -> tuple[np.ndarray, ...]:
    """(q (in, out), z (groups, out), scales (groups, out) in half precision)."""
    rng = np.random.default_rng(seed)
    q = rng.integers(0, 2**bits, (n_in, n_out))
    z = rng.integers(0, 2**bits, (n_in // group, n_out))
    z[0, :2] = 0, 2**bits - 1  # the ends, where a zero point minus 1 wraps round
    return q, z, (0.01 * (0.5 + rng.random((n_in // group, n_out)))).astype(np.float16)


def matrix(q: np.ndarray, z: np.ndarray, scales: np.ndarray, group: int) -> np.ndarray:
    """(out, in) w = s (q - z)."""
    s, z = (np.repeat(x.astype(np.float64), group, axis=0) for x in (scales, z))
    return (s * (q - z)).T


def gptq(q: np.ndarray, z: np.ndarray, scales: np.ndarray, bits: int, less: int = 1) -> dict[str, np.ndarray]:
    return {
        "qweight": words(q.T, bits).T, "qzeros": words((z - less) % 2**bits, bits), "scales": scales,
        "g_idx": (np.arange(len(q)) // (len(q) // len(z))).astype(np.int32),
    }  # fmt: skip


def awq(q: np.ndarray, z: np.ndarray, scales: np.ndarray) -> dict[str, np.ndarray]:
    order = [0, 2, 4, 6, 1, 3, 5, 7]

    def along(x: np.ndarray) -> np.ndarray:
        return words(x.reshape(len(x), -1, 8)[:, :, order].reshape(x.shape), 4)

    return {"qweight": along(q), "qzeros": along(z), "scales": scales}


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_words_are_mlxs(bits: int) -> None:
    w = mx.random.normal((5, 128), key=mx.random.key(bits))
    packed, scales, biases = mx.quantize(w, group_size=64, bits=bits)
    q = repack.unpack(packed, bits)
    again = np.repeat(np.array(scales), 64, axis=1) * np.array(q) + np.repeat(np.array(biases), 64, axis=1)
    nano.close(again, np.array(mx.dequantize(packed, scales, biases, group_size=64, bits=bits)), 1e-6)
    assert mx.array_equal(repack.pack(q, bits), packed)
    assert np.array_equal(np.array(packed).view(np.int32), words(np.array(q), bits))


CASES: dict[str, dict[str, Any]] = {
    "awq": {"method": "awq"},
    "awq-wide-groups": {"method": "awq", "group": 128},
    "gptq": {"method": "gptq"},
    "gptq-2": {"method": "gptq", "bits": 2},
    "gptq-3": {"method": "gptq", "bits": 3},
    "gptq-8": {"method": "gptq", "bits": 8},
    "gptq-v2": {"method": "gptq", "less": 0},
    "gptq-one-group": {"method": "gptq", "group": 256},
}


def directory(
    path: Path, method: str, bits: int = 4, group: int = 32, less: int = 1
) -> dict[str, np.ndarray]:
    """Write a checkpoint whose matrices in blocks are packed; returns what they stand for."""
    dense = checkpoint.load(checkpoint.save(path, nano.model(**SIZES)))
    meant: dict[str, np.ndarray] = {}
    tensors = dense.tensors()
    for i, name in enumerate([n for n in tensors if n.endswith("_proj.weight")]):
        n_out, n_in = tensors.pop(name).shape
        size = min(group, n_in)
        q, z, scales = drawn(i, n_in, n_out, bits, size)
        meant[name] = matrix(q, z, scales, size)
        made = awq(q, z, scales) if method == "awq" else gptq(q, z, scales, bits, less)
        tensors |= {f"{name.removesuffix('weight')}{n}": mx.array(v) for n, v in made.items()}
        if method == "gptq":
            tensors[f"{name.removesuffix('weight')}bias"] = mx.zeros((n_out,), mx.float16)
    (path / "tinygpt.json").unlink()
    checkpoint.write_tensors(path, "model", tensors)
    table = {"quant_method": method, "bits": bits, "group_size": group}
    table |= {"version": "gemm"} if method == "awq" else {"desc_act": False, "sym": False}
    table |= {"checkpoint_format": "gptq_v2"} if not less else {}
    edit(path, lambda d: d.update(quantization_config=table))
    return meant


def edit(path: Path, change: Any) -> None:
    data = json.loads((path / "config.json").read_text())
    change(data)
    (path / "config.json").write_text(json.dumps(data))


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=[pytest.mark.wide] if i % 6 else []) for i, c in enumerate(CASES)]
)
def test_the_matrix_is_the_one_that_was_meant(case: str, tmp_path: Path) -> None:
    meant = directory(tmp_path / "m", **CASES[case])
    model = checkpoint.load(tmp_path / "m").model
    found = quantized.packed(model)
    assert {f"{name}.weight" for name in found} == set(meant)
    for name, module in found.items():
        w = meant[f"{name}.weight"]
        assert np.array_equal(np.array(quantized.dense(module), np.float64), w.astype(np.float32)), name
    plain = nano.model(**SIZES)
    plain.load_weights([(n, mx.array(w.astype(np.float32))) for n, w in meant.items()], strict=False)
    nano.close(model(IDS), plain(IDS), 1e-5)


def test_act_order_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m"
    directory(path, "gptq")
    tensors = checkpoint.read_tensors(path, "model")
    name = "model.layers.0.mlp.up_proj.g_idx"
    tensors[name] = tensors[name][::-1]
    mx.eval(tensors)
    checkpoint.write_tensors(path, "model", tensors)
    with pytest.raises(CheckpointError, match="up_proj was quantized in act order"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"quant_method": "awq", "bits": 8}, "awq with 8 bits; 4 can be read"),
        ({"quant_method": "awq", "version": "gemv"}, "layout 'gemv' cannot be read"),
        ({"quant_method": "gptq", "bits": 5}, "gptq with 5 bits"),
        ({"quant_method": "gptq", "checkpoint_format": "marlin"}, "layout 'marlin' cannot be read"),
        ({"quant_method": "bitsandbytes"}, "quant_method 'bitsandbytes' is not one this build opens"),
    ],
)
def test_what_cannot_be_read(table: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "m"
    directory(path, "gptq")
    edit(path, lambda d: d.update(quantization_config=table))
    with pytest.raises(CheckpointError, match=sentence):
        checkpoint.load(path)
