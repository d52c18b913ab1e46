"""Llama: RoPE in all its scalings, RMSNorm, SwiGLU, grouped queries.

Llama 1 to 3.x, and the many stacks that are built as they are. With `attention_bias` all four projections
have biases, with `mlp_bias` all three matrices of the MLP.

Paper: Touvron et al. 2023, arXiv:2302.13971; Grattafiori et al. 2024, arXiv:2407.21783.
Differs: nothing.
"""

from __future__ import annotations

from typing import Any

from tinygpt.model.arch import _stack
from tinygpt.model.arch._source import Source
from tinygpt.model.config import ModelConfig

CLASS = "LlamaForCausalLM"
USUAL = {
    "hidden_act": "silu", "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "initializer_range": 0.02,
    "tie_word_embeddings": False,
}  # fmt: skip


def fits(config: ModelConfig) -> bool:
    """Whether the stack could be one."""
    return _stack.built(config, differs=("attention_bias", "mlp_bias"))


def write(config: ModelConfig) -> dict[str, Any]:
    """Its config.json."""
    biases = {name: getattr(config, name) for name in ("attention_bias", "mlp_bias")}
    return {**_stack.write_llama(config), **biases}


def read(source: Source) -> dict[str, Any]:
    """The values of a ModelConfig."""
    source.none_of("rope_interleaved")
    biases = {name: bool(source.get(name)) for name in ("attention_bias", "mlp_bias")}
    return {**_stack.read_llama(source), **biases}
