"""VeRA, AdaLoRA and IA3: ours opens in peft, and peft's in ours, with the same logits."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_unflatten

import nano
from tinygpt.core.backend import mx
from tinygpt.core.config import Pick
from tinygpt.core.errors import CheckpointError
from tinygpt.model import checkpoint
from tinygpt.peft import _adapter

pytestmark = pytest.mark.parity
IDS = nano.tokens(2, 20)
MLP = ("gate_proj", "up_proj", "down_proj")
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "vera": ("vera", {"rank": 12}),
    "vera-all": ("vera", {"rank": 40, "targets": ("all-linear",), "d_initial": 0.5}),
    "adalora": ("adalora", {"rank": 3, "alpha": 5}),
    "adalora-all": ("adalora", {"rank": 2, "init_rank": 6, "targets": ("all-linear",)}),
    "ia3": ("ia3", {}),
    "ia3-all": ("ia3", {"targets": ("all-linear",), "feedforward": MLP}),
    "ia3-out": ("ia3", {"targets": ("layers.1.mlp.up_proj",), "feedforward": ()}),
}
THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "vera": ("VeraConfig", {"r": 12, "target_modules": ["q_proj", "v_proj"]}),
    "vera-all": ("VeraConfig", {"r": 40, "target_modules": "all-linear", "d_initial": 0.5}),
    "adalora": (
        "AdaLoraConfig",
        {"target_r": 3, "init_r": 5, "lora_alpha": 5, "target_modules": ["q_proj"], "total_step": 10},
    ),
    "ia3": (
        "IA3Config",
        {"target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    ),
    "ia3-pattern": (
        "IA3Config",
        {"target_modules": r".*\.1\..*(up|down)_proj", "feedforward_modules": r".*\.down_proj"},
    ),
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return checkpoint.save(tmp_path / "base", nano.model(tie_word_embeddings=False))


def hf(base: Path) -> Any:
    torch, transformers = nano.require("torch"), nano.require("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)


def theirs(model: Any) -> np.ndarray:
    torch = nano.require("torch")
    with torch.no_grad():
        return model.eval()(torch.tensor(IDS, dtype=torch.long)).logits.numpy()


def opened(base: Path, path: Path) -> Any:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = nano.require("peft").PeftModel.from_pretrained(hf(base), path)
    assert not [w for w in caught if "missing" in str(w.message).lower()], "peft found every tensor"
    return model


def stir(model: Any) -> None:
    """Values far from the start."""
    drawn = [
        (n, w + 0.3 * mx.random.normal(w.shape, key=mx.random.key(i)))
        for i, (n, w) in enumerate(_adapter.tensors(model).items())
    ]
    model.update(tree_unflatten(drawn))


@pytest.mark.parametrize("run", OURS)
def test_ours_opens_in_peft(run: str, base: Path, tmp_path: Path) -> None:
    pick, model = Pick(*OURS[run]), checkpoint.load(base).model
    _adapter.attach(model, pick, seed=3)
    stir(model)
    path = _adapter.save_adapter(tmp_path / "a.lora", model, pick, base=base)
    tuned, expected = opened(base, path), model(mx.array(IDS))
    nano.close(theirs(tuned), expected, 1e-5)
    nano.close(theirs(tuned.merge_and_unload()), expected, 1e-5)
    assert np.abs(theirs(hf(base)) - np.array(expected)).max() > 0.01


@pytest.mark.parametrize("run", THEIRS)
def test_theirs_opens_in_ours(run: str, base: Path, tmp_path: Path) -> None:
    torch, peft = nano.require("torch"), nano.require("peft")
    torch.manual_seed(1)
    config, settings = THEIRS[run]
    tuned = peft.get_peft_model(hf(base), getattr(peft, config)(**settings))
    with torch.no_grad():
        for name, p in tuned.named_parameters():
            if p.requires_grad and "ranknum" not in name:
                p.add_(0.3 * torch.randn(p.shape))
    tuned.save_pretrained(tmp_path / "theirs")
    model = checkpoint.load(base).model
    loaded = _adapter.load_adapter(tmp_path / "theirs", model)
    assert loaded.manifest == {} and loaded.pick.name == run.split("-")[0]
    nano.close(model(mx.array(IDS)), theirs(tuned), 1e-5)
    path = _adapter.save_adapter(tmp_path / "again", model, loaded.pick, base=base)
    nano.close(theirs(opened(base, path)), np.array(model(mx.array(IDS))), 1e-5)
    _adapter.fuse(model)
    nano.close(model(mx.array(IDS)), theirs(tuned), 1e-5)


def test_an_adalora_that_gave_values_up(base: Path, tmp_path: Path) -> None:
    """rank_pattern both ways: a matrix that keeps some, one that keeps none, one that keeps all."""
    model, pick = checkpoint.load(base).model, Pick("adalora", {"rank": 2, "init_rank": 3})
    names = _adapter.attach(model, pick, seed=3)
    stir(model)
    keeps = dict(zip(names, ([1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]), strict=True))
    for name, module in _adapter.adapters(model).items():
        module.lora_E = module.lora_E * mx.array(keeps[name])[:, None]
    path = _adapter.save_adapter(tmp_path / "a", model, pick, base=base)
    pattern = checkpoint.read_json(path / "adapter_config.json")["rank_pattern"]
    assert {n.removesuffix(".lora_E"): v for n, v in pattern.items()} == keeps
    tuned, expected = opened(base, path), model(mx.array(IDS))
    nano.close(theirs(tuned), expected, 1e-5)
    tuned.save_pretrained(tmp_path / "theirs")
    fresh = checkpoint.load(base).model
    _adapter.load_adapter(tmp_path / "theirs", fresh)
    nano.close(fresh(mx.array(IDS)), expected, 1e-6)


def test_an_adalora_that_peft_trained_and_pruned(base: Path, tmp_path: Path) -> None:
    torch, peft = nano.require("torch"), nano.require("peft")
    torch.manual_seed(1)
    config = peft.AdaLoraConfig(
        target_r=2, init_r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], total_step=8, tinit=1,
        tfinal=2, deltaT=1, task_type="CAUSAL_LM",
    )  # fmt: skip
    tuned = peft.get_peft_model(hf(base), config)
    optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=2e-2)
    ids = torch.tensor(IDS, dtype=torch.long)
    for step in range(8):
        tuned(ids, labels=ids).loss.backward()
        optimizer.step()
        tuned.base_model.update_and_allocate(step)
        optimizer.zero_grad()
    tuned.save_pretrained(tmp_path / "theirs")
    model = checkpoint.load(base).model
    _adapter.load_adapter(tmp_path / "theirs", model)
    reread = opened(base, tmp_path / "theirs")
    nano.close(model(mx.array(IDS)), theirs(reread), 1e-5)


def test_a_vera_without_its_pair_is_refused(base: Path, tmp_path: Path) -> None:
    peft = nano.require("peft")
    config = peft.VeraConfig(r=4, target_modules=["q_proj"], save_projection=False)
    peft.get_peft_model(hf(base), config).save_pretrained(tmp_path / "theirs")
    with pytest.raises(CheckpointError, match="save_projection"):
        _adapter.load_adapter(tmp_path / "theirs", checkpoint.load(base).model)
