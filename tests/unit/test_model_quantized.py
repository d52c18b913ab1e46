"""Packed matrices: products and gradients are those of the matrix they stand for, whichever way is taken."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlx.utils import tree_flatten, tree_unflatten

import nano
from tinygpt.core.backend import mx, nn
from tinygpt.core.config import Pick
from tinygpt.core.errors import CheckpointError, ConfigError
from tinygpt.model import checkpoint, quantized, weights
from tinygpt.model.lm import LM
from tinygpt.model.quantized import MODES, Packing

IDS = mx.array(nano.tokens(2, 20))
QUICK = {("affine", 4), ("mxfp4", 4)}
FORMS = [
    pytest.param(
        Packing(bits=bits, mode=mode), id=f"{mode}-{bits}",
        marks=[] if (mode, bits) in QUICK else [pytest.mark.wide],
    )
    for mode, (_, all_) in MODES.items()
    for bits in all_
]  # fmt: skip


class Two(nn.Module):
    """A matrix with a bias and an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.embed = nn.Linear(128, 96), nn.Embedding(50, 128)


def two(how: Packing) -> tuple[Two, mx.array, mx.array]:
    """The packed module, and the dense matrices that its parts stand for."""
    module = Two()
    shapes = {"linear": (96, 128), "embed": (50, 128)}
    drawn = {n: mx.random.normal(s, key=mx.random.key(i)) for i, (n, s) in enumerate(shapes.items())}
    bias = mx.random.normal((96,), key=mx.random.key(5))
    quantized.place(module, dict.fromkeys(drawn, how), mx.float32)
    made = [
        (f"{n}.{part}", value) for n, w in drawn.items() for part, value in zip(quantized.PARTS, how.pack(w))
    ]
    module.update(tree_unflatten([*made, ("linear.bias", bias)]))
    return module, quantized.dense(module.linear), quantized.dense(module.embed)


@pytest.mark.parametrize("how", FORMS)
def test_products_and_gradients_are_those_of_the_dense_matrix(
    how: Packing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantized, "BLOCK", 128 * 40)  # several blocks of rows, the last one shorter
    module, w, e = two(how)
    x = mx.random.normal((3, 7, 128), key=mx.random.key(9))

    def packed(x: mx.array) -> mx.array:
        return mx.sin(module.linear(x)).sum() + mx.cos(module.embed.as_linear(x)).sum()

    def plain(x: mx.array) -> mx.array:
        return mx.sin(x @ w.T + module.linear.bias).sum() + mx.cos(x @ e.T).sum()

    nano.close(module.linear(x), x @ w.T + module.linear.bias, 1e-5)
    nano.close(module.embed.as_linear(x), x @ e.T, 1e-5)
    nano.close(mx.grad(packed)(x), mx.grad(plain)(x), 1e-5)
    if how.bits == 8:  # compiling takes seconds
        nano.close(mx.compile(mx.grad(packed))(x), mx.grad(plain)(x), 1e-5)
    ids = mx.array([[3, 1], [49, 0]])
    assert mx.array_equal(module.embed(ids), e[ids]) and module.embed(ids).dtype == mx.float32


def test_a_row_alone_and_many_rows_agree() -> None:
    module, w, _ = two(Packing())
    x = mx.random.normal((64, 128), key=mx.random.key(9))
    one = mx.concatenate([module.linear(x[i : i + 1]) for i in range(8)])
    nano.close(one, module.linear(x)[:8], 1e-5)
    kernel = nn.QuantizedLinear.__call__(module.linear, x)
    nano.close(kernel, module.linear(x), 1e-5)
    half = module.linear(x.astype(mx.bfloat16))
    assert half.dtype == mx.float32  # the bias is
    nano.close(half, x @ w.T + module.linear.bias, 2e-2)


def test_a_recomputed_block_gives_the_same_gradient() -> None:
    module, _, _ = two(Packing())
    x = mx.random.normal((16, 128), key=mx.random.key(9))
    again = mx.checkpoint(lambda x: mx.sin(module.linear(x)))
    nano.close(
        mx.grad(lambda x: again(x).sum())(x), mx.grad(lambda x: mx.sin(module.linear(x)).sum())(x), 1e-6
    )


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"bits": 7}, "affine has 2, 3, 4, 5, 6, 8 bits a weight, not 7"),
        ({"group_size": 16}, "affine has groups of 32, 64, 128 weights, not 16"),
        ({"mode": "mxfp4", "bits": 8}, "mxfp4 has 4 bits a weight, not 8"),
        ({"mode": "int4"}, "no mode is called 'int4'"),
    ],
)
def test_forms_that_do_not_exist(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Packing(**given)  # type: ignore[arg-type]


def test_the_usual_form_of_a_mode() -> None:
    assert Packing() == Packing(bits=4, group_size=64) and Packing(mode="mxfp8") == Packing(
        bits=8, group_size=32, mode="mxfp8"
    )
    assert Packing(mode="nvfp4").table() == {"bits": 4, "group_size": 16, "mode": "nvfp4"}


def test_a_packed_model_is_saved_and_read_as_it_is(tmp_path: Path) -> None:
    base = checkpoint.save(tmp_path / "base", nano.model(tie_word_embeddings=False))
    model = checkpoint.load(base, packing=Packing(bits=4, group_size=32)).model
    packed = set(quantized.packed(model))
    assert {"lm_head", "model.embed_tokens", "model.layers.1.mlp.up_proj"} <= packed
    path = checkpoint.save(tmp_path / "packed", model)
    again = checkpoint.load(path)
    assert set(quantized.packed(again.model)) == packed
    assert mx.array_equal(again.model(IDS), model(IDS))
    table = checkpoint.read_json(path / "config.json")["quantization"]
    assert table == {"bits": 4, "group_size": 32, "mode": "affine", **_left(table)}
    with pytest.raises(ConfigError, match="quantized already, .* is asked for"):
        checkpoint.load(path, packing=Packing(bits=8, group_size=32))
    checkpoint.load(path, packing=Packing(bits=4, group_size=32))  # the same: nothing to do


def _left(table: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in table.items() if value is False}


def test_matrices_that_cannot_be_packed_stay(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path / "m", nano.model(intermediate_size=80))
    model = checkpoint.load(path, packing=Packing(group_size=32)).model
    layer = model.layers[0]
    assert type(layer.mlp.down_proj) is nn.Linear  # rows of 80 weights do not divide into groups of 32
    assert isinstance(layer.mlp.up_proj, quantized.PackedLinear)
    again = checkpoint.load(checkpoint.save(tmp_path / "p", model)).model
    assert mx.array_equal(again(IDS), model(IDS))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda d: d["quantization"].update(bits=8), "weight has shape"),
        (lambda d: d["quantization"].update(bits=7), "affine has 2, 3, 4, 5, 6, 8 bits a weight, not 7"),
        (lambda d: (d.pop("quantization"), d.pop("quantization_config")), "is packed, and config.json does"),
        (lambda d: d["quantization"].update({"model.layers.0.mlp.up_proj": {"bits": 2, "group_size": 32}}),
         "model.layers.0.mlp.up_proj.weight has shape"),
    ],
)  # fmt: skip
def test_a_config_that_says_otherwise(change: object, sentence: str, tmp_path: Path) -> None:
    base = checkpoint.save(tmp_path / "base", nano.model())
    path = checkpoint.save(tmp_path / "p", checkpoint.load(base, packing=Packing(group_size=32)).model)
    (path / "tinygpt.json").unlink()
    data = checkpoint.read_json(path / "config.json")
    change(data)  # type: ignore[operator]
    checkpoint.files.write_json(path / "config.json", data)
    with pytest.raises(CheckpointError, match=sentence):
        checkpoint.load(path)


def test_half_precision_is_kept_where_asked_for(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path / "m", nano.model(), dtype="bfloat16")
    for dtype, kept in (("stored", mx.bfloat16), ("float16", mx.float16), ("float32", mx.float32)):
        loaded = checkpoint.load(path, dtype=dtype)
        assert {w.dtype for _, w in tree_flatten(loaded.model.parameters())} == {kept}
        assert loaded.model(IDS).dtype == kept
    usual = {w.dtype for _, w in tree_flatten(checkpoint.load(path).model.parameters())}
    assert usual == {weights.wide("auto") or mx.bfloat16}


@pytest.mark.wide
def test_reading_never_holds_a_second_copy(tmp_path: Path) -> None:
    sizes = {"hidden_size": 256, "num_hidden_layers": 6, "intermediate_size": 768}
    path = checkpoint.save(tmp_path / "m", nano.model(**sizes), dtype="bfloat16")
    n = sum(w.size for _, w in tree_flatten(nano.model(**sizes).parameters()))
    nano.DRAWN.clear()
    peaks = {}
    for name, how in {"wide": {}, "stored": {"dtype": "stored"}, "packed": {"packing": Packing()}}.items():
        mx.clear_cache()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        model = checkpoint.load(path, **how).model  # type: ignore[arg-type]
        peaks[name] = (mx.get_peak_memory() - before) / n
        del model
    # Bytes a weight, and room for the largest matrix in both forms.
    assert peaks["stored"] < 2.3 and peaks["wide"] < 4.5 and peaks["packed"] < 1.2, peaks


def test_experts_are_stacked_one_stack_after_the_other(tmp_path: Path) -> None:
    """Files that have each expert apart are read without all of them beside all stacks."""
    mlp = Pick("moe", {"experts": 4, "width": 256, "dense_layers": ()})
    model = nano.model(hidden_size=128, num_hidden_layers=6, intermediate_size=256, mlp=mlp)
    path = checkpoint.save(tmp_path / "m", model)
    assert any("experts.3." in name for name in mx.load(str(path / "model.safetensors")))
    n = sum(w.nbytes for _, w in tree_flatten(model.parameters()))
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    checkpoint.load(path, dtype="stored")
    assert (mx.get_peak_memory() - before) / n < 1.2


@pytest.mark.parametrize("mlp", ["moe", "moe_dense"])
def test_experts_are_packed_as_stacks(mlp: str, tmp_path: Path) -> None:
    base = checkpoint.save(tmp_path / "m", nano.model(mlp=Pick(mlp, {"experts": 4}), hidden_size=64))
    how = Packing(group_size=32)
    model, plain = checkpoint.load(base, packing=how).model, checkpoint.load(base).model
    found = quantized.packed(model)
    stacks = quantized.stacks(plain)
    assert len(stacks) == 6 and set(stacks) <= set(found) and not quantized.stacks(model)
    assert not any("router" in name for name in found)
    dense = {n if n in stacks else f"{n}.weight": quantized.dense(m) for n, m in found.items()}
    plain.update(tree_unflatten(list(dense.items())))
    nano.close(model(IDS), plain(IDS), 1e-4)

    def below(lm: LM) -> mx.array:
        def loss(shift: mx.array) -> mx.array:
            def tap(name: str, x: mx.array) -> mx.array:
                return x + shift if name == "blocks.0.hook_resid_pre" else x

            return mx.sin(lm(IDS, tap=tap)).sum()

        return mx.grad(loss)(mx.zeros((2, 20, 64)))

    nano.close(below(model), below(plain), 1e-3)
    again = checkpoint.load(checkpoint.save(tmp_path / "p", model)).model
    assert set(quantized.packed(again)) == set(found) and mx.array_equal(again(IDS), model(IDS))
