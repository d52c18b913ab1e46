"""Names and configs on disk: what a stack is called, what comes back, and what is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from mlx.utils import tree_flatten

import nano
from tinygpt.core.backend import mx
from tinygpt.core.config import Pick
from tinygpt.core.errors import CheckpointError
from tinygpt.model import layout
from tinygpt.model.lm import LM


def test_layout_round_trip(nano_model: LM) -> None:
    weights = dict(tree_flatten(nano_model.parameters()))
    config = nano_model.config
    back = layout.from_disk(layout.to_disk(weights, config), config)
    assert back.keys() == weights.keys() and all(mx.array_equal(back[n], weights[n]) for n in weights)
    assert layout.from_hf(layout.to_hf(config)) == config


def test_gpt2_names_and_transposes() -> None:
    model = nano.model("gpt2")
    disk = layout.to_disk(dict(tree_flatten(model.parameters())), model.config)
    assert {n.split(".")[0] for n in disk} == {"wte", "wpe", "ln_f", "h"}
    attention = model.layers[1].self_attn
    fused = disk["h.1.attn.c_attn.weight"]
    assert fused.shape == (32, 96) and mx.array_equal(fused[:, 32:64], attention.k_proj.weight.T)
    assert mx.array_equal(disk["h.1.mlp.c_fc.weight"], model.layers[1].mlp.up_proj.weight.T)
    # As transformers writes them, and with the constant mask that old files carry.
    foreign = {f"transformer.{n}": w for n, w in disk.items()} | {
        "transformer.h.0.attn.bias": mx.ones((1, 1, 4, 4))
    }
    assert layout.from_disk(foreign, model.config).keys() == dict(tree_flatten(model.parameters())).keys()


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (nano.config(), "llama"),
        (nano.config(attention_bias=True, mlp_bias=True, tie_word_embeddings=False, head_dim=6), "llama"),
        (nano.config("gpt2"), "gpt2"),
        (nano.config("gpt2", mlp=Pick("gelu", {"approximate": "none"})), "gpt2"),
        (nano.config("gpt2", tie_word_embeddings=False), "tinygpt"),
        (nano.config("gpt2", attention_bias=False), "tinygpt"),
        (nano.config("gpt2", num_key_value_heads=2), "tinygpt"),
        (nano.config("gpt2", head_dim=4), "tinygpt"),
        (nano.config(norm=Pick("layernorm")), "tinygpt"),
        (nano.config(position=Pick("rope_linear", {"factor": 2.5})), "llama"),
        (nano.config(position=Pick("rope_dynamic", {"theta": 500.0})), "llama"),
        (nano.config(position=Pick("rope_llama3", {"low_freq_factor": 2.0})), "llama"),
        (nano.config(position=Pick("rope_yarn")), "llama"),
        (nano.config(position=Pick("rope_yarn", {"attention_factor": 1.3, "truncate": False})), "llama"),
        (nano.config("gpt2", position=Pick("rope_yarn")), "tinygpt"),
        (nano.config(position=Pick("alibi")), "tinygpt"),
        (nano.config(position=Pick("nope")), "tinygpt"),
        (nano.config(embedding_norm=Pick("layernorm")), "tinygpt"),
        (nano.config("gpt2", embedding_norm=Pick("rmsnorm")), "tinygpt"),
        (nano.config(residual=Pick("deepnorm")), "tinygpt"),
        (nano.config(attention=Pick("gqa", {"qk_norm": True})), "qwen3"),
        (nano.config(attention=Pick("gqa", {"qk_norm": True}), position=Pick("rope_yarn")), "qwen3"),
        (nano.config(attention=Pick("gqa", {"qk_norm": True}), attention_bias=True), "tinygpt"),
        (nano.config(attention=Pick("gqa", {"qk_norm": True}), position=Pick("alibi")), "tinygpt"),
        (nano.config(attention=Pick("gqa", {"qk_norm": True, "window": 9})), "qwen3"),
        (nano.config(attention=Pick("gqa", {"window": 9})), "mistral"),
        (nano.config(attention=Pick("gqa", {"window": 9}), mlp_bias=True), "tinygpt"),
        (nano.config(attention=Pick("gqa", {"window": 9, "key_shift": True})), "tinygpt"),
        (nano.config("gpt2", attention=Pick("gqa", {"window": 9})), "tinygpt"),
        (nano.config("gpt2", attention=Pick("gqa", {"qk_norm": True})), "tinygpt"),
        (nano.config(attention=Pick("yoco", {"window": 9})), "tinygpt"),
    ],
)
def test_a_stack_goes_by_the_name_others_know_and_every_option_comes_back(config: Any, kind: str) -> None:
    assert layout.model_type(config) == kind
    assert layout.from_hf(json.loads(json.dumps(layout.to_hf(config)))) == config


def test_windows_and_norms_of_others_are_read_as_they_mean_them() -> None:
    def read(kind: str, **changes: Any) -> Any:
        data = layout.to_hf(nano.config()) | {"model_type": kind, **changes}
        return layout.from_hf({name: value for name, value in data.items() if name not in GONE})

    GONE = {"head_dim", "max_position_embeddings"}
    assert read("mistral").attention.options.window == 4096, "as in transformers, where nothing is said"
    assert read("mistral", sliding_window=None).attention == read("llama").attention
    assert read("mistral").max_position_embeddings == 131072 and read("llama").head_dim == 8
    plain = read("qwen3", sliding_window=7, max_window_layers=0)
    assert plain.attention.options.window == 0 and plain.attention.options.qk_norm and plain.head_dim == 128
    windowed = read("qwen3", use_sliding_window=True, sliding_window=7, max_window_layers=0)
    assert windowed.attention.options.window == 7
    last = read("qwen3", use_sliding_window=True, max_window_layers=1).attention.options
    assert last.window == 4096 and last.full_layers == (0,)
    for wrong, why in (
        ({"layer_types": ["sliding_attention"] * 2}, "use_sliding_window or sliding_window has none"),
        ({"layer_types": ["chunked_attention"] * 2}, "the kind 'chunked_attention'"),
        ({"layer_types": ["full_attention"]}, "an entry for each of 2 layers"),
    ):
        with pytest.raises(CheckpointError, match=why):
            read("qwen3", **wrong)
    with pytest.raises(CheckpointError, match="a mistral with attention_bias is not supported"):
        read("mistral", attention_bias=True)
    with pytest.raises(CheckpointError, match="the key 'sliding_window'"):
        read("llama", sliding_window=7)


@pytest.mark.parametrize(
    ("shape_", "changes", "sentence"),
    [
        ("llama", {"rope_parameters": {"rope_type": "axial"}}, "rope_parameters has the type 'axial'"),
        ("llama", {"rope_parameters": {"rope_type": "longrope"}}, "has no 'short_factor', which the type"),
        ("llama", {"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "'full_attention'"),
        ("llama", {"partial_rotary_factor": 0.5}, "the key 'partial_rotary_factor'"),
        ("llama", {"embedding_multiplier": 2.0}, "the key 'embedding_multiplier'"),
        ("llama", {"rope_parameters": {"rope_type": "lama3"}}, "Did you mean 'llama3'"),
        ("llama", {"rope_parameters": {"rope_type": "yarn"}}, "has no 'factor', which the type 'yarn' needs"),
        ("llama", {"rope_parameters": {"rope_type": "llama3", "factor": 2}}, "has no 'low_freq_factor'"),
        ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor is not supp"),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2, "beta_fast": 4}}, "'beta_fast'"),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 0.5}}, "must be at least 1, got 0.5"),
        ("llama", {"rope_parameters": {"rope_theta": 5e5}}, "500000.0, but beside it stands 10000.0"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2}}, "rope_scaling differ"),
        ("llama", {"hidden_act": "gelu"}, "activation 'gelu'"),
        ("llama", {"quantization": {"bits": 4}}, "the key 'quantization'"),
        ("llama", {"hidden_size": "wide"}, "must be a whole number"),
        ("llama", {"num_key_value_heads": 3}, "must divide"),
        ("gpt2", {"activation_function": "relu"}, "activation 'relu'"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx = True"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights = False"),
        ("gpt2", {"n_embed": 3}, "'n_embed'.*Did you mean 'n_embd'"),
    ],
)  # fmt: skip
def test_what_would_change_the_mathematics_is_refused(
    shape_: str, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        layout.from_hf({**layout.to_hf(nano.config(shape_)), **changes})


SCALED = {
    "rope_linear": {"factor": 2.5},
    "rope_dynamic": {"factor": 2.0},
    "rope_llama3": {"low_freq_factor": 2.0},
    "rope_yarn": {"attention_factor": 1.3, "beta_slow": 2.0},
}


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("gone", ["rope_parameters", "rope_scaling"])
def test_scaled_positions_in_either_spelling(name: str, gone: str) -> None:
    config = nano.config(position=Pick(name, {"theta": 5e5, **SCALED[name]}))
    data = layout.to_hf(config)
    del data[gone]
    if gone == "rope_scaling":
        del data["rope_theta"]
        assert layout.from_hf(data) == config
        return
    assert layout.from_hf(data) == config
    data["rope_scaling"]["type"] = data["rope_scaling"].pop("rope_type")
    assert layout.from_hf(data) == config


def test_what_transformers_fills_in_is_filled_in() -> None:
    def read(**scaling: Any) -> Any:
        data = layout.to_hf(nano.config()) | {"rope_parameters": None, "rope_scaling": scaling}
        return layout.from_hf(data).position.options

    yarn = {"rope_type": "yarn", "factor": 4.0}
    assert read(**yarn).original_max_position_embeddings == 128
    assert read(**yarn, attention_factor=None, beta_fast=None) == read(**yarn)
    assert read(**yarn, mscale=1.0) == read(**yarn)
    both = read(**yarn, mscale=1.0, mscale_all_dim=0.5).attention_factor
    assert both == pytest.approx((0.1 * math.log(4) + 1) / (0.05 * math.log(4) + 1))
    assert read(**yarn, mscale=1.0, mscale_all_dim=0.5, attention_factor=1.2).attention_factor == 1.2
    data = layout.to_hf(nano.config())
    del data["max_position_embeddings"]
    assert layout.from_hf(data).max_position_embeddings == 2048


def test_rope_theta_of_older_files() -> None:
    data = layout.to_hf(nano.config()) | {"rope_theta": 5e5}
    del data["rope_parameters"]
    assert layout.from_hf(data).position.options.theta == 5e5
