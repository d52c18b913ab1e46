"""Layers that adapters stand on: packed shapes, embeddings, experts, and what targets name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

import nano
from tinygpt.core.backend import mx, nn
from tinygpt.core.config import Pick
from tinygpt.core.errors import CheckpointError, ConfigError, UnsupportedError
from tinygpt.model import checkpoint, ops
from tinygpt.model.lm import LM
from tinygpt.peft import _adapter, _layers
from tinygpt.train.objective import next_token
from tinygpt.train.optim import adamw
from tinygpt.train.update import Gradient

IDS = mx.array(nano.tokens(2, 12))
MODES = [("affine", bits, 32) for bits in (2, 3, 4, 5, 6, 8)]
MODES += [("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16)]


def wide(*values: Any) -> list[Any]:
    """Settings that `make test` looks at, and `make quick` does not."""
    return [pytest.param(value, marks=pytest.mark.wide) for value in values]


def moved(model: LM, seed: int = 0) -> None:
    """Take every tensor of the adapter off its start."""
    drawn = [
        (name, value + 0.1 * mx.random.normal(value.shape, key=mx.random.key(seed + i)))
        for i, (name, value) in enumerate(_adapter.tensors(model).items())
    ]
    model.update(tree_unflatten(drawn))


def moe(**changes: object) -> LM:
    return nano.model(mlp=Pick("moe", {"experts": 4, "top_k": 2, "width": 24}), **changes)


@pytest.mark.parametrize(("mode", "bits", "group"), MODES)
def test_shapes_and_weights_of_packed_layers(mode: str, bits: int, group: int) -> None:
    linear, table = nn.Linear(96, 40), nn.Embedding(50, 96)
    kinds = (nn.QuantizedLinear.from_linear, linear), (nn.QuantizedEmbedding.from_embedding, table)
    packed, packed_table = (make(layer, group, bits, mode) for make, layer in kinds)
    assert _layers.shape(packed) == _layers.shape(linear) == (40, 96)
    assert _layers.shape(packed_table) == _layers.shape(table) == (96, 50)
    x, ids = mx.random.normal((3, 96)), mx.array([3, 49, 0])
    nano.close(x @ _layers.dense(packed).T + packed.bias, packed(x), 1e-5)
    nano.close(_layers.dense(packed_table)[ids], packed_table(ids).astype(mx.float32), 1e-6)
    for layer in (packed, packed_table):
        adapter = _adapter.PEFT.load("lora").wrap(
            layer, _adapter.PEFT.config("lora")(rank=4), mx.random.key(0)
        )
        given = x if layer is packed else ids
        assert mx.array_equal(adapter(given), layer(given))  # bf16 tables of the fp4 and fp8 modes included


@pytest.mark.parametrize("name", ["lora", *wide("rslora", "lora_fa", "dora", "pissa", "olora")])
@pytest.mark.parametrize("packed", [False, *wide(True)])
def test_an_embedding_learns_is_saved_and_fused(name: str, packed: bool, tmp_path: Path) -> None:
    base = checkpoint.save(tmp_path / "base", nano.model(tie_word_embeddings=name != "dora"))

    def opened() -> LM:
        model = checkpoint.load(base).model
        if packed:
            nn.quantize(model, group_size=32, bits=4, class_predicate=lambda n, _: n.endswith("embed_tokens"))
        return model

    model = opened()
    before = model(IDS)
    pick = Pick(name, {"rank": 4, "targets": ("embed_tokens",)})
    _adapter.attach(model, pick, seed=1)
    assert mx.array_equal(model(IDS), before)
    update = Gradient(next_token.build(model), adamw.build(adamw.Config()), lambda step: 1e-2, compiled=False)
    losses = [update.step(nano.batch(2, 12, seed=1), step)["loss"] for step in range(1, 6)]
    assert losses[-1] < losses[0]
    path = _adapter.save_adapter(tmp_path / "a", model, pick, base=base)
    again = opened()
    _adapter.load_adapter(path, again, base=base)
    assert mx.array_equal(again(IDS), model(IDS))
    beside = model(IDS)
    _adapter.fuse(model, dequantize=True)
    nano.close(model(IDS), beside, 1e-4)


def test_a_tied_output_learns_in_chunks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few logits at once, recomputed in the backward pass, with what the adapted table learns."""

    def gradients() -> dict[str, np.ndarray]:
        model = nano.model(tie_word_embeddings=True)
        _adapter.attach(model, Pick("lora", {"targets": ("embed_tokens",)}), seed=1)
        moved(model)
        batch = nano.batch(2, 12)

        def loss(parameters: dict) -> mx.array:
            model.update(parameters)
            return model.losses(mx.array(batch.tokens), mx.array(batch.targets)).sum()

        return {n: np.array(g) for n, g in tree_flatten(mx.grad(loss)(model.trainable_parameters()))}

    whole = gradients()
    monkeypatch.setattr(ops, "LOGITS", 64 * 5)
    for name, value in gradients().items():
        nano.close(value, whole[name], 1e-5)


@pytest.mark.parametrize("name", ["lora", *wide("rslora", "lora_fa", "pissa", "olora")])
def test_experts_learn_are_saved_and_fused(name: str, tmp_path: Path) -> None:
    base = checkpoint.save(tmp_path / "base", moe())
    model = checkpoint.load(base).model
    before = model(IDS)
    pick = Pick(name, {"rank": 3, "targets": ("experts.gate_proj", "experts.down_proj", "q_proj")})
    _adapter.attach(model, pick, seed=1)
    assert mx.array_equal(model(IDS), before)
    shapes = {
        n.rsplit("experts.", 1)[1]: t.shape for n, t in _adapter.tensors(model).items() if "experts" in n
    }
    assert shapes["gate_proj.lora_A.weight"] == (4, 3, 32) and shapes["gate_proj.lora_B.weight"] == (4, 24, 3)
    assert shapes["down_proj.lora_A.weight"] == (4, 3, 24) and shapes["down_proj.lora_B.weight"] == (4, 32, 3)
    learning = dict(tree_flatten(model.trainable_parameters()))
    update = Gradient(next_token.build(model), adamw.build(adamw.Config()), lambda step: 1e-2, compiled=False)
    for step in range(1, 4):
        update.step(nano.batch(2, 12, seed=step), step)
    assert all(not mx.array_equal(learning[n], w) for n, w in update.weights.items())
    path = _adapter.save_adapter(tmp_path / "a", model, pick, base=base)
    again = checkpoint.load(base).model
    _adapter.load_adapter(path, again, base=base)
    assert mx.array_equal(again(IDS), model(IDS))
    beside = model(IDS)
    out = _adapter.fuse(model)
    nano.close(model(IDS), beside, 1e-4)
    merged = checkpoint.save(tmp_path / "merged", model)
    assert mx.array_equal(checkpoint.load(merged).model(IDS), model(IDS))
    _adapter.unfuse(model, out)
    assert mx.array_equal(model(IDS), beside)


def test_an_experts_change_is_its_own_product() -> None:
    """Each token through W_e + s B_e A_e of its experts, both ways of sorting, and in the dense mixture."""
    for model in (moe(), nano.model(mlp=Pick("moe_dense", {"experts": 3, "width": 24}))):
        _adapter.attach(model, Pick("lora", {"targets": (r".*experts\..*",)}), seed=1)
        moved(model)
        beside = model(IDS)
        experts = model.layers[0].mlp.experts
        delta = np.array(experts.up_proj.delta())
        a, b = (np.array(w, np.float64) for w in experts.up_proj.pair)
        nano.close(delta, 2.0 * np.einsum("eor,eri->eoi", b, a), 1e-6)
        if hasattr(experts, "_sorted"):
            x, chosen = mx.random.normal((6, 32)), mx.array([0, 1, 1, 2, 2, 2], mx.uint32)
            sorted_way = experts._sorted(x, chosen)
            nano.close(sorted_way, experts(x, chosen[:, None])[:, 0], 1e-5)
        _adapter.fuse(model)
        nano.close(model(IDS), beside, 1e-4)


def test_a_technique_says_which_layers_it_works_on() -> None:
    with pytest.raises(UnsupportedError, match="experts.up_proj is a matrix of kind 'stack of experts'"):
        _adapter.attach(moe(), Pick("dora", {"targets": ("experts.up_proj",)}))
    with pytest.raises(UnsupportedError, match="embed_tokens is a matrix of kind 'embedding'"):
        _adapter.attach(nano.model(), Pick("loftq", {"targets": ("embed_tokens",)}))


@pytest.mark.parametrize(
    ("targets", "exclude", "names"),
    [
        (("auto",), (r".*layers\.0.*",), ["1.self_attn.q_proj", "1.self_attn.v_proj"]),
        (("auto",), ("layers.0.self_attn.q_proj", "v_proj"), ["1.self_attn.q_proj"]),
        ((r".*layers\.1\..*(q|down)_proj",), (), ["1.mlp.down_proj", "1.self_attn.q_proj"]),
        (("all-linear",), (r".*layers\.0.*", r".*self_attn.*", "up_proj", "down_proj"), ["1.mlp.gate_proj"]),
    ],
)  # fmt: skip
def test_what_targets_name(targets: tuple[str, ...], exclude: tuple[str, ...], names: list[str]) -> None:
    model = nano.model()
    found = _adapter.attach(model, Pick("lora", {"targets": targets, "exclude": exclude}))
    assert found == [f"model.layers.{name}" for name in names]


def test_targets_that_name_nothing() -> None:
    for targets, exclude, message in (
        (("q_prj",), (), "no matrix of the model is called 'q_prj'. Did you mean 'q_proj'"),
        (("q_proj",), ("k_prj",), "called 'k_prj', so it cannot be excluded. Did you mean 'k_proj'"),
        (("q_proj",), ("self_attn.q_proj",), "every target is excluded"),
        ((r"(q_proj",), (), r"'(q_proj' is no regular expression"),
        ((r".*w_proj",), (), r"is called '.*w_proj'"),
    ):
        with pytest.raises(ConfigError) as caught:
            _adapter.attach(nano.model(), Pick("lora", {"targets": targets, "exclude": exclude}))
        assert message in str(caught.value)


def test_auto_is_what_the_model_has() -> None:
    class Fused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [{"attn": {"query_key_value": nn.Linear(4, 12), "dense": nn.Linear(4, 4)}}]

    assert list(_layers.chosen(Fused(), ("auto",))) == ["layers.0.attn.query_key_value"]


def test_adapters_on_adapters() -> None:
    """A wrapper stands for the layer it wraps: the inner one is named by base_layer, both fuse at once."""
    model = nano.model()
    plain = model(IDS)
    _adapter.attach(model, Pick("lora", {"targets": ("q_proj",)}), seed=1)
    moved(model)
    one = model(IDS)
    pick = Pick("dora").resolve(_adapter.PEFT, "peft")
    _adapter.wrap(model, pick, _adapter.picked(model, pick), seed=2)
    assert mx.array_equal(model(IDS), one) and not mx.array_equal(one, plain)
    names = list(_adapter.adapters(model))
    assert "model.layers.0.self_attn.q_proj.base_layer" in names and len(names) == 6
    assert all(
        ".q_proj.lora" in n or ".v_proj.lora" in n for n, _ in tree_flatten(model.trainable_parameters())
    )
    moved(model, 9)
    beside = model(IDS)
    out = _adapter.fuse(model)
    nano.close(model(IDS), beside, 1e-4)
    _adapter.unfuse(model, out)
    assert mx.array_equal(model(IDS), beside)


def test_another_base_is_opened_by_force_alone(tmp_path: Path) -> None:
    base, other = (checkpoint.save(tmp_path / f"b{i}", nano.model(seed=i)) for i in range(2))
    model, pick = nano.model(), Pick("lora")
    _adapter.attach(model, pick)
    path = _adapter.save_adapter(tmp_path / "a", model, pick, base=base)
    with pytest.raises(CheckpointError, match=r"other weights.*--force"):
        _adapter.load_adapter(path, checkpoint.load(other).model, base=other)
    assert (
        _adapter.load_adapter(path, checkpoint.load(other).model, base=other, force=True).pick.name == "lora"
    )


def test_a_base_of_the_hub_is_named_with_its_revision(tmp_path: Path) -> None:
    place = tmp_path / "hub" / "models--org--small" / "snapshots" / "abc123"
    model, pick = nano.model(), Pick("lora")
    checkpoint.save(place, model)
    _adapter.attach(model, pick)
    path = _adapter.save_adapter(tmp_path / "a", model, pick, base=place)
    manifest = checkpoint.read_json(path / "tinygpt.json")
    assert manifest["base"]["id"] == "org/small" and manifest["base"]["revision"] == "abc123"
    config = checkpoint.read_json(path / "adapter_config.json")
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/small", "abc123")
    assert _adapter.base_of(path) == place.resolve()


def test_loftq_needs_its_base_to_be_quantized_anew(tmp_path: Path) -> None:
    base = checkpoint.save(tmp_path / "base", nano.model())
    pick = Pick("loftq", {"bits": 3, "iters": 3})
    model = checkpoint.load(base).model
    _adapter.attach(model, pick)
    layer = model.layers[0].self_attn.q_proj
    assert isinstance(layer.base_layer, nn.QuantizedLinear) and layer.base_layer.bits == 3
    moved(model)
    path = _adapter.save_adapter(tmp_path / "a", model, pick, base=base)
    expected = model(IDS)
    # A start of other bits, as another machine's SVD would give, is filled in before the first pass only.
    other = checkpoint.load(base).model
    _adapter.attach(other, Pick("loftq", {"bits": 3, "iters": 2}))
    _adapter.fill(other, checkpoint.read_tensors(path, "adapter_model"), "a")
    assert mx.array_equal(other(IDS), expected)
    late = checkpoint.load(base).model
    _adapter.attach(late, Pick("loftq", {"bits": 3, "iters": 2}))
    late(IDS)
    with pytest.raises(CheckpointError, match="no longer at hand"):
        _adapter.fill(late, checkpoint.read_tensors(path, "adapter_model"), "a")


def test_all_linear_leaves_routers_out() -> None:
    """They are as narrow as there are experts, so ranks above that were refused on every mixture."""
    model = moe()
    assert not [n for n in _layers.chosen(model, ("all-linear",)) if "router" in n]
    assert len(_layers.chosen(model, ("router",))) == 2
    _adapter.attach(model, Pick("lora", {"rank": 8, "targets": ("all-linear",)}))
