"""An adapter of ours opens in peft, and one of peft's in ours, with the same logits."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_unflatten

import nano
from tinygpt.core.backend import mx, nn
from tinygpt.core.config import Pick
from tinygpt.core.errors import CheckpointError, UnsupportedError
from tinygpt.model import checkpoint
from tinygpt.peft import _adapter, _layers

pytestmark = pytest.mark.parity
IDS = nano.tokens(2, 20)
# Ours and peft's settings of the same adapter. With PiSSA and OLoRA peft opens ours as a plain LoRA.
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
    "rslora": (
        {"rank": 4, "alpha": 8, "targets": ("q_proj", "o_proj")},
        {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "o_proj"], "use_rslora": True},
    ),
    "lora_fa": ({"rank": 4, "alpha": 8}, {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}),
    "dora": (
        {"rank": 4, "alpha": 8, "targets": ("all-linear",), "exclude": ("o_proj",)},
        {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": "all-linear",
            "exclude_modules": ["o_proj"],
            "use_dora": True,
        },
    ),
    "dora-rslora": (
        {"rank": 4, "alpha": 8, "rslora": True},
        {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "use_dora": True, "use_rslora": True},
    ),
    "pissa": (
        {"rank": 4, "alpha": 6, "targets": ("q_proj", "down_proj")},
        {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"], "init_lora_weights": "pissa"},
    ),
    "olora": (
        {"rank": 4, "alpha": 6, "targets": ("q_proj", "down_proj")},
        {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"], "init_lora_weights": "olora"},
    ),
    "embedding": (
        {"rank": 4, "alpha": 8, "targets": ("embed_tokens", "q_proj")},
        {"r": 4, "lora_alpha": 8, "target_modules": ["embed_tokens", "q_proj"]},
    ),
    "dora-embedding": (
        {"rank": 4, "alpha": 8, "targets": ("embed_tokens", "q_proj")},
        {"r": 4, "lora_alpha": 8, "target_modules": ["embed_tokens", "q_proj"], "use_dora": True},
    ),
    "pissa-embedding": ({"rank": 4, "alpha": 8, "targets": ("embed_tokens",), "niter": 2}, None),
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


def name_of(run: str) -> str:
    first = run.partition("-")[0]
    return first if first in _adapter.PEFT.names() else "lora"


@pytest.mark.parametrize("run", RUNS)
def test_ours_opens_in_peft(run: str, base: Path, tmp_path: Path) -> None:
    peft = nano.require("peft")
    pick = Pick(name_of(run), RUNS[run][0])
    model = checkpoint.load(base).model
    _adapter.attach(model, pick, seed=3)
    fresh = enumerate(_adapter.tensors(model).items())
    drawn = [(n, w + 0.3 * mx.random.normal(w.shape, key=mx.random.key(i))) for i, (n, w) in fresh]
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


@pytest.mark.parametrize("run", [run for run, (_, theirs) in RUNS.items() if theirs])
def test_theirs_opens_in_ours(run: str, base: Path, tmp_path: Path) -> None:
    torch, peft = nano.require("torch"), nano.require("peft")
    torch.manual_seed(1)
    tuned = peft.get_peft_model(hf(base), peft.LoraConfig(**RUNS[run][1]))
    with torch.no_grad():
        for p in tuned.parameters():
            if p.requires_grad:
                p.add_(0.3 * torch.randn_like(p))
    tuned.save_pretrained(tmp_path / "theirs")
    model = checkpoint.load(base).model
    loaded = _adapter.load_adapter(tmp_path / "theirs", model)
    assert loaded.manifest == {} and loaded.pick.options.rank == RUNS[run][1]["r"]
    assert loaded.pick.name == {"lora_fa": "lora"}.get(name_of(run), name_of(run))
    # Where the start is made again, it is by another library's decomposition.
    nano.close(model(mx.array(IDS)), theirs(tuned), 1e-4 if name_of(run) in ("pissa", "olora") else 1e-5)
    # And on from here: saved by us, it is peft's again.
    path = _adapter.save_adapter(tmp_path / "again", model, loaded.pick, base=base)
    nano.close(theirs(peft.PeftModel.from_pretrained(hf(base), path)), np.array(model(mx.array(IDS))), 1e-5)
    _adapter.fuse(model)
    nano.close(model(mx.array(IDS)), theirs(tuned), 1e-4)


@pytest.mark.parametrize("feature", ["lora_bias", "bias", "rank_pattern", "modules_to_save"])
def test_features_we_lack_are_refused_by_name(feature: str, base: Path, tmp_path: Path) -> None:
    peft = nano.require("peft")
    value = {"bias": "all", "rank_pattern": {"q_proj": 2}, "modules_to_save": ["lm_head"]}.get(feature, True)
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], **{feature: value})
    peft.get_peft_model(hf(base), config).save_pretrained(tmp_path / "theirs")
    with pytest.raises(CheckpointError, match=feature):
        _adapter.load_adapter(tmp_path / "theirs", checkpoint.load(base).model)


@pytest.mark.parametrize("name", ["lora", "rslora", "dora", "lora_fa", "pissa", "olora"])
def test_one_of_a_4_bit_base_opens_over_its_dense_form(name: str, tmp_path: Path) -> None:
    """peft cannot hold MLX's packed matrices; over what they stand for it computes the same."""
    model = nano.model(tie_word_embeddings=False)
    nn.quantize(model, group_size=32, bits=4, class_predicate=lambda _, m: isinstance(m, nn.Linear))
    dense = nano.model(tie_word_embeddings=False)
    matrices = [(f"{n}.weight", _layers.dense(m)) for n, m in _layers.layers(model).items()]
    dense.update(tree_unflatten(matrices))
    base = checkpoint.save(tmp_path / "base", dense)
    pick = Pick(name, {"rank": 4, "targets": ("all-linear",)})
    _adapter.attach(model, pick, seed=3)
    moved = [(n, w + 0.1 * mx.random.normal(w.shape)) for n, w in _adapter.tensors(model).items()]
    model.update(tree_unflatten(moved))
    path = _adapter.save_adapter(tmp_path / "a", model, pick, base=base)
    opened = nano.require("peft").PeftModel.from_pretrained(hf(base), path)
    nano.close(theirs(opened), model(mx.array(IDS)), 1e-5)


@pytest.mark.parametrize("name", ["lora", "rslora", "pissa"])
def test_a_tied_embedding_is_adapted_in_both_uses(name: str, tmp_path: Path) -> None:
    """peft ties what it adds with ensure_weight_tying; without, its input table alone is adapted, as ours."""
    peft, torch = nano.require("peft"), nano.require("torch")
    model = nano.model(tie_word_embeddings=True)
    base = checkpoint.save(tmp_path / "base", model)
    pick = Pick(name, {"rank": 4, "targets": ("embed_tokens", "q_proj")})
    _adapter.attach(model, pick, seed=3)
    moved = [(n, w + 0.1 * mx.random.normal(w.shape)) for n, w in _adapter.tensors(model).items()]
    model.update(tree_unflatten(moved))
    path = _adapter.save_adapter(tmp_path / "a", model, pick, base=base)
    expected = model(mx.array(IDS))
    nano.close(theirs(peft.PeftModel.from_pretrained(hf(base), path)), expected, 1e-5)
    out = _adapter.fuse(model)
    nano.close(model(mx.array(IDS)), expected, 1e-4)
    _adapter.unfuse(model, out)

    for tie in (True, False):
        config = peft.LoraConfig(r=4, target_modules=["embed_tokens"], ensure_weight_tying=tie)
        tuned = peft.get_peft_model(hf(base), config)
        with torch.no_grad():
            for tensor, p in tuned.named_parameters():
                if "lora_embedding" in tensor:
                    p.add_(0.1 * torch.randn_like(p))
        tuned.save_pretrained(tmp_path / f"theirs{tie}")
        opened = checkpoint.load(base).model
        assert _adapter.load_adapter(tmp_path / f"theirs{tie}", opened).pick.options.tied == tie
        nano.close(opened(mx.array(IDS)), theirs(tuned), 1e-5)
    with pytest.raises(UnsupportedError, match="also the output matrix"):
        _adapter.fuse(opened)
    other = nano.model(seed=5, tie_word_embeddings=True)
    with pytest.raises(CheckpointError, match=r"base_layer\.weight is not what the base has there"):
        _adapter.load_adapter(tmp_path / "theirsTrue", other)


def test_loftq_is_not_announced_to_peft(base: Path, tmp_path: Path) -> None:
    """Its matrices are quantized, which peft's file cannot say: peft refuses the type it does not know."""
    model, pick = checkpoint.load(base).model, Pick("loftq", {"targets": ("q_proj",)})
    _adapter.attach(model, pick)
    path = _adapter.save_adapter(tmp_path / "a", model, pick, base=base)
    with pytest.raises((ValueError, KeyError), match="LOFTQ"):
        nano.require("peft").PeftModel.from_pretrained(hf(base), path)


def test_a_gpt2_shaped_adapter_is_not_announced_to_peft(tmp_path: Path) -> None:
    """q, k and v are one matrix there, so peft could not place it; it opens in tinygpt."""
    model = nano.model("gpt2")
    base = checkpoint.save(tmp_path / "base", model)
    _adapter.attach(model, Pick("lora"))
    path = _adapter.save_adapter(tmp_path / "a", model, Pick("lora"), base=base)
    with pytest.raises(ValueError, match="[Tt]arget modules"):
        nano.require("peft").PeftModel.from_pretrained(hf(base), path)


def test_the_table_says_what_is_tested_here() -> None:
    page = (Path(__file__).parents[2] / "docs" / "explain" / "peft.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip(" `") for cell in line.split("|")[1:-1]]
        for line in page.splitlines()
        if line[:3] == "| `"
    ]
    family = {name_of(run): theirs for run, (_, theirs) in RUNS.items()} | {"loftq": None}
    for name, _, _, _, opens, reads in rows:
        if name in family:
            assert opens.startswith("yes") == (name != "loftq"), name
            assert reads.startswith(("yes", "as")) == (family[name] is not None or name == "pissa"), name
