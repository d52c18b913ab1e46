"""Quantization-aware training: the grid is MLX's, the gradient goes straight through, the config says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_unflatten

import nano
from tinygpt.core.backend import mx, nn
from tinygpt.core.config import Pick, from_dict
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Evaluated, Events, MemorySink
from tinygpt.data.source import text
from tinygpt.model import checkpoint
from tinygpt.runs import pretrain, sft
from tinygpt.runs._held_out import held_out_loss
from tinygpt.runs._pieces import open_model
from tinygpt.train.objective import next_token, response
from tinygpt.train.optim import adamw
from tinygpt.train.qat import BITS, group_size, rounded, rounds, transform
from tinygpt.train.update import Gradient, arrays

TOKENS = nano.tokens(2, 12)


def uneven(shape: tuple[int, ...]) -> mx.array:
    """Weights with groups of zeros, of one sign, and with an outlier."""
    weight = 0.02 * mx.random.normal(shape, key=mx.random.key(1))
    flat = weight.reshape(-1, shape[-1])
    flat[0], flat[1, 5], flat[2] = 0.0, -0.5, mx.abs(flat[2])
    return flat.reshape(shape)


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shape", [(48, 128), (3, 8, 64)])
def test_the_grid_is_that_of_mlx(bits: int, size: int, shape: tuple[int, ...]) -> None:
    weight = uneven(shape)
    codes, scales, biases = mx.quantize(weight, group_size=size, bits=bits)
    wanted = mx.dequantize(codes, scales, biases, group_size=size, bits=bits)
    found = rounded(bits, size)(weight)
    nano.close(found, wanted, 1e-7)
    steps = [
        mx.round((x.reshape(*shape[:-1], -1, size) - biases[..., None]) / scales[..., None])
        for x in (found, wanted)
    ]
    assert mx.array_equal(steps[0], steps[1]), "the same codes"
    assert mx.array_equal(mx.compile(rounded(bits, size))(weight), found)


def test_the_gradient_goes_straight_through() -> None:
    weight, x = uneven((16, 64)), mx.random.normal((64,), key=mx.random.key(2))
    read = rounded(4, 64)(weight)
    for wrap in (lambda f: f, mx.compile):
        found = wrap(mx.grad(lambda w: (rounded(4, 64)(w) @ x).square().sum()))(weight)
        nano.close(found, 2 * (read @ x)[:, None] * x, 1e-5)


def update(bits: int, **changes: Any) -> Gradient:
    how: dict[str, Any] = {"compiled": False}
    how |= {name: changes.pop(name) for name in ("accumulate", "compiled", "dtype") if name in changes}
    sizes: dict[str, Any] = {"hidden_size": 64, **changes}
    model = nano.model(**sizes)
    return Gradient(
        response.build(model), adamw.build(adamw.Config()), lambda step: 3e-3,
        transform=transform(bits, group_size(model)), **how,
    )  # fmt: skip


@pytest.mark.parametrize("mlp", [Pick("swiglu"), Pick("moe", {"experts": 4, "shared": 1, "width": 32})])
@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_afterwards_it_is_the_network_that_was_trained(bits: int, mlp: Pick) -> None:
    updater = update(bits, mlp=mlp)
    model = updater.objective.module
    for step in range(1, 4):
        assert np.isfinite(updater.step(nano.batch(2, 12, seed=step), step)["loss"])
    whole = model(mx.array(TOKENS))
    with updater.reading():
        seen = model(mx.array(TOKENS))
    assert mx.array_equal(model(mx.array(TOKENS)), whole), "put back"
    size = group_size(model)

    def grid(name: str, module: nn.Module) -> bool:
        return name.endswith("_proj") and isinstance(module, nn.Linear)

    if mlp.name == "moe":  # MLX has a quantized form of single matrices; stacks are rounded by hand
        for layer in model.layers:
            for name, stack in layer.mlp.experts.parameters().items():
                packed = mx.quantize(stack, group_size=size, bits=bits)
                layer.mlp.experts[name] = mx.dequantize(*packed, group_size=size, bits=bits)
    nn.quantize(model, group_size=size, bits=bits, class_predicate=grid)
    nano.close(model(mx.array(TOKENS)), seen, 1e-5)  # sums in another order
    assert float(mx.abs(whole - seen).max()) > (1e-2 if bits == 4 else 1e-4), "rounding shows"


def test_what_was_trained_plainly_learns_to_bear_the_rounding() -> None:
    """Five batches by heart, then some steps more in both ways: in four bits the one that was trained for it
    knows them better."""
    batches, found = [nano.batch(4, 12, seed=i) for i in range(5)], {}
    for how in ("plain", "for it"):
        updater = update(4, compiled=True)
        read, updater.transform = updater.transform, None
        for step in range(1, 41):
            updater.step(batches[step % 5], step)
        if how == "for it":
            start = updater
            updater = update(4, compiled=True)
            updater.restore(start.state())
            updater.rewind(start.snapshot())
        updater.schedule = lambda step: 5e-4
        for step in range(41, 66):
            updater.step(batches[step % 5], step)
        updater.transform = read
        with updater.reading():
            found[how] = sum(float(updater.objective.loss(arrays(b))[0]) for b in batches) / 5
    assert found["for it"] < 0.9 * found["plain"], found


def test_what_is_rounded(shape: str) -> None:
    names = {name for name, w in update(4).weights.items() if rounds(name, w)}
    assert len(names) == 2 * 7 and all(".self_attn." in n or ".mlp." in n for n in names)
    moe = nano.model(mlp=Pick("moe", {"experts": 4, "shared": 1}), tie_word_embeddings=False)
    found = {
        n.split("layers.0.")[1] for n in nano.flat(moe) if "layers.0." in n and rounds(n, mx.zeros((2, 2)))
    }
    mlp = {
        f"mlp.{of}{n}_proj{w}"
        for of, w in (("experts.", ""), ("shared.", ".weight"))
        for n in ("gate", "up", "down")
    }
    assert found == mlp | {f"self_attn.{n}_proj.weight" for n in "qkvo"}
    assert not rounds("model.layers.0.mlp.router.weight", mx.zeros((4, 32)))
    assert not rounds("model.layers.0.self_attn.q_proj.bias", mx.zeros((32,)))


def test_it_is_the_same_in_parts_and_compiled() -> None:
    batch = nano.batch(4, 12)
    one = update(4).step(batch, 1)
    for how in ({"accumulate": 4}, {"compiled": True}, {"accumulate": 2, "compiled": True}):
        other = update(4, **how).step(batch, 1)
        for name in ("loss", "grad_norm"):
            assert other[name] == pytest.approx(one[name], rel=1e-4)
    half = update(4, dtype="bfloat16")
    assert half.step(batch, 1)["loss"] == pytest.approx(one["loss"], rel=2e-2), "codes of the whole weights"
    assert all(w.dtype == mx.float32 for w in half.weights.values())


def test_widths_decide_the_group() -> None:
    assert group_size(nano.model(hidden_size=64, intermediate_size=128)) == 64
    assert group_size(nano.model(hidden_size=64, intermediate_size=96)) == 32
    with pytest.raises(ConfigError, match=r"groups of 32 weights, and rows of .*down_proj.weight have 40"):
        group_size(nano.model(hidden_size=64, intermediate_size=40))
    frozen = nano.model()
    frozen.freeze()
    with pytest.raises(ConfigError, match="learns none"):
        group_size(frozen)


def test_a_run_says_what_it_trained_for(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("to be or not to be, that is the question\n" * 30)

    def run(name: str, memory: MemorySink, **changes: Any) -> Path:
        settings = from_dict(pretrain.Config, {
            "corpus": [str(tmp_path / "t.txt")], "out": str(tmp_path / name), "steps": 2, "batch": 2,
            "context": 16, "seed": 1, "compile": False, "held_out": 0.2, **changes,
        })  # fmt: skip
        pretrain.run(settings, Events(memory))
        return tmp_path / name / "final"

    fresh = {"model": {"hidden_size": 32, "num_hidden_layers": 1}}
    memory = MemorySink()
    final = run("qat", memory, qat="int4", **fresh)
    loaded, tokenizer = open_model(final)
    assert (loaded.config.qat_bits, loaded.config.qat_group_size) == (4, 32)
    assert checkpoint.read_json(final / "config.json")["model_type"] == "llama"
    # The held-out loss is that of the network as it will be quantized.
    (told,) = memory.of(Evaluated)
    source = text.build(
        text.Config(paths=(tmp_path / "t.txt",), held_out=0.2), tokenizer, length=16, batch_size=2, seed=1,
        events=Events(),
    )  # fmt: skip
    measure = held_out_loss(next_token.build(loaded.model), source.held_out, 32)
    whole, read = measure(2)["loss"], transform(4, 32)
    rounded_weights = [(name, read(name, w)) for name, w in loaded.tensors().items()]
    loaded.model.update(tree_unflatten(rounded_weights))
    assert told.metrics["loss"] == pytest.approx(measure(2)["loss"], rel=1e-6)
    assert abs(told.metrics["loss"] - whole) > 1e-5
    for shape in nano.SHAPES:
        model = nano.model(shape)
        model.trained_for(BITS["int8"], 32)
        again = checkpoint.load(checkpoint.save(tmp_path / shape, model))
        assert again.config == model.config and again.config.qat_bits == 8
    on = run("on", MemorySink(), base=str(final))
    assert checkpoint.read_config(on).qat_bits == 0, "trained without it since"
    with pytest.raises(ConfigError, match="model.qat_bits says how weights were trained"):
        run("claimed", MemorySink(), model={"qat_bits": 4})
    with pytest.raises(ConfigError, match="an adapter learns beside them"):
        sft.Config(out=Path("x"), data=(Path("y"),), base=Path("z"), qat="int4")
