"""Every architecture: a stack of its kind goes by its name, comes back whole, refuses what it cannot be."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_flatten

import nano
from tinygpt.core.backend import mx
from tinygpt.core.config import Pick
from tinygpt.core.errors import CheckpointError
from tinygpt.model import checkpoint, layout
from tinygpt.model.config import ModelConfig
from tinygpt.model.lm import LM, initialize

GEMMA: dict[str, Any] = {
    "mlp": Pick("geglu"), "norm": Pick("rmsnorm_plus_one"), "residual": Pick("sandwich"),
    "embedding_scale": math.sqrt(32),
}  # fmt: skip
EXPERTS = {"experts": 4, "width": 24, "balance": 0.0}
# A stack of every architecture, and a key of it that would change the mathematics: a new one needs a line.
STACKS: dict[str, tuple[ModelConfig, dict[str, Any]]] = {
    "gemma2": (
        nano.config(**GEMMA, logit_cap=3.0, attention=Pick(
            "gqa", {"window": 4, "full_layers": [1], "softcap": 2.0, "scale": 0.25})),
        {"use_bidirectional_attention": True}),
    "gemma3_text": (
        nano.config(**GEMMA, position=Pick("rope_linear", {"theta": 1e6, "factor": 8.0}),
                    second_position=Pick("rope"), second_layers=(0,), attention=Pick(
            "gqa", {"window": 4, "full_layers": [1], "qk_norm": True, "scale": 0.25})),
        {"hidden_activation": "silu"}),
    "gpt2": (nano.config("gpt2"), {"add_cross_attention": True}),
    "granite": (
        nano.config(attention=Pick("gqa", {"scale": 0.2}), embedding_scale=3.0, logit_divisor=2.0,
                    residual=Pick("plain", {"scale": 0.5})),
        {"num_local_experts": 4}),
    "llama": (nano.config(), {"logit_scale": 0.1}),
    "mistral": (nano.config(attention=Pick("gqa", {"window": 4})), {"attention_bias": True}),
    "mixtral": (nano.config(intermediate_size=24, mlp=Pick("moe", {**EXPERTS, "z": 0.01})), {"shared": 1}),
    "olmo2": (
        nano.config(residual=Pick("postnorm"),
                    attention=Pick("gqa", {"qk_norm": True, "qk_norm_width": True})),
        {"clip_qkv": 8.0}),
    "phi3": (
        nano.config(position=Pick("rope", {"share": 0.5}), attention=Pick("gqa", {"window": 4})),
        {"lm_head_bias": True}),
    "qwen2": (
        nano.config(attention=Pick("gqa", {"output_bias": False}), attention_bias=True), {"use_mrope": True}),
    "qwen3": (
        nano.config(attention=Pick("gqa", {"qk_norm": True, "window": 4, "full_layers": [0]})),
        {"layer_types": ["full_attention", "chunked_attention"]}),
    "qwen3_moe": (
        nano.config(attention=Pick("gqa", {"qk_norm": True}),
                    mlp=Pick("moe", {**EXPERTS, "renormalize": "never", "dense_layers": [1],
                                     "balance": 0.02})),
        {"shared_expert_intermediate_size": 8}),
    "smollm3": (
        nano.config(second_position=Pick("nope"), second_layers=(1,)), {"rope_interleaved": True}),
}  # fmt: skip
NAMES = layout.ARCH.names()


def test_every_architecture_has_a_stack_here() -> None:
    assert {*STACKS, "gemma3"} == {*NAMES}, "gemma3 is read alone: what is written is its text part"


@pytest.mark.parametrize("name", STACKS)
def test_a_stack_of_a_kind_goes_by_its_name_and_comes_back(name: str) -> None:
    config, wrong = STACKS[name]
    assert layout.known(name) and layout.model_type(config) == name
    data = json.loads(json.dumps(layout.to_hf(config, eos=1)))
    assert data["model_type"] == name and layout.from_hf(data) == config
    ((key, value),) = wrong.items()
    with pytest.raises(CheckpointError) as error:
        layout.from_hf({**data, **wrong})
    assert key in error.value.message or str(value) in error.value.message or "chunked" in error.value.message
    with pytest.raises(CheckpointError, match="'mystery_scale', which this build does not know"):
        layout.from_hf({**data, "mystery_scale": 2.0})


@pytest.mark.wide
@pytest.mark.parametrize("name", STACKS)
def test_values_that_cannot_be_are_one_sentence(name: str) -> None:
    """Whatever stands in config.json, it is a config or an error of ours."""
    data = layout.to_hf(STACKS[name][0])
    for key in data:
        for junk in (None, "x", -1, 0, 0.5, [], ["x"], {"x": 1}, [[1]], True, 10**12):
            try:
                layout.from_hf({**data, key: junk})
            except CheckpointError as error:
                assert error.message.startswith("config.json")


@pytest.mark.parametrize("name", STACKS)
def test_tensors_go_out_and_come_back(name: str) -> None:
    model = LM(STACKS[name][0])
    weights = dict(tree_flatten(initialize(model, 0).parameters()))
    disk = layout.to_disk(weights, model.config)
    back = layout.from_disk(disk, model.config)
    assert back.keys() == weights.keys() and all(mx.array_equal(back[n], weights[n]) for n in weights)
    if name in ("llama", "mistral", "qwen2", "qwen3", "smollm3", "granite"):
        assert disk.keys() == weights.keys()
    else:
        assert disk.keys() != weights.keys()


@pytest.mark.parametrize("name", STACKS)
def test_one_option_more_makes_it_nobodys(name: str) -> None:
    """What an architecture has no word for is never lost: such a stack is spelled out."""
    config, _ = STACKS[name]
    values = {key: getattr(config, key) for key in config.__dataclass_fields__}
    odd = ModelConfig(**{**values, "logit_divisor": 1.7, "logit_cap": 4.0})
    assert layout.model_type(odd) == "tinygpt"
    assert layout.from_hf(json.loads(json.dumps(layout.to_hf(odd)))) == odd


def test_gemma3_with_pictures_is_read_as_its_text() -> None:
    config, _ = STACKS["gemma3_text"]
    text = layout.to_hf(config)
    data = {"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 8},
            "mm_tokens_per_image": 4, "boi_token_index": 5}  # fmt: skip
    assert layout.from_hf(data) == config
    with pytest.raises(CheckpointError, match="text_config has the key 'mystery'"):
        layout.from_hf({**data, "text_config": {**text, "mystery": 1}})
    with pytest.raises(CheckpointError, match="needs a table text_config"):
        layout.from_hf({"model_type": "gemma3"})
    names = ("model.language_model.norm.weight", "language_model.model.norm.weight")
    for name in names:
        found = layout.from_disk({name: mx.ones(1), "vision_tower.x": mx.ones(1)}, config)
        assert list(found) == ["model.norm.weight"]


def test_a_tied_matrix_that_is_saved_twice() -> None:
    model = nano.model()
    weights = dict(tree_flatten(model.parameters()))
    twice = {**weights, "lm_head.weight": mx.array(weights["model.embed_tokens.weight"])}
    twice["model.layers.0.self_attn.rotary_emb.inv_freq"] = mx.ones(4)
    assert layout.from_disk(twice, model.config).keys() == weights.keys()
    with pytest.raises(CheckpointError, match="lm_head.weight differs from model.embed_tokens.weight"):
        layout.from_disk({**twice, "lm_head.weight": mx.zeros((64, 32))}, model.config)


def test_a_lost_expert_is_reported() -> None:
    config, _ = STACKS["mixtral"]
    disk = layout.to_disk(dict(tree_flatten(LM(config).parameters())), config)
    del disk["model.layers.1.block_sparse_moe.experts.2.w3.weight"]
    with pytest.raises(CheckpointError, match=r"lacks the tensor model\.layers\.1\.mlp\.experts\.up_proj"):
        checkpoint.fill(LM(config), layout.from_disk(disk, config), "here")


def test_quantized_tensors_keep_their_parts() -> None:
    """Scales and biases go where their matrix goes."""
    config, _ = STACKS["phi3"]
    for part in ("scales", "biases"):
        fused = {f"model.layers.0.self_attn.qkv_proj.{part}": mx.arange(64)[:, None]}
        found = layout.from_disk(fused, config)
        assert found[f"model.layers.0.self_attn.k_proj.{part}"][0].item() == 32
        assert layout.to_disk(found, config).keys() == fused.keys()
    place = "model.layers.0.mlp.switch_mlp.gate_proj"
    stacked = {f"{place}.{part}": mx.zeros((4, 2, 2)) for part in ("weight", "scales", "biases")}
    found = layout.from_disk(stacked, STACKS["qwen3_moe"][0])
    assert {n.removeprefix("model.layers.0.mlp.experts.gate_proj") for n in found} == {
        ".weight", ".scales", ".biases",
    }  # fmt: skip


def test_fresh_norms_of_gemma_leave_activations_as_they_are() -> None:
    model = initialize(LM(STACKS["gemma3_text"][0]), 0)
    norms = {n: np.array(w) for n, w in tree_flatten(model.parameters()) if "norm" in n}
    assert len(norms) == 13 and not any(w.any() for w in norms.values())


def test_positions_that_a_family_has_not() -> None:
    phi3 = layout.to_hf(STACKS["phi3"][0]) | {"rope_parameters": None}
    with pytest.raises(CheckpointError, match="a phi3 with positions of the type 'linear'"):
        layout.from_hf({**phi3, "rope_scaling": {"type": "linear", "factor": 2.0}})
    lists = {"short_factor": [1.0, 1.5], "long_factor": [2.0, 3.0]}
    named = [layout.from_hf({**phi3, "rope_scaling": {"type": kind, **lists}}) for kind in ("su", "longrope")]
    assert named[0] == named[1] and named[0].position.options.long_factor == (2.0, 3.0)
    with pytest.raises(CheckpointError, match="rope_parameters and rope_scaling differ"):
        data = layout.to_hf(STACKS["gemma3_text"][0])
        layout.from_hf({**data, "rope_scaling": {"rope_type": "linear", "factor": 2.0}})
    with pytest.raises(CheckpointError, match="500.0, but beside it stands 10000.0"):
        tables = data["rope_parameters"]
        local = tables["sliding_attention"] | {"rope_theta": 500.0}
        layout.from_hf({**data, "rope_parameters": {**tables, "sliding_attention": local}})
