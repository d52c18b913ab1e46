"""Phi-3 and Phi-4-mini: a Llama that may turn a part of each head and stretch its context by LongRoPE.

On disk queries, keys and values are one matrix, and so are both entrances of the MLP. A Phi-3 that turns all
of each head by plain positions is a Llama or a Mistral and is written as that.

mlx_lm reads it without its window, and uses the long list of LongRoPE for texts of any length.

Paper: Abdin et al. 2024, arXiv:2404.14219.
Differs: nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinygpt.core.backend import mx
from tinygpt.model.arch import _rope, _stack
from tinygpt.model.arch._source import Source, read_sizes
from tinygpt.model.arch._tensors import fused
from tinygpt.model.config import ModelConfig

CLASS = "Phi3ForCausalLM"
USUAL = {
    "hidden_act": "silu", "max_position_embeddings": 4096, "original_max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5, "initializer_range": 0.02, "tie_word_embeddings": False,
}  # fmt: skip


POSITIONS = ("rope", "rope_longrope")  # others stretch all heads in one way, which this one never does


def fits(config: ModelConfig) -> bool:
    """Whether the stack could be one, and no Llama or Mistral."""
    if config.position.name not in POSITIONS:
        return False
    other = config.position.name == "rope_longrope" or getattr(config.position.options, "share", 1) != 1
    return other and _stack.built(config, knobs=("window",), longrope=True)


def write(config: ModelConfig) -> dict[str, Any]:
    """Its config.json."""
    options = config.position.options
    trained = getattr(options, "original_max_position_embeddings", config.max_position_embeddings)
    return {
        **_stack.write_llama(config),
        **_rope.write(config, partial=True),
        "original_max_position_embeddings": trained,
        "sliding_window": config.attention.options.window or None,
    }


def read(source: Source) -> dict[str, Any]:
    """The values of a ModelConfig."""
    source.none_of("attention_bias", "mlp_bias", "lm_head_bias")
    for key in ("full_attn_mod", "interpolate_factor"):
        source.only(key, 1)
    trained = source.get("original_max_position_embeddings")
    position = _rope.read(source, partial=True, trained=trained)
    if position["name"] not in POSITIONS:
        kind = _rope.TYPES[position["name"]]
        raise source.wrong(
            f"a phi3 with positions of the type '{kind}' is not supported", hint="default and longrope are"
        )
    return {
        **read_sizes(source),
        "mlp": source.activation(_stack.SILU),
        "position": position,
        "attention": {"name": "gqa", "window": source.get("sliding_window") or 0},
    }


def to_disk(weights: Mapping[str, mx.array], config: ModelConfig) -> dict[str, mx.array]:
    """Our tensors under its names, the fused ones fused."""
    return fused(weights)
