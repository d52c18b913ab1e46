"""An adapter of ours opens in peft, and one of peft's in ours, with the same logits."""

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
RUNS = {
    "usual": ({"rank": 4, "alpha": 8}, {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}),
    "all": (
        {"rank": 3, "alpha": 5, "targets": ("all-linear",), "init": "gaussian"},
        {
            "r": 3,
            "lora_alpha": 5,
            "target_modules": "all-linear",
            "init_lora_weights": "gaussian",
            "lora_dropout": 0.1,
        },
    ),
    "one-layer": (
        {"rank": 2, "alpha": 0.5, "targets": ("layers.1.mlp.up_proj", "lm_head")},
        {"r": 2, "lora_alpha": 1, "target_modules": r".*layers\.1\.mlp\.(up|down)_proj"},
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


@pytest.mark.parametrize("run", RUNS)
def test_ours_opens_in_peft(run: str, base: Path, tmp_path: Path) -> None:
    peft = nano.require("peft")
    pick = Pick("lora", RUNS[run][0])
    model = checkpoint.load(base).model
    _adapter.attach(model, pick, seed=3)
    fresh = enumerate(_adapter.tensors(model).items())
    drawn = [(n, 0.3 * mx.random.normal(w.shape, key=mx.random.key(i))) for i, (n, w) in fresh]
    model.update(tree_unflatten(drawn))
    path = _adapter.save_adapter(tmp_path / "a.lora", model, pick, base=base)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        opened = peft.PeftModel.from_pretrained(hf(base), path)
    assert not [w for w in caught if "missing" in str(w.message).lower()], "peft found every tensor"
    expected = model(mx.array(IDS))
    nano.close(theirs(opened), expected, 1e-5)
    nano.close(theirs(opened.merge_and_unload()), expected, 1e-5)
    assert np.abs(theirs(hf(base)) - np.array(expected)).max() > 0.01


@pytest.mark.parametrize("run", RUNS)
def test_theirs_opens_in_ours(run: str, base: Path, tmp_path: Path) -> None:
    torch, peft = nano.require("torch"), nano.require("peft")
    torch.manual_seed(1)
    tuned = peft.get_peft_model(hf(base), peft.LoraConfig(**RUNS[run][1]))
    with torch.no_grad():
        for name, p in tuned.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.3)
    tuned.save_pretrained(tmp_path / "theirs")
    model = checkpoint.load(base).model
    loaded = _adapter.load_adapter(tmp_path / "theirs", model)
    assert loaded.manifest == {} and loaded.pick.options.rank == RUNS[run][1]["r"]
    nano.close(model(mx.array(IDS)), theirs(tuned), 1e-5)
    # And on from here: saved by us, it is peft's again.
    path = _adapter.save_adapter(tmp_path / "again", model, loaded.pick, base=base)
    nano.close(theirs(peft.PeftModel.from_pretrained(hf(base), path)), np.array(model(mx.array(IDS))), 1e-5)
    _adapter.fuse(model)
    nano.close(model(mx.array(IDS)), theirs(tuned), 1e-5)


@pytest.mark.parametrize("feature", ["use_dora", "use_rslora", "bias", "rank_pattern", "modules_to_save"])
def test_features_we_lack_are_refused_by_name(feature: str, base: Path, tmp_path: Path) -> None:
    peft = nano.require("peft")
    value = {"bias": "all", "rank_pattern": {"q_proj": 2}, "modules_to_save": ["lm_head"]}.get(feature, True)
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], **{feature: value})
    peft.get_peft_model(hf(base), config).save_pretrained(tmp_path / "theirs")
    with pytest.raises(CheckpointError, match=feature):
        _adapter.load_adapter(tmp_path / "theirs", checkpoint.load(base).model)


def test_a_gpt2_shaped_adapter_is_not_announced_to_peft(tmp_path: Path) -> None:
    """q, k and v are one matrix there, so peft could not place it; it opens in tinygpt."""
    model = nano.model("gpt2")
    base = checkpoint.save(tmp_path / "base", model)
    _adapter.attach(model, Pick("lora"))
    path = _adapter.save_adapter(tmp_path / "a", model, Pick("lora"), base=base)
    with pytest.raises(ValueError, match="[Tt]arget modules"):
        nano.require("peft").PeftModel.from_pretrained(hf(base), path)
