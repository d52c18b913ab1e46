"""Directories that mlx_lm quantized open with its logits, and those that we pack open in mlx_lm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nano
from contract.test_arch import STACKS
from tinygpt.core.backend import mx
from tinygpt.core.config import Pick
from tinygpt.data.tokenizer import byte
from tinygpt.model import checkpoint, quantized
from tinygpt.model.lm import LM
from tinygpt.model.quantized import Packing

pytestmark = pytest.mark.parity
IDS = nano.tokens(2, 40)
SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 128, "tie_word_embeddings": False, "vocab_size": 320,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "llama": SIZES,
    "llama-tied-biased": {**SIZES, "tie_word_embeddings": True, "attention_bias": True},
    "qwen3": {**SIZES, "attention": Pick("gqa", {"qk_norm": True})},
}
FORMS = {
    "affine-4": {"q_group_size": 64, "q_bits": 4}, "affine-3": {"q_group_size": 32, "q_bits": 3},
    "affine-8": {"q_group_size": 64, "q_bits": 8},
    "mxfp4": {"q_group_size": 32, "q_bits": 4, "q_mode": "mxfp4"},
    "nvfp4": {"q_group_size": 16, "q_bits": 4, "q_mode": "nvfp4"},
    "mxfp8": {"q_group_size": 32, "q_bits": 8, "q_mode": "mxfp8"},
    "mixed": {"q_group_size": 64, "q_bits": 4, "quant_predicate": "several"},
}  # fmt: skip


def several(path: str, module: Any) -> bool | dict[str, Any]:
    """Another packing for some matrices, none for others."""
    if "down_proj" in path:
        return {"group_size": 32, "bits": 6, "mode": "affine"}
    return "v_proj" not in path and hasattr(module, "to_quantized")


def theirs(path: Path, ids: np.ndarray = IDS) -> np.ndarray:
    """mlx_lm's logits, of its weights widened as ours are."""
    model, _ = nano.require("mlx_lm.utils").load_model(path)
    model.set_dtype(mx.float32)
    return np.array(model(mx.array(ids)))


@pytest.fixture
def dense(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    kind = getattr(request, "param", "qwen3")
    path = checkpoint.save(
        tmp_path / "dense", nano.model(**KINDS[kind]), write_tokenizer=byte.load().save, dtype="bfloat16"
    )
    return path


@pytest.mark.parametrize(
    ("dense", "form"), [*((kind, "affine-4") for kind in KINDS), *(("qwen3", form) for form in FORMS)],
    indirect=["dense"],
)  # fmt: skip
def test_theirs_opens_with_the_same_logits(dense: Path, form: str, tmp_path: Path) -> None:
    how: dict[str, Any] = dict(FORMS[form])
    if "quant_predicate" in how:
        how["quant_predicate"] = several
    path = tmp_path / "packed"
    nano.require("mlx_lm").convert(str(dense), str(path), quantize=True, **how)
    model = checkpoint.load(path).model
    found = quantized.packed(model)
    assert len(found) > 10
    nano.close(model(mx.array(IDS)), theirs(path), 1e-4)
    if form == "mixed":
        assert {Packing.of(m).bits for m in found.values()} == {4, 6}
        assert not any("v_proj" in name for name in found)


@pytest.mark.parametrize("how", [Packing(), Packing(mode="mxfp4"), Packing(bits=3, group_size=32)], ids=str)
def test_ours_opens_in_mlx_lm(how: Packing, dense: Path, tmp_path: Path) -> None:
    model = checkpoint.load(dense, packing=how).model
    path = checkpoint.save(tmp_path / "packed", model)
    nano.close(model(mx.array(IDS)), theirs(path), 1e-4)


BIG = {"hidden_size": 64, "intermediate_size": 128}
GEMMA = {"embedding_scale": 8.0}  # mlx_lm rounds it to bfloat16: 8 stays
EXPERTS = {"experts": 4, "width": 64, "balance": 0.0}
CHANGES: dict[str, dict[str, Any]] = {
    "gemma2": GEMMA, "gemma3_text": GEMMA, "gpt2": {"intermediate_size": 256},
    "mixtral": {"intermediate_size": 64, "mlp": Pick("moe", {**EXPERTS, "z": 0.01})},
    "qwen3_moe": {
        "mlp": Pick("moe", {**EXPERTS, "renormalize": "never", "dense_layers": [1], "balance": 0.02})},
}  # fmt: skip


@pytest.mark.parametrize("name", STACKS)
def test_every_architecture_opens_as_mlx_lm_packed_it(name: str, tmp_path: Path) -> None:
    config = replace(STACKS[name][0], **{**BIG, "head_dim": 16, **CHANGES.get(name, {})})
    changes = {field: getattr(config, field) for field in config.__dataclass_fields__}
    dense = checkpoint.save(tmp_path / "dense", nano.model(**changes), write_tokenizer=byte.load().save)
    path = tmp_path / "packed"
    nano.require("mlx_lm").convert(str(dense), str(path), quantize=True, q_group_size=32, q_bits=4)
    data = checkpoint.read_json(path / "config.json")
    model = checkpoint.load(path).model
    assert len(quantized.packed(model)) >= 10
    assert isinstance(model, LM) == (data["model_type"] != "gpt2")  # which mlx_lm lays out otherwise
    short = IDS[:, :4]  # within every window: mlx_lm leaves out some
    nano.close(model(mx.array(short)), theirs(path, short), 1e-4)
    if isinstance(model, LM):
        again = checkpoint.load(checkpoint.save(tmp_path / "again", model)).model
        assert mx.array_equal(again(mx.array(IDS)), model(mx.array(IDS)))
