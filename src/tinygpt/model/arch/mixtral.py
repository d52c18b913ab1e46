"""Mixtral: a Mistral whose MLPs are mixtures of experts, each as wide as a dense one.

Experts lie on disk one by one, as w1 (gate), w2 (down) and w3 (up). `router_aux_loss_coef` counts where
`output_router_logits` is true; it counts all choices where ours is their mean, so ours is top_k times it.

Paper: Jiang et al. 2024, arXiv:2401.04088.
Differs: no noise on what routers read in training (router_jitter_noise).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinygpt.core.backend import mx
from tinygpt.model.arch import _moe, _rope, _stack
from tinygpt.model.arch._source import Source, read_sizes, write_sizes
from tinygpt.model.arch._tensors import OF_EXPERTS, apart
from tinygpt.model.config import ModelConfig

CLASS = "MixtralForCausalLM"
USUAL = {
    "hidden_act": "silu", "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "initializer_range": 0.02,
    "tie_word_embeddings": False, "num_key_value_heads": 8, "rope_theta": 1000000.0,
    "num_local_experts": 8, "num_experts_per_tok": 2, "router_aux_loss_coef": 0.001,
}  # fmt: skip


def fits(config: ModelConfig) -> bool:
    """Whether the stack could be one: its experts have the width of a dense MLP, spelled out."""
    if not _stack.built(config, mlp="moe", knobs=("window",)):
        return False
    knobs = config.mlp.options
    return knobs.width == config.intermediate_size and knobs.renormalize == _moe.SUMMED[knobs.top_k > 1]


def write(config: ModelConfig) -> dict[str, Any]:
    """Its config.json."""
    return {
        "hidden_act": "silu",
        **write_sizes(config),
        **_rope.write(config),
        "sliding_window": config.attention.options.window or None,
        "num_local_experts": config.mlp.options.experts,
        **_moe.write(config),
    }


def read(source: Source) -> dict[str, Any]:
    """The values of a ModelConfig."""
    source.activation(_stack.SILU)
    source.none_of("attention_bias", "mlp_bias")
    knobs = _moe.read(source, source.get("num_local_experts"))
    knobs |= {"width": source.get("intermediate_size"), "renormalize": _moe.SUMMED[knobs["top_k"] > 1]}
    return {
        **read_sizes(source),
        "mlp": {"name": "moe", **knobs},
        "position": _rope.read(source),
        "attention": {"name": "gqa", "window": source.get("sliding_window") or 0},
    }


def to_disk(weights: Mapping[str, mx.array], config: ModelConfig) -> dict[str, mx.array]:
    """Our tensors under its names, experts one by one."""
    theirs = {ours: name for name, ours in OF_EXPERTS.items()}
    return apart(weights, "block_sparse_moe", theirs.__getitem__)
