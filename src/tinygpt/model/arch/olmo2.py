"""OLMo 2: a Llama that norms what sublayers make instead of what they read, and queries and keys whole.

Paper: OLMo Team 2025, arXiv:2501.00656.
Differs: nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinygpt.core.backend import mx
from tinygpt.model.arch import _stack
from tinygpt.model.arch._source import Source
from tinygpt.model.arch._tensors import POSTNORM, renamed
from tinygpt.model.config import ModelConfig

CLASS = "Olmo2ForCausalLM"
USUAL = {
    "hidden_act": "silu", "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "initializer_range": 0.02,
    "tie_word_embeddings": False,
}  # fmt: skip


def fits(config: ModelConfig) -> bool:
    """Whether the stack could be one."""
    return config.attention.options.qk_norm_width and _stack.built(
        config, residual="postnorm", differs=("attention_bias",), knobs=("qk_norm", "qk_norm_width")
    )


def write(config: ModelConfig) -> dict[str, Any]:
    """Its config.json."""
    return {**_stack.write_llama(config), "attention_bias": config.attention_bias}


def read(source: Source) -> dict[str, Any]:
    """The values of a ModelConfig."""
    source.none_of("clip_qkv", "mlp_bias")
    values = _stack.read_llama(source, qk_norm=True, qk_norm_width=True)
    return {**values, "attention_bias": bool(source.get("attention_bias")), "residual": "postnorm"}


def to_disk(weights: Mapping[str, mx.array], config: ModelConfig) -> dict[str, mx.array]:
    """Our tensors under its names."""
    return renamed(weights, POSTNORM)
