"""mlx-lm's adapters open here, and ours open there, with the same logits; several at once are peft's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

import nano
from tinygpt.core.backend import mx, nn
from tinygpt.core.config import Pick
from tinygpt.core.errors import CheckpointError, UnsupportedError
from tinygpt.model import checkpoint
from tinygpt.model.lm import LM
from tinygpt.peft import _adapter, _open
from tinygpt.runs import convert_adapter

pytestmark = pytest.mark.parity
IDS = nano.tokens(2, 20)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return checkpoint.save(tmp_path / "base", nano.model(tie_word_embeddings=False))


def stirred(model: Any, tensors: dict[str, mx.array]) -> None:
    model.update(
        tree_unflatten(
            [
                (n, w + 0.3 * mx.random.normal(w.shape, key=mx.random.key(i)))
                for i, (n, w) in enumerate(sorted(tensors.items()))
            ]
        )
    )


def theirs(base: Path) -> Any:
    nano.require("mlx_lm")
    from mlx_lm.utils import load_model

    return load_model(base)[0]


def written(base: Path, path: Path, kind: str, keys: list[str] | None, layers: int) -> Any:
    """An adapter as mlx-lm's trainer writes it, and its model."""
    model = theirs(base)
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import save_config

    knobs = {"rank": 3, "scale": 7.5, "dropout": 0.0} | ({"keys": keys} if keys else {})
    mx.random.seed(3)  # mlx-lm draws from the global state
    model.freeze()
    linear_to_lora_layers(model, layers, knobs, use_dora=kind == "dora")
    stirred(model, dict(tree_flatten(model.trainable_parameters())))
    path.mkdir()
    mx.save_safetensors(str(path / "adapters.safetensors"), dict(tree_flatten(model.trainable_parameters())))
    config = {"fine_tune_type": kind, "num_layers": layers, "lora_parameters": knobs, "model": str(base)}
    save_config(config, path / "adapter_config.json")
    return model


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize(
    ("keys", "layers"),
    [(None, -1), (["self_attn.q_proj", "mlp.down_proj"], 1), (["self_attn.v_proj", "lm_head"], 2)],
)
def test_theirs_opens_in_ours(
    kind: str, keys: list[str] | None, layers: int, base: Path, tmp_path: Path
) -> None:
    expected = written(base, tmp_path / "a", kind, keys, layers)(mx.array(IDS))
    model = checkpoint.load(base).model
    before = model(mx.array(IDS))
    loaded = _open.load([tmp_path / "a"], model, base=base)[0]
    assert loaded.pick.name == kind and loaded.pick.options.rank == 3
    nano.close(model(mx.array(IDS)), expected, 1e-5)
    assert np.abs(np.array(expected) - np.array(before)).max() > 0.01
    path = convert_adapter.run(tmp_path / "a", out=tmp_path / "ours")["out"]
    again = checkpoint.load(base).model
    _adapter.load_adapter(Path(path), again, base=base)
    nano.close(again(mx.array(IDS)), model(mx.array(IDS)), 1e-5)


def test_an_embedding_of_theirs(base: Path, tmp_path: Path) -> None:
    expected = written(base, tmp_path / "a", "lora", ["model.embed_tokens", "self_attn.q_proj"], 2)(
        mx.array(IDS)
    )
    model = checkpoint.load(base).model
    _open.load([tmp_path / "a"], model, base=base)
    nano.close(model(mx.array(IDS)), expected, 1e-5)


def test_embeddings_that_it_adapts_in_another_way_are_refused(base: Path, tmp_path: Path) -> None:
    written(base, tmp_path / "a", "dora", ["model.embed_tokens", "self_attn.q_proj"], 2)
    with pytest.raises(CheckpointError, match="model.embed_tokens is an embedding with a length for each"):
        _open.load([tmp_path / "a"], checkpoint.load(base).model, base=base)
    tied = checkpoint.save(tmp_path / "tied", nano.model())
    for i, (at, name, knobs) in enumerate(
        ((base, "dora", {}), (tied, "lora", {"tied": False}), (tied, "dora", {}))
    ):
        tuned(at, tmp_path / f"ours{i}", name, targets=("embed_tokens",), **knobs)
        with pytest.raises(UnsupportedError, match="mlx-lm has no form of the adapter of model.embed_tokens"):
            convert_adapter.run(tmp_path / f"ours{i}", out=tmp_path / "x", format="mlx")
    tuned(base, tmp_path / "loftq", "loftq", group_size=32)
    for format in ("mlx", "tgla"):
        with pytest.raises(UnsupportedError, match="changes the base's matrices too"):
            convert_adapter.run(tmp_path / "loftq", out=tmp_path / "x", format=format)
    assert not (tmp_path / "x").exists()


def tuned(base: Path, path: Path, name: str, **knobs: Any) -> LM:
    model = checkpoint.load(base).model
    _adapter.attach(model, Pick(name, knobs), seed=3)
    stirred(model, _adapter.tensors(model))
    _adapter.save_adapter(path, model, Pick(name, knobs), base=base)
    return model


@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("lora", {"rank": 3, "alpha": 5, "targets": ("all-linear",)}),
        ("lora", {"targets": ("layers.1.mlp.up_proj", "embed_tokens")}),
        ("dora", {"rank": 2}),
        ("rslora", {"rank": 9}),
        ("pissa", {"rank": 2}),
        ("vera", {"rank": 12}),
        ("adalora", {"rank": 2}),
    ],
)
@pytest.mark.parametrize("bits", [0, 8])
def test_ours_opens_in_mlx_lm(
    name: str, knobs: dict[str, Any], bits: int, base: Path, tmp_path: Path
) -> None:
    ours = tuned(base, tmp_path / "a", name, **knobs)
    found = convert_adapter.run(tmp_path / "a", out=tmp_path / "mlx", format="mlx")
    assert found["layers"] == len(_adapter.adapters(ours))
    model = theirs(base)
    if bits:
        ours = checkpoint.load(base).model
        for dense in (model, ours):
            nn.quantize(dense, group_size=32, bits=bits)
        _adapter.load_adapter(tmp_path / "a", ours, base=base)
    from mlx_lm.tuner.utils import load_adapters

    load_adapters(model, str(tmp_path / "mlx"))
    nano.close(model(mx.array(IDS)), ours(mx.array(IDS)), 1e-5)


def test_several_are_pefts(base: Path, tmp_path: Path) -> None:
    """add_weighted_adapter (linear over ranks: cat) and set_adapter([..])."""
    torch, peft, transformers = (nano.require(n) for n in ("torch", "peft", "transformers"))
    tuned(base, tmp_path / "a", "lora", rank=3, alpha=7)
    tuned(base, tmp_path / "b", "lora", rank=5, targets=("all-linear",))
    hf = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(hf, tmp_path / "a", adapter_name="a")
    model.load_adapter(tmp_path / "b", adapter_name="b")

    def logits() -> np.ndarray:
        with torch.no_grad():
            return model.eval()(torch.tensor(IDS, dtype=torch.long)).logits.numpy()

    both = checkpoint.load(base).model
    _open.load([tmp_path / "a", tmp_path / "b"], both, base=base)
    model.base_model.set_adapter(["a", "b"])
    nano.close(both(mx.array(IDS)), logits(), 1e-5)
    model.add_weighted_adapter(["a", "b"], [0.7, 0.3], "mix", combination_type="cat")
    model.set_adapter("mix")
    mixed = checkpoint.load(base).model
    _open.load([tmp_path / "a", tmp_path / "b"], mixed, base=base, weights=[0.7, 0.3])
    nano.close(mixed(mx.array(IDS)), logits(), 1e-5)
