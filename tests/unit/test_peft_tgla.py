"""The original's adapter files: the layout byte by byte, and each way one can be wrong."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nano
from tinygpt.core.backend import mx
from tinygpt.core.errors import CheckpointError
from tinygpt.model import checkpoint
from tinygpt.peft import _adapter, _open, _tgla
from tinygpt.runs import convert_adapter

IDS = mx.array(nano.tokens(2, 12))
SIZES = {"baseLayers": 2, "baseDModel": 32, "baseCtx": 128, "baseHeads": 4, "baseDMlp": 128}
OLD, NEW = "blocks.{}.attn.q_proj", "layers.{}.self_attn.q_proj"


def written(path: Path, *, style: str = OLD, version: int = 1, m: tuple[int, ...] = (), **more: Any) -> Any:
    """A file as section 3.2 of the original's formats lays it out; returns A, B and m by layer."""
    rng = np.random.default_rng(3)
    entries, payload, values = [], b"", []
    for i in range(2):
        a, b = rng.normal(size=(32, 3)).astype("<f4"), rng.normal(size=(3, 32)).astype("<f4")
        lengths = rng.normal(size=32).astype("<f4") if i in m else None
        entry = {"name": style.format(i), "loraAShape": [32, 3], "loraBShape": [3, 32]}
        payload += a.tobytes() + b.tobytes()
        if lengths is not None:
            entry["loraMShape"] = [32]
            payload += lengths.tobytes()
        entries.append(entry)
        values.append((a, b, lengths))
    header = {"rank": 3, "alpha": 6, "targetSuffixes": ["q_proj"], **SIZES, "entries": entries,
              "savedAt": "2025-01-01T00:00:00Z", "finalLoss": 1.25, **more}  # fmt: skip
    text = json.dumps(header).encode()
    path.write_bytes(b"TGLA" + struct.pack("<II", version, len(text)) + text + payload)
    return values


@pytest.mark.parametrize("style", [OLD, NEW])
def test_version_one_is_lora(style: str, tmp_path: Path) -> None:
    values = written(tmp_path / "a.lora", style=style)
    model, expected = nano.model("gpt2"), nano.model("gpt2")
    loaded = _open.load([tmp_path / "a.lora"], model)[0]
    assert loaded.pick.name == "lora" and loaded.notes == (_tgla.NOTE,)
    for layer, (a, b, _) in zip(expected.layers, values):
        weight = layer.self_attn.q_proj.weight
        layer.self_attn.q_proj.weight = weight + mx.array((6 / 3) * (a @ b).T)  # W += (alpha/rank) (A B)^T
    nano.close(model(IDS), expected(IDS), 1e-5)


def test_version_two_is_dora(tmp_path: Path) -> None:
    values = written(tmp_path / "a.lora", version=2, m=(0, 1))
    model, expected = nano.model("gpt2"), nano.model("gpt2")
    assert _open.load([tmp_path / "a.lora"], model)[0].pick.name == "dora"
    for layer, (a, b, m) in zip(expected.layers, values):
        whole = np.array(layer.self_attn.q_proj.weight, np.float64) + 2 * (a.astype(np.float64) @ b).T
        whole *= (m / np.linalg.norm(whole, axis=1))[:, None]
        layer.self_attn.q_proj.weight = mx.array(whole.astype(np.float32))
    nano.close(model(IDS), expected(IDS), 1e-5)
    plain = nano.model("gpt2")
    written(tmp_path / "b.lora", version=2)
    assert _open.load([tmp_path / "b.lora"], plain)[0].pick.name == "lora"


def test_names_of_both_classes() -> None:
    assert _tgla.ours("blocks.3.mlp.fc_in") == "model.layers.3.mlp.up_proj"
    assert _tgla.ours("blocks.11.mlp.fc_out") == "model.layers.11.mlp.down_proj"
    assert _tgla.ours("layers.0.mlp.gate_proj") == "model.layers.0.mlp.gate_proj"
    assert _tgla.ours("model.layers.0.self_attn.o_proj") == "model.layers.0.self_attn.o_proj"


@pytest.mark.parametrize("key", SIZES)
def test_every_size_of_the_base_is_checked(key: str, tmp_path: Path) -> None:
    written(tmp_path / "a.lora", **{key: SIZES[key] + 1})
    model = nano.model("gpt2")
    with pytest.raises(CheckpointError, match=rf"{key} {SIZES[key] + 1}; this one has {SIZES[key]}"):
        _open.load([tmp_path / "a.lora"], model)
    assert not _adapter.adapters(model)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"m": (1,), "version": 2}, "mixes DoRA and plain"),
        ({"m": (0, 1)}, "DoRA in version 1"),
        ({"version": 3}, "version 3"),
        ({"rank": 4}, r"has the shapes .* and rank 4"),
        ({"rank": True}, "rank cannot be True"),
        ({"alpha": "much"}, "alpha cannot be 'much'"),
        ({"alpha": float("nan")}, "alpha cannot be nan"),
        ({"entries": []}, "holds no entry"),
        ({"entries": [{"name": 3}]}, "no name"),
        ({"style": "blocks.0.attn.{}_proj"}, "no matrix of the model is called"),
        ({"style": "blocks.0.attn.q_proj"}, "twice"),
        ({"style": "blocks.{}.attn.moe"}, "no matrix of the model is called"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    written(tmp_path / "a.lora", **change)
    model = nano.model("gpt2")
    with pytest.raises(CheckpointError, match=said) as caught:
        _open.load([tmp_path / "a.lora"], model)
    assert "\n" not in str(caught.value) and not _adapter.adapters(model)


@pytest.mark.wide
def test_every_cut_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "whole.lora")
    data = (tmp_path / "whole.lora").read_bytes()
    path = tmp_path / "cut.lora"
    for size in (*range(4, 40), len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(CheckpointError):
            _open.load([path], nano.model("gpt2"))
    path.write_bytes(data + b"x")
    with pytest.raises(CheckpointError, match="1 bytes after its last entry"):
        _open.load([path], nano.model("gpt2"))


@pytest.mark.wide
def test_written_and_read_again(tmp_path: Path) -> None:
    base = checkpoint.save(tmp_path / "base", nano.model("gpt2"))
    for version, m in ((1, ()), (2, (0, 1))):
        written(tmp_path / f"{version}.lora", version=version, m=m)
        for source, out, format in ((f"{version}.lora", f"{version}.dir", "peft"),
                                    (f"{version}.dir", f"{version}.again.lora", "tgla")):  # fmt: skip
            convert_adapter.run(tmp_path / source, out=tmp_path / out, format=format, base=base)
        models = [checkpoint.load(base).model for _ in range(2)]
        for model, name in zip(models, (f"{version}.lora", f"{version}.again.lora")):
            _open.load([tmp_path / name], model)
        nano.close(models[1](IDS), models[0](IDS), 1e-6)
