"""Adapters that peft trained on matrices which are several here: the same logits, or one clear line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mlx.utils import tree_flatten, tree_unflatten

import nano
from e2e.shell import good, refused, tinygpt
from tinygpt.core.backend import mx
from tinygpt.core.errors import CheckpointError
from tinygpt.model import checkpoint
from tinygpt.peft import _layers, _open

pytestmark = pytest.mark.parity
IDS = nano.tokens(2, 20)
GPT2: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96}
PHI3: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "max_position_embeddings": 96,
}  # fmt: skip
SIZES = {"gpt2": GPT2, "phi3": PHI3}
ALL = {"gpt2": ["c_attn", "c_proj", "c_fc"], "phi3": "all-linear"}


def adapted(tmp_path: Path, kind: str, **settings: Any) -> Any:
    """A base and an adapter of peft's on it, saved; the adapted logits."""
    torch, transformers, peft = (nano.require(n) for n in ("torch", "transformers", "peft"))
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(
        kind, vocab_size=64, initializer_range=0.25, bos_token_id=0, eos_token_id=1, pad_token_id=0,
        **SIZES[kind],
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    model.save_pretrained(tmp_path / "base")
    how = peft.LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **settings)
    model = peft.get_peft_model(model, how).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.2)
            elif "magnitude" in name:
                value.mul_(1 + 0.2 * torch.rand_like(value))
        model.save_pretrained(tmp_path / "adapter")
        return model(torch.tensor(IDS, dtype=torch.long)).logits.numpy()


@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize("settings", [{}, {"use_dora": True}, {"use_rslora": True}])
def test_logits_are_pefts(kind: str, settings: dict[str, Any], tmp_path: Path) -> None:
    expected = adapted(tmp_path, kind, target_modules=ALL[kind], **settings)
    model = checkpoint.load(tmp_path / "base").model
    plain = model(mx.array(IDS))
    _open.load([tmp_path / "adapter"], model, base=tmp_path / "base")
    nano.close(model(mx.array(IDS)), expected, 1e-5)
    assert not mx.allclose(plain, model(mx.array(IDS)), atol=1e-2)
    assert len(_layers.adapters(model)) == (12 if kind == "gpt2" else 14)


@pytest.mark.parametrize(("kind", "target"), [("gpt2", "attn.c_proj"), ("phi3", "gate_up_proj")])
def test_some_layers_alone(kind: str, target: str, tmp_path: Path) -> None:
    expected = adapted(tmp_path, kind, target_modules=[target])
    model = checkpoint.load(tmp_path / "base").model
    _open.load([tmp_path / "adapter"], model, base=tmp_path / "base")
    nano.close(model(mx.array(IDS)), expected, 1e-5)


def test_what_does_not_split_is_refused(tmp_path: Path) -> None:
    adapted(tmp_path, "phi3", target_modules=["qkv_proj"], init_lora_weights="pissa")
    model = checkpoint.load(tmp_path / "base").model
    with pytest.raises(CheckpointError, match="several here, pissa starts from it whole"):
        _open.load([tmp_path / "adapter"], model, base=tmp_path / "base")
    assert not _layers.adapters(model)


def test_a_base_of_other_sizes_is_refused(tmp_path: Path) -> None:
    adapted(tmp_path, "phi3", target_modules=["qkv_proj"])
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = dict(mx.load(str(file)))
    name = next(n for n in tensors if "lora_B" in n)
    mx.save_safetensors(str(file), tensors | {name: mx.zeros((60, 4))})
    model = checkpoint.load(tmp_path / "base").model
    with pytest.raises(CheckpointError, match="has 60 rows, and .* have 64"):
        _open.load([tmp_path / "adapter"], model, base=tmp_path / "base")


@pytest.mark.parametrize("kind", SIZES)
def test_logits_are_mlx_lms(kind: str, tmp_path: Path) -> None:
    """mlx_lm has the fused matrices too. Its adapter is put on, and baked."""
    adapted(tmp_path, kind, target_modules=["c_attn"] if kind == "gpt2" else ["qkv_proj"])
    tuner, loading = nano.require("mlx_lm.tuner.utils"), nano.require("mlx_lm.utils")
    file = tmp_path / "base/model.safetensors"  # mlx_lm reads GPT-2 without the prefix, as it was published
    plain = {
        n.removeprefix("transformer."): t for n, t in checkpoint.read_tensors(file.parent, "model").items()
    }
    mx.eval(plain)
    mx.save_safetensors(str(file), plain)
    peer, _ = loading.load_model(tmp_path / "base", model_config={"n_ctx": 96})
    peer.freeze()
    layers = {"gpt2": ["attn.c_attn", "mlp.c_proj"], "phi3": ["self_attn.qkv_proj", "mlp.gate_up_proj"]}
    knobs = {"rank": 4, "scale": 2.0, "dropout": 0.0, "keys": layers[kind]}
    tuner.linear_to_lora_layers(peer, 2, knobs)
    ours = dict(tree_flatten(peer.trainable_parameters()))
    tensors = {
        n: 0.2 * mx.random.normal(v.shape, key=mx.random.key(i)) for i, (n, v) in enumerate(ours.items())
    }
    peer.update(tree_unflatten(list(tensors.items())))
    folder = tmp_path / "theirs"
    folder.mkdir()
    mx.save_safetensors(str(folder / "adapters.safetensors"), tensors)
    settings = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": knobs}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    expected = peer(mx.array(IDS))
    model = checkpoint.load(tmp_path / "base").model
    _open.load([folder], model, base=tmp_path / "base")
    nano.close(model(mx.array(IDS)), expected, 1e-5)
    good("bake-lora", tmp_path / "base", folder, "--out", tmp_path / "baked")
    nano.close(checkpoint.load(tmp_path / "baked").model(mx.array(IDS)), expected, 1e-5)
    again = tinygpt("bake-lora", tmp_path / "base", folder, "--out", tmp_path / "baked")
    refused(again, "exists", hint="choose another --out")
    assert "--force" not in again.err  # which is about another base
    line = ("bake-lora", tmp_path / "base", tmp_path / "base", "--out", tmp_path / "b")
    refused(tinygpt(*line), "is a model, not an adapter")
