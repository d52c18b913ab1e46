"""Qwen2: a Llama with biases on queries, keys and values, and windows in its last layers if asked for.

mlx_lm reads it without windows.

Paper: Yang et al. 2024, arXiv:2407.10671.
Differs: no dual chunk attention, which only serving beyond the trained context adds.
"""

from __future__ import annotations

from typing import Any

from tinygpt.model.arch import _stack, _windows
from tinygpt.model.arch._source import Source
from tinygpt.model.config import ModelConfig

CLASS = "Qwen2ForCausalLM"
USUAL = {
    "hidden_act": "silu", "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "initializer_range": 0.02,
    "tie_word_embeddings": False, "num_key_value_heads": 32, "use_sliding_window": False,
    "sliding_window": 4096, "max_window_layers": 28,
}  # fmt: skip


def fits(config: ModelConfig) -> bool:
    """Whether the stack could be one."""
    knobs = config.attention.options
    named = ("window", "full_layers", "output_bias")
    return not knobs.output_bias and _stack.built(config, differs=("attention_bias",), knobs=named)


def write(config: ModelConfig) -> dict[str, Any]:
    """Its config.json."""
    return {**_stack.write_llama(config), **_windows.write_switched(config)}


def read(source: Source) -> dict[str, Any]:
    """The values of a ModelConfig."""
    source.none_of("use_mrope", "mlp_bias")
    source.only("attention_bias", True)
    values = _stack.read_llama(source, output_bias=False, **_windows.read_switched(source))
    return {**values, "attention_bias": True}
