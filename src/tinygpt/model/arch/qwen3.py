"""Qwen3: a Llama that norms queries and keys head by head; windows in its last layers if asked for.

mlx_lm reads it without windows and without biases.

Paper: Yang et al. 2025, arXiv:2505.09388.
Differs: nothing.
"""

from __future__ import annotations

from typing import Any

from tinygpt.model.arch import _stack, _windows
from tinygpt.model.arch._source import Source
from tinygpt.model.config import ModelConfig

CLASS = "Qwen3ForCausalLM"
USUAL = {
    "hidden_act": "silu", "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "initializer_range": 0.02,
    "tie_word_embeddings": False, "num_key_value_heads": 32, "head_dim": 128, "use_sliding_window": False,
    "sliding_window": 4096, "max_window_layers": 28,
}  # fmt: skip


def fits(config: ModelConfig) -> bool:
    """Whether the stack could be one; with biases mlx_lm could not read it."""
    return config.attention.options.qk_norm and _stack.built(
        config, knobs=("qk_norm", "window", "full_layers")
    )


def write(config: ModelConfig) -> dict[str, Any]:
    """Its config.json."""
    return {**_stack.write_llama(config), "attention_bias": False, **_windows.write_switched(config)}


def read(source: Source) -> dict[str, Any]:
    """The values of a ModelConfig."""
    source.none_of("mlp_bias")
    values = _stack.read_llama(source, qk_norm=True, **_windows.read_switched(source))
    return {**values, "attention_bias": bool(source.get("attention_bias"))}
