"""Baking beside its peers: peft's merged model, and what mlx_lm's fuse makes of a quantized layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nano
from e2e.shell import good
from tinygpt.core.backend import mx, nn
from tinygpt.model import checkpoint

pytestmark = pytest.mark.parity
IDS = nano.tokens(2, 20)


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_the_baked_model_is_pefts(dora: bool, tmp_path: Path) -> None:
    torch, transformers, peft = nano.require("torch"), nano.require("transformers"), nano.require("peft")
    base = checkpoint.save(tmp_path / "base", nano.model())
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = peft.LoraConfig(
        r=4, target_modules=["q_proj", "down_proj"], use_dora=dora, task_type="CAUSAL_LM"
    )
    model = peft.get_peft_model(model, config)
    for name, weight in model.named_parameters():
        if weight.requires_grad and "lora" in name:
            weight.data += 0.1 * torch.randn_like(weight)
    model.eval().save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        expected = model(torch.tensor(IDS, dtype=torch.long)).logits.numpy()
    good("bake-lora", base, tmp_path / "adapter", "--out", tmp_path / "out")
    baked = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    with torch.no_grad():
        nano.close(baked(torch.tensor(IDS, dtype=torch.long)).logits.numpy(), expected, 1e-5)


def test_what_mlx_lm_loses_in_a_quantized_layer_we_refuse(tmp_path: Path) -> None:
    """Its fuse packs the sum again: of an adapter of 1.1 % effect nothing is left, and nothing is said."""
    lora = nano.require("mlx_lm.tuner.lora")
    linear = nn.Linear(256, 256, bias=False)
    linear.weight = mx.random.normal((256, 256), key=mx.random.key(0))
    packed = nn.QuantizedLinear.from_linear(linear, group_size=64, bits=4)
    wrapped = lora.LoRALinear.from_base(packed, r=4, scale=1.0, dropout=0.0)
    wrapped.lora_a = mx.random.normal(wrapped.lora_a.shape, key=mx.random.key(1))
    wrapped.lora_b = mx.random.normal(wrapped.lora_b.shape, key=mx.random.key(2))
    x = mx.random.normal((64, 256), key=mx.random.key(3))
    y = packed(x)
    wrapped.lora_b = wrapped.lora_b * (0.011 * mx.linalg.norm(y) / mx.linalg.norm(wrapped(x) - y))
    effect = np.linalg.norm(np.array(wrapped(x) - y))
    lost = np.linalg.norm(np.array(wrapped.fuse()(x) - wrapped(x))) / effect
    kept = np.linalg.norm(np.array(wrapped.fuse(dequantize=True)(x) - wrapped(x))) / effect
    assert lost > 0.9 and kept < 1e-3, (lost, kept)
    from tinygpt.model.quantized import Packing, dense
    from tinygpt.runs import _baking

    wanted = dense(packed) + (wrapped.lora_a @ wrapped.lora_b).T
    ours = _baking._packed(packed, wanted, Packing.of(packed))
    miss = np.linalg.norm(np.array(dense(ours) - wanted)) / np.linalg.norm(np.array(wanted - dense(packed)))
    assert miss == pytest.approx(lost, rel=0.25)  # what we measure is what it costs
