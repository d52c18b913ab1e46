"""Qwen3 with experts: a Qwen3 whose MLPs are mixtures of experts, but for layers that are kept dense.

`norm_topk_prob` says whether the gates of the chosen experts are made to sum to 1. Dense layers are
`mlp_only_layers`, and all but every `decoder_sparse_step`-th. The terms of the loss are as in Mixtral.

Paper: Yang et al. 2025, arXiv:2505.09388.
Differs: nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinygpt.core.backend import mx
from tinygpt.model.arch import _moe, _rope, _stack, _windows
from tinygpt.model.arch._source import Source, read_sizes, write_sizes
from tinygpt.model.arch._tensors import apart
from tinygpt.model.config import ModelConfig

CLASS = "Qwen3MoeForCausalLM"
USUAL = {
    "hidden_act": "silu", "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "initializer_range": 0.02,
    "tie_word_embeddings": False, "num_key_value_heads": 4, "use_sliding_window": False,
    "sliding_window": 4096, "num_local_experts": 128, "num_experts_per_tok": 8, "norm_topk_prob": False,
    "decoder_sparse_step": 1, "moe_intermediate_size": 768, "intermediate_size": 6144,
    "router_aux_loss_coef": 0.001,
}  # fmt: skip


def fits(config: ModelConfig) -> bool:
    """Whether the stack could be one; with biases mlx_lm could not read it."""
    if not config.attention.options.qk_norm or not _stack.built(
        config, mlp="moe", knobs=("qk_norm", "window")
    ):
        return False
    knobs = config.mlp.options
    return bool(knobs.width) and knobs.renormalize in ("never", _moe.SUMMED[knobs.top_k > 1])


def write(config: ModelConfig) -> dict[str, Any]:
    """Its config.json."""
    knobs, window = config.mlp.options, config.attention.options.window
    return {
        "hidden_act": "silu",
        **write_sizes(config),
        **_rope.write(config),
        "attention_bias": False,
        "use_sliding_window": bool(window),
        "sliding_window": window or None,
        "max_window_layers": 0 if window else config.num_hidden_layers,
        "num_experts": knobs.experts,  # mlx_lm's and older transformers' name
        "num_local_experts": knobs.experts,
        "moe_intermediate_size": knobs.width,
        "norm_topk_prob": knobs.renormalize != "never",
        "decoder_sparse_step": 1,
        "mlp_only_layers": list(knobs.dense_layers),
        **_moe.write(config),
    }


def read(source: Source) -> dict[str, Any]:
    """The values of a ModelConfig."""
    source.activation(_stack.SILU)
    source.none_of("mlp_bias")
    source.get("max_window_layers")  # transformers has the window in all layers or in none
    named = [source.data[key] for key in ("num_experts", "num_local_experts") if source.data.get(key)]
    if named[1:] not in ([], named[:1]):
        raise source.wrong("num_experts and num_local_experts differ")
    for key in ("num_experts", "num_local_experts"):
        source.get(key)
    knobs = _moe.read(source, (named or [source.get("num_local_experts")])[0])
    summed = source.get("norm_topk_prob")
    knobs["renormalize"] = _moe.SUMMED[knobs["top_k"] > 1] if summed else "never"
    layers, every = range(source.depth()), source.whole("decoder_sparse_step")
    alone = source.get("mlp_only_layers") or []
    if not isinstance(alone, list):
        raise source.wrong(f"mlp_only_layers must be a list, got {alone!r}")
    knobs["dense_layers"] = [i for i in layers if i in alone or (i + 1) % every]
    slides = _windows.listed(source, len(layers)) or [True] * len(layers)
    return {
        **read_sizes(source),
        "attention_bias": bool(source.get("attention_bias")),
        "mlp": {"name": "moe", "width": source.get("moe_intermediate_size"), **knobs},
        "position": _rope.read(source),
        "attention": {"name": "gqa", "qk_norm": True, **_windows.knobs(_windows.switched(source), slides)},
    }


def to_disk(weights: Mapping[str, mx.array], config: ModelConfig) -> dict[str, mx.array]:
    """Our tensors under its names, experts one by one."""
    return apart(weights, "mlp")
