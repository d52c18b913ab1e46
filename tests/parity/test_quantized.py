"""Directories that mlx_lm quantized open with its logits, and those that we pack open in mlx_lm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nano
from tinygpt.core.backend import mx
from tinygpt.core.config import Pick
from tinygpt.data.tokenizer import byte
from tinygpt.model import checkpoint, quantized
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
