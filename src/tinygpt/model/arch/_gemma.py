"""What Gemma 2 and Gemma 3 have alike: sandwich norms that count from one, GEGLU, scaled embeddings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tinygpt.core.backend import mx
from tinygpt.model.arch import _stack, _windows
from tinygpt.model.arch._source import Source, read_sizes, write_sizes
from tinygpt.model.arch._tensors import SANDWICH, renamed
from tinygpt.model.config import ModelConfig

GELUS = {"gelu_pytorch_tanh": "tanh", "gelu": "none"}
USUAL = {
    "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2304, "intermediate_size": 9216,
    "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
    "rms_norm_eps": 1e-6, "initializer_range": 0.02, "tie_word_embeddings": True,
    "query_pre_attn_scalar": 256, "sliding_window": 4096,
}  # fmt: skip


def fits(config: ModelConfig, *differs: str, knobs: tuple[str, ...]) -> bool:
    """Whether the stack could be one of the two."""
    scaled = config.attention.options.scale and config.embedding_scale == math.sqrt(config.hidden_size)
    named = ("window", "full_layers", "softcap", "scale", *knobs)
    other = ("embedding_scale", "logit_cap", "attention_bias", *differs)
    slots = {"mlp": "geglu", "norm": "rmsnorm_plus_one", "residual": "sandwich"}
    return bool(scaled) and _stack.built(config, **slots, differs=other, knobs=named)


def write(config: ModelConfig) -> dict[str, Any]:
    """The keys of config.json that both have, but for positions."""
    knobs = config.attention.options
    gelu = {ours: name for name, ours in GELUS.items()}[config.mlp.options.approximate]
    scalar = knobs.scale**-2
    return {
        **write_sizes(config),
        "hidden_activation": gelu,
        "attention_bias": config.attention_bias,
        "query_pre_attn_scalar": round(scalar) if math.isclose(scalar, round(scalar)) else scalar,
        "sliding_window": knobs.window or None,
        "layer_types": _windows.types(_windows.sliding(config)),
        "attn_logit_softcapping": knobs.softcap or None,
        "final_logit_softcapping": config.logit_cap or None,
        "use_bidirectional_attention": False,
    }


def read(source: Source, slides: list[bool], **attention: Any) -> dict[str, Any]:
    """The values of a ModelConfig, but for positions; slides: which layers read a window by default."""
    source.none_of("use_bidirectional_attention", "mlp_bias")
    source.get("hidden_act")  # older files have it beside the one that counts
    gelu = source.activation(GELUS, "hidden_activation")
    scalar = source.number("query_pre_attn_scalar")
    if scalar <= 0:
        raise source.wrong(f"query_pre_attn_scalar must be positive, got {scalar}")
    found = _windows.listed(source, len(slides))
    return {
        **read_sizes(source),
        "mlp": {"name": "geglu", "approximate": gelu},
        "norm": "rmsnorm_plus_one",
        "residual": "sandwich",
        "attention_bias": bool(source.get("attention_bias")),
        "embedding_scale": math.sqrt(source.whole("hidden_size")),
        "logit_cap": source.number("final_logit_softcapping"),
        "attention": {
            "name": "gqa",
            "softcap": source.number("attn_logit_softcapping"),
            "scale": scalar**-0.5,
            **_windows.knobs(source.get("sliding_window") or 0, slides if found is None else found),
            **attention,
        },
    }


def to_disk(weights: Mapping[str, mx.array], config: ModelConfig) -> dict[str, mx.array]:
    """Our tensors under their names."""
    return renamed(weights, SANDWICH)
