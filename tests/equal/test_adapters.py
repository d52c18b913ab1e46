"""Several adapters at once are what they are defined as."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlx.utils import tree_unflatten

import nano
from tinygpt.core.backend import mx, nn
from tinygpt.core.config import Pick
from tinygpt.core.errors import CheckpointError, ConfigError, UnsupportedError
from tinygpt.model import checkpoint
from tinygpt.model.lm import LM
from tinygpt.peft import _adapter, _layers, _open
from tinygpt.runs import convert_adapter

IDS = mx.array(nano.tokens(2, 12))
Make = Callable[..., Path]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return checkpoint.save(tmp_path / "base", nano.model())


@pytest.fixture
def make(base: Path, tmp_path: Path) -> Make:
    def make(name: str, seed: int = 1, **knobs: Any) -> Path:
        model = checkpoint.load(base).model
        _adapter.attach(model, Pick(name, knobs), seed=seed)
        drawn = [
            (n, w + 0.2 * mx.random.normal(w.shape, key=mx.random.key(10 * seed + i)))
            for i, (n, w) in enumerate(_adapter.tensors(model).items())
        ]
        model.update(tree_unflatten(drawn))
        path = tmp_path / f"{name}-{seed}"
        return _adapter.save_adapter(path, model, Pick(name, knobs), base=base)

    return make


def opened(base: Path, *paths: Path, **how: Any) -> LM:
    model = checkpoint.load(base).model
    _open.load(paths, model, base=base, **how)
    return model


def deltas(base: Path, path: Path) -> dict[str, mx.array]:
    model = opened(base, path)
    return {n: m.delta() for n, m in _adapter.adapters(model).items()}


def test_low_rank_changes_add_up_as_they_weigh(base: Path, make: Make) -> None:
    paths = [make("lora", rank=3), make("lora", 2, rank=5, targets=("all-linear",)), make("vera", 3, rank=7),
             make("adalora", 4)]  # fmt: skip
    weights = [0.7, 0.3, -1.5, 2.0]
    expected = checkpoint.load(base).model
    for path, weight in zip(paths, weights):
        for name, delta in deltas(base, path).items():
            layer = _layers.layers(expected)[name]
            layer.weight = layer.weight + weight * delta
    nano.close(opened(base, *paths, weights=weights)(IDS), expected(IDS), 1e-5)
    fused = opened(base, *paths, weights=weights)
    _adapter.fuse(fused)
    nano.close(fused(IDS), expected(IDS), 1e-5)
    turned = opened(base, *paths[::-1], weights=weights[::-1])
    nano.close(turned(IDS), expected(IDS), 1e-5)


@pytest.mark.parametrize("name", ["ia3", "dora"])
def test_a_weighted_change_is_so_much_of_the_way(name: str, base: Path, make: Make) -> None:
    """W + w (W' - W), also on top of another adapter."""
    under, path = make("lora", rank=2, targets=("all-linear",)), make(name, 2)
    model = opened(base, under, path, weights=[1, 0.25])
    whole, plain = opened(base, under, path), opened(base, under)
    _adapter.fuse(whole)
    _adapter.fuse(plain)
    for n, layer in _layers.layers(plain).items():
        change = _layers.layers(whole)[n].weight - layer.weight
        layer.weight = layer.weight + 0.25 * change
    nano.close(model(IDS), plain(IDS), 1e-5)
    _adapter.fuse(model)
    nano.close(model(IDS), plain(IDS), 1e-5)


def test_weight_one_is_no_weight_and_zero_is_the_base(base: Path, make: Make) -> None:
    for name in ("lora", "dora", "ia3", "vera"):
        path = make(name)
        assert mx.array_equal(opened(base, path, weights=[1.0])(IDS), opened(base, path)(IDS))
        nano.close(opened(base, path, weights=[0.0])(IDS), checkpoint.load(base).model(IDS), 1e-6)


def test_what_cannot_be_together_is_refused_and_nothing_changes(
    base: Path, make: Make, tmp_path: Path
) -> None:
    lora, loftq = make("lora"), make("loftq", 2, bits=4)
    with pytest.raises(ConfigError, match="2 weights .* 1 adapters"):
        opened(base, lora, weights=[1, 2])
    with pytest.raises(CheckpointError, match="open the LoftQ adapter first"):
        opened(base, lora, loftq)
    assert not mx.array_equal(opened(base, loftq, lora)(IDS), opened(base, loftq)(IDS))
    with pytest.raises(UnsupportedError, match="brings its own matrix"):
        opened(base, loftq, weights=[0.5])
    other = checkpoint.save(tmp_path / "other", nano.model(seed=5))
    model = checkpoint.load(other).model
    before = model(IDS)
    with pytest.raises(CheckpointError, match="other weights"):
        _open.load([lora], model, base=other)
    with pytest.raises(CheckpointError, match="no adapter at"):
        _open.load([lora, tmp_path / "nowhere"], model, base=other, force=True)
    assert mx.array_equal(model(IDS), before) and not _adapter.adapters(model)
    _open.load([lora], model, base=other, force=True)
    assert not mx.array_equal(model(IDS), before)


def test_a_quantized_base_wears_several(base: Path, make: Make) -> None:
    paths = [make("lora"), make("dora", 2), make("ia3", 3)]
    model = checkpoint.load(base).model
    nn.quantize(model, group_size=32, bits=8, class_predicate=lambda path, m: isinstance(m, nn.Linear))
    _open.load(paths, model, base=base, weights=[0.5, 0.5, 0.5])
    nano.close(model(IDS), opened(base, *paths, weights=[0.5, 0.5, 0.5])(IDS), 0.05)


def test_experts_by_mlx_lms_names(tmp_path: Path) -> None:
    """LoRASwitchLinear: lora_a (E, r, in), lora_b (E, out, r), under `switch_mlp`."""
    sizes: dict[str, Any] = {"mlp": Pick("moe", {"experts": 4, "top_k": 2})}
    base = checkpoint.save(tmp_path / "base", nano.model(**sizes))
    model = checkpoint.load(base).model
    pick = Pick("lora", {"rank": 3, "targets": ("experts.up_proj", "q_proj")})
    _adapter.attach(model, pick, seed=1)
    drawn = [
        (n, w + 0.2 * mx.random.normal(w.shape, key=mx.random.key(i)))
        for i, (n, w) in enumerate(_adapter.tensors(model).items())
    ]
    model.update(tree_unflatten(drawn))
    _adapter.save_adapter(tmp_path / "a", model, pick, base=base)
    convert_adapter.run(tmp_path / "a", out=tmp_path / "mlx", format="mlx")
    held = checkpoint.read_tensors(tmp_path / "mlx", "adapters")
    name, width = "model.layers.0.mlp.switch_mlp.up_proj", model.layers[0].mlp.experts.down_proj.shape[-1]
    assert held[f"{name}.lora_a"].shape == (4, 3, 32) and held[f"{name}.lora_b"].shape == (4, width, 3)
    nano.close(opened(base, tmp_path / "mlx")(IDS), model(IDS), 1e-5)
