"""Every architecture, as transformers saves it and in older spellings, has its logits here, and back."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nano
from tinygpt.core.backend import mx
from tinygpt.model import checkpoint, layout
from tinygpt.model.lm import LM

pytestmark = pytest.mark.parity
IDS = nano.tokens(2, 90)
CLASSES = {
    "gemma2": "Gemma2", "gemma3_text": "Gemma3Text", "gpt2": "GPT2", "granite": "Granite", "llama": "Llama",
    "mistral": "Mistral", "mixtral": "Mixtral", "olmo2": "Olmo2", "phi3": "Phi3", "qwen2": "Qwen2",
    "qwen3": "Qwen3", "qwen3_moe": "Qwen3Moe", "smollm3": "SmolLM3",
}  # fmt: skip
SIZES = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 96,
    "initializer_range": 0.25, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
GPT2 = {
    "vocab_size": 64, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 96, "bos_token_id": 0,
    "eos_token_id": 1, "initializer_range": 0.25,
}  # fmt: skip


def rope(kind: str, **options: Any) -> dict[str, Any]:
    return {"rope_type": kind, "rope_theta": 100.0, **options}


LLAMA3 = rope("llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=24)  # fmt: skip
LISTS = {"short_factor": [1.0, 1.1, 1.3, 1.2], "long_factor": [1.0, 2.0, 3.0, 4.5]}
LONG = rope("longrope", **LISTS)
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]
# name: (kind, changes, what mlx_lm makes of what we save: "" the same logits, else why not)
NO_WINDOW = "it reads no window in this family"
CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "llama": ("llama", {"rope_parameters": LLAMA3, "attention_bias": True, "mlp_bias": True}, ""),
    "llama-tied": ("llama", {"tie_word_embeddings": True, "rope_parameters": rope("linear", factor=3.0)}, ""),
    "mistral": ("mistral", {"sliding_window": 11}, NO_WINDOW),
    "qwen2": ("qwen2", {"rope_parameters": rope("default")}, ""),
    "qwen2-tied-yarn": (
        "qwen2", {"tie_word_embeddings": True,
                  "rope_parameters": rope("yarn", factor=4.0, original_max_position_embeddings=24)}, ""),
    "qwen2-last-layers": (
        "qwen2", {"use_sliding_window": True, "sliding_window": 11, "max_window_layers": 1}, NO_WINDOW),
    "qwen3": ("qwen3", {"head_dim": 12, "rope_parameters": rope("default")}, ""),
    "qwen3-tied-mixed": (
        "qwen3", {"head_dim": 8, "use_sliding_window": True, "sliding_window": 11, "max_window_layers": 2,
                  "tie_word_embeddings": True}, NO_WINDOW),
    "smollm3": ("smollm3", {"no_rope_layer_interval": 2, "rope_parameters": rope("default")}, ""),
    "smollm3-untied-list": (
        "smollm3", {"no_rope_layers": [0, 1, 0], "tie_word_embeddings": False, "attention_bias": True}, ""),
    "smollm3-window": (
        "smollm3", {"no_rope_layers": [0, 1, 0], "use_sliding_window": True, "sliding_window": 11},
        NO_WINDOW),
    "olmo2": ("olmo2", {"rope_parameters": rope("default")}, ""),
    "olmo2-tied-heads": ("olmo2", {"tie_word_embeddings": True, "num_key_value_heads": 4}, ""),
    "phi3": ("phi3", {"rope_parameters": rope("default", partial_rotary_factor=0.5)}, ""),
    "phi3-window-tied": ("phi3", {"sliding_window": 11, "tie_word_embeddings": True}, NO_WINDOW),
    "phi3-long": ("phi3", {"original_max_position_embeddings": 48, "rope_parameters": LONG}, ""),
    "phi3-short": (
        "phi3", {"original_max_position_embeddings": 92, "rope_parameters": LONG}, "it takes the long list"),
    "gemma2": (
        "gemma2", {"head_dim": 12, "sliding_window": 11, "query_pre_attn_scalar": 9,
                   "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}, NO_WINDOW),
    "gemma2-wide": ("gemma2", {"head_dim": 8, "attn_logit_softcapping": 2.0}, ""),
    "gemma2-untied-wide": (
        "gemma2", {"head_dim": 8, "sliding_window": 500, "query_pre_attn_scalar": 12,
                   "attn_logit_softcapping": 2.0, "final_logit_softcapping": None,
                   "tie_word_embeddings": False}, "it ties the output matrix in this family"),
    # mlx_lm rounds the scale of embeddings, sqrt(hidden_size), to bfloat16: here it is 8.
    "gemma3_text": (
        "gemma3_text", {"head_dim": 12, "sliding_window": 11, "query_pre_attn_scalar": 9, "hidden_size": 64,
                        "layer_types": MIXED, "rope_parameters": {
                            "sliding_attention": rope("default") | {"rope_theta": 50.0},
                            "full_attention": rope("linear", factor=4.0) | {"rope_theta": 1000.0}}}, ""),
    "gemma3_text-untied": (
        "gemma3_text", {"head_dim": 8, "sliding_window": 11, "query_pre_attn_scalar": 16, "hidden_size": 64,
                        "num_hidden_layers": 6, "tie_word_embeddings": False}, ""),
    "gemma3_text-odd-width": (
        "gemma3_text", {"head_dim": 8, "sliding_window": 11, "query_pre_attn_scalar": 16},
        "it wants a layer that reads everything, and rounds the scale of embeddings"),
    "granite": (
        "granite", {"embedding_multiplier": 3.0, "logits_scaling": 2.0, "residual_multiplier": 0.6,
                    "attention_multiplier": 0.2, "rope_parameters": rope("default")}, ""),
    "granite-tied": (
        "granite", {"tie_word_embeddings": True, "embedding_multiplier": 0.7, "attention_bias": True,
                    "logits_scaling": 3.0, "residual_multiplier": 1.4}, ""),
    "gpt2": ("gpt2", {}, ""),
    "mixtral": ("mixtral", {"num_local_experts": 4, "rope_parameters": rope("default")}, ""),
    "mixtral-one-window": (
        "mixtral", {"num_local_experts": 3, "num_experts_per_tok": 1, "sliding_window": 11,
                    "tie_word_embeddings": True}, NO_WINDOW),
    "qwen3_moe": (
        "qwen3_moe", {"head_dim": 12, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
                      "mlp_only_layers": [1], "norm_topk_prob": True,
                      "rope_parameters": rope("default")}, ""),
    "qwen3_moe-steps": (
        "qwen3_moe", {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 3, "moe_intermediate_size": 20,
                      "decoder_sparse_step": 2, "tie_word_embeddings": True}, ""),
}  # fmt: skip
# Stacks that have another, better known name.
ALIKE = {"phi3-window-tied": "mistral"}


@cache
def peer(name: str) -> Any:
    """A model of transformers with norms, biases and routers off their usual values."""
    torch, transformers = nano.require("torch"), nano.require("transformers")
    kind, changes, _ = CASES[name]
    made = getattr(transformers, f"{CLASSES[kind]}Config")(
        **{**(GPT2 if kind == "gpt2" else SIZES), **changes}
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(made, attn_implementation="eager").eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim < 2:
                p.add_(0.2 * torch.randn_like(p))
    return model


def logits(model: Any) -> np.ndarray:
    torch = nano.require("torch")
    with torch.no_grad():
        return model(torch.tensor(IDS, dtype=torch.long)).logits.numpy()


def theirs(path: Path) -> np.ndarray:
    torch, transformers = nano.require("torch"), nano.require("transformers")
    model, facts = transformers.AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not facts["missing_keys"] and not facts["unexpected_keys"] and not facts["mismatched_keys"], facts
    return logits(model.eval())


def older(path: Path) -> None:
    """Spell positions as transformers 4 did, and the dtype."""
    data = json.loads((path / "config.json").read_text())
    table = data.pop("rope_parameters", None)
    data["torch_dtype"] = data.pop("dtype")
    if table and "full_attention" in table:
        data["rope_local_base_freq"] = table["sliding_attention"]["rope_theta"]
        data["sliding_window_pattern"] = data.pop("_sliding_window_pattern")
        table = table["full_attention"]
    if table:
        data["rope_theta"] = table.pop("rope_theta")
        part = table.pop("partial_rotary_factor", 1.0)
        if data["model_type"] == "phi3":
            data["partial_rotary_factor"] = part
        table["type"] = table.pop("rope_type")
        data["rope_scaling"] = None if table["type"] == "default" else table
    if data["model_type"] == "qwen3_moe":
        data["num_experts"] = data.pop("num_local_experts")
    (path / "config.json").write_text(json.dumps(data))


def uncached(model: LM) -> np.ndarray:
    return np.array(model(mx.array(IDS)))


@pytest.mark.parametrize("name", CASES)
def test_every_family(name: str, tmp_path: Path) -> None:
    kind, _, of_mlx_lm = CASES[name]
    expected = logits(peer(name))
    peer(name).save_pretrained(tmp_path / "hf")
    opened = checkpoint.load(tmp_path / "hf")
    nano.close(uncached(opened.model), expected, 1e-4)
    # In shards, and in the older spelling.
    peer(name).save_pretrained(tmp_path / "shards", max_shard_size="12KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    older(tmp_path / "shards")
    again = checkpoint.load(tmp_path / "shards")
    assert again.config == opened.config
    assert np.array_equal(uncached(again.model), uncached(opened.model))
    # Cached as uncached, prompt and steps.
    caches, parts = opened.model.make_cache(), []
    places = (0, 60, 61, 70, 90) if name != "phi3-long" else (0, 89, 90)  # its angles change at 48 tokens
    for a, b in zip(places, places[1:]):
        parts.append(np.array(opened.model(mx.array(IDS[:, a:b]), caches)))
    nano.close(np.concatenate(parts, axis=1), expected, 1e-4)
    # What we save is what others open.
    assert layout.model_type(opened.config) == ALIKE.get(name, kind)
    saved = checkpoint.save(tmp_path / "ours", opened.model)
    assert checkpoint.load(saved).config == opened.config
    nano.close(theirs(saved), expected, 1e-4)
    if not of_mlx_lm:
        loaded, _ = nano.require("mlx_lm.utils").load_model(saved)
        nano.close(np.array(loaded(mx.array(IDS))), expected, 1e-4)


def test_what_a_left_out_key_means() -> None:
    """Our table of defaults is transformers'."""
    transformers = nano.require("transformers")
    ours = {"sliding_window_pattern": "_sliding_window_pattern"}  # the same under another name
    for kind, called in CLASSES.items():
        usual = layout.ARCH.load(kind).USUAL
        data = getattr(transformers, f"{called}Config")().to_dict()
        tables = data.get("rope_parameters") or {}
        if "full_attention" in tables:
            data |= {"rope_local_base_freq": tables["sliding_attention"]["rope_theta"]}
            tables = tables["full_attention"]
        data |= {"rope_theta": tables.get("rope_theta")}
        if not data.get("use_sliding_window", True):
            data |= {"sliding_window": usual.get("sliding_window")}  # dropped where it is not used
        found = {key: data.get(ours.get(key, key)) for key in usual}
        assert found == usual, kind
        assert usual.get("rope_theta", 10000.0) == (tables.get("rope_theta") or 10000.0), kind
        if "num_key_value_heads" not in usual and kind != "gpt2":  # then they are as many as heads
            assert data["num_key_value_heads"] == data["num_attention_heads"], kind
        if "head_dim" not in usual and data.get("head_dim"):
            assert data["head_dim"] == data["hidden_size"] // data["num_attention_heads"], kind


def test_the_text_part_of_a_model_with_pictures(tmp_path: Path) -> None:
    torch, transformers = nano.require("torch"), nano.require("transformers")
    text = {**SIZES, **CASES["gemma3_text"][1]}
    config = transformers.Gemma3Config(
        text_config=text,
        vision_config={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                       "intermediate_size": 16, "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=4, image_token_index=60, boi_token_index=61, eoi_token_index=62,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.Gemma3ForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path / "hf")
    opened = checkpoint.load(tmp_path / "hf").model
    nano.close(uncached(opened), logits(model), 1e-4)
    assert layout.model_type(opened.config) == "gemma3_text"


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "phi3", "gpt2"])
def test_directories_that_mlx_lm_saved(name: str, tmp_path: Path) -> None:
    """Its models have layouts of their own, stacked experts and turned matrices."""
    loader, tools = nano.require("mlx_lm.utils"), nano.require("mlx.utils")
    peer(name).save_pretrained(tmp_path / "hf")
    ours = checkpoint.save(tmp_path / "ours", checkpoint.load(tmp_path / "hf").model)
    loaded, _ = loader.load_model(ours)
    folder = tmp_path / "mlx"
    folder.mkdir()
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tools.tree_flatten(loaded.parameters())))
    (folder / "config.json").write_text((ours / "config.json").read_text())
    nano.close(uncached(checkpoint.load(folder).model), logits(peer(name)), 1e-4)


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_experts_as_transformers_holds_them_in_memory(name: str, tmp_path: Path) -> None:
    """Stacked, with gate and up in one tensor."""
    state = {n: mx.array(p.detach().numpy()) for n, p in peer(name).named_parameters()}
    assert any(n.endswith("experts.gate_up_proj") for n in state)
    peer(name).save_pretrained(tmp_path / "hf")
    model = LM(checkpoint.read_config(tmp_path / "hf"))
    checkpoint.fill(model, layout.from_disk(state, model.config), "memory")
    nano.close(uncached(model), logits(peer(name)), 1e-4)
