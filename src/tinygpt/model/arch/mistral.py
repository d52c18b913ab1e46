"""Mistral: a Llama whose layers all read a sliding window.

mlx_lm reads a Mistral without its window: the same up to `sliding_window` tokens, and beyond them only with
caches of that size (`RotatingKVCache(max_size=sliding_window)`).

Paper: Jiang et al. 2023, arXiv:2310.06825.
Differs: nothing.
"""

from __future__ import annotations

from typing import Any

from tinygpt.model.arch import _stack
from tinygpt.model.arch._source import Source
from tinygpt.model.config import ModelConfig

CLASS = "MistralForCausalLM"
USUAL = {
    "hidden_act": "silu", "max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "initializer_range": 0.02,
    "tie_word_embeddings": False, "num_key_value_heads": 8, "sliding_window": 4096,
}  # fmt: skip


def fits(config: ModelConfig) -> bool:
    """Whether the stack could be one."""
    return bool(config.attention.options.window) and _stack.built(config, knobs=("window",))


def write(config: ModelConfig) -> dict[str, Any]:
    """Its config.json."""
    return {**_stack.write_llama(config), "sliding_window": config.attention.options.window}


def read(source: Source) -> dict[str, Any]:
    """The values of a ModelConfig."""
    source.none_of("attention_bias", "mlp_bias")
    return _stack.read_llama(source, window=source.get("sliding_window") or 0)
