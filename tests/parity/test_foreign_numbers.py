"""What mlx_lm's models leave out is put right or refused: logits equal transformers', or one clear line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import nano
from tinygpt.core.backend import mx
from tinygpt.core.errors import CheckpointError
from tinygpt.model import checkpoint

pytestmark = pytest.mark.parity
IDS = nano.tokens(2, 40)
SIZES: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 128, "max_position_embeddings": 96, "initializer_range": 0.25,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
PLAIN = {"rope_type": "default", "rope_theta": 100.0}
YARN = {"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 24}
EXPERTS: dict[str, Any] = {
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "num_key_value_heads": 2,
    "shared_expert_intermediate_size": 16,
}  # fmt: skip
GPTJ = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96, "rotary_dim": 4,
        "initializer_range": 0.25}  # fmt: skip


def saved(path: Path, kind: str, **changes: Any) -> Any:
    """A model that transformers wrote, and its logits."""
    torch, transformers = nano.require("torch"), nano.require("transformers")
    nano.require("mlx_lm")
    torch.manual_seed(0)
    sizes = GPTJ if kind == "gptj" else SIZES
    config = transformers.AutoConfig.for_model(kind, **{**sizes, **changes})
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    model.save_pretrained(path)
    with torch.no_grad():
        return model(torch.tensor(IDS, dtype=torch.long), use_cache=False).logits.numpy()


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("gemma", {"num_key_value_heads": 2, "head_dim": 8}),
        ("gemma", {"num_key_value_heads": 2, "head_dim": 8, "hidden_act": "gelu"}),
        ("starcoder2", {"num_key_value_heads": 2}),
        ("gpt_neox", {}),
        ("gpt_neox", {"hidden_act": "gelu_new", "rope_parameters": PLAIN | {"partial_rotary_factor": 0.5}}),
        ("gptj", {}),
        (
            "olmo3",
            {
                "num_hidden_layers": 4,
                "sliding_window": 9,
                "num_key_value_heads": 2,
                "rope_parameters": {"full_attention": YARN, "sliding_attention": PLAIN},
            },
        ),
    ],
)
def test_logits_are_those_of_transformers(kind: str, changes: dict[str, Any], tmp_path: Path) -> None:
    """The form of GELU that config.json names, tables of positions by layer, and names of their own."""
    expected = saved(tmp_path, kind, **changes)
    nano.close(checkpoint.load(tmp_path).model(mx.array(IDS)), expected, 1e-5)


@pytest.mark.parametrize(
    ("kind", "changes", "sentence"),
    [
        ("qwen2_moe", {**EXPERTS, "norm_topk_prob": True}, "norm_topk_prob = True, which mlx_lm's"),
        (
            "helium",
            {"num_key_value_heads": 2, "head_dim": 8, "hidden_act": "gelu"},
            "the activation 'gelu', and mlx_lm's helium computes silu",
        ),
        (
            "olmo3",
            {
                "num_key_value_heads": 2,
                "rope_parameters": {"full_attention": YARN, "sliding_attention": YARN},
            },
            "does not give 'rope_theta'",
        ),
    ],
)
def test_what_it_leaves_out_is_refused(
    kind: str, changes: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    saved(tmp_path, kind, **changes)
    with pytest.raises(CheckpointError, match=sentence):
        checkpoint.load(tmp_path)


def test_a_model_that_ends_the_program_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """mlx_lm's olmo prints and calls exit where a package of its own is not installed."""
    nano.require("mlx_lm")
    (tmp_path / "config.json").write_text(json.dumps({**SIZES, "model_type": "olmo"}))
    mx.save_safetensors(str(tmp_path / "model.safetensors"), {"x": mx.zeros((1,))})
    with pytest.raises(CheckpointError, match="mlx_lm cannot open this olmo: .*ai2-olmo"):
        checkpoint.load(tmp_path)
    assert capsys.readouterr().out == ""
