"""A model that mlx_lm opens is copied by hf-load, takes an adapter, and is baked: as transformers has it."""

from __future__ import annotations

from pathlib import Path

import pytest

import nano
from e2e.shell import good
from tinygpt.core.config import Pick
from tinygpt.data.tokenizer import byte
from tinygpt.model import checkpoint
from tinygpt.peft import _adapter

pytestmark = pytest.mark.parity


def test_a_foreign_model_is_copied_and_baked(tmp_path: Path) -> None:
    torch, transformers = nano.require("torch"), nano.require("transformers")
    nano.require("mlx_lm")
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4}
    config = transformers.StableLmConfig(
        vocab_size=300, hidden_size=64, intermediate_size=128, initializer_range=0.25,
        max_position_embeddings=128, **sizes,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.StableLmForCausalLM(config).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    byte.load(None).save(tmp_path / "theirs")
    facts = good("hf-inspect", tmp_path / "theirs", "--json").json
    assert facts["opens"] == "mlx-lm" and facts["parameters"] == sum(p.numel() for p in theirs.parameters())
    made = good("hf-load", tmp_path / "theirs", "--out", tmp_path / "ours", "--json").json
    assert made["same_logits"] and made["opens"] == "mlx-lm"
    good("validate", tmp_path / "ours")
    ids = nano.tokens(2, 12, vocab=300)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    with torch.no_grad():
        expected = theirs(torch.tensor(ids, dtype=torch.long)).logits.numpy()
        nano.close(again(torch.tensor(ids, dtype=torch.long)).logits.numpy(), expected, 1e-6)

    model = checkpoint.load(tmp_path / "ours").model
    pick = Pick("lora", {"targets": ("all-linear",), "rank": 4}).resolve(_adapter.PEFT, "peft")
    _adapter.attach(model, pick, seed=1)
    for module in _adapter.adapters(model).values():
        module.lora_B.weight = module.lora_B.weight + 0.05
    adapter = _adapter.save_adapter(tmp_path / "adapter", model, pick, base=tmp_path / "ours")
    adapted = model(nano.mx.array(ids))
    baked = good("bake-lora", tmp_path / "ours", adapter, "--out", tmp_path / "baked", "--json").json
    assert baked["error"] < 1e-4
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "baked").eval()
    with torch.no_grad():
        nano.close(again(torch.tensor(ids, dtype=torch.long)).logits.numpy(), adapted, 1e-4)
