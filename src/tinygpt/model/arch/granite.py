"""Granite: a Llama with four multipliers, of embeddings, scores, residuals and logits.

Paper: Granite Team 2024, Granite 3.0 Language Models (IBM); of the multipliers: Yang et al. 2022,
arXiv:2203.03466.
Differs: nothing.
"""

from __future__ import annotations

from typing import Any

from tinygpt.model.arch import _stack
from tinygpt.model.arch._source import Source
from tinygpt.model.config import ModelConfig

CLASS = "GraniteForCausalLM"
USUAL = {
    "hidden_act": "silu", "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "initializer_range": 0.02,
    "tie_word_embeddings": False, "embedding_multiplier": 1.0, "attention_multiplier": 1.0,
    "residual_multiplier": 1.0, "logits_scaling": 1.0,
}  # fmt: skip


def fits(config: ModelConfig) -> bool:
    """Whether the stack could be one: it has the scale of its scores spelled out."""
    scaled = ("embedding_scale", "logit_divisor", "residual", "attention_bias", "mlp_bias")
    return bool(config.attention.options.scale) and _stack.built(config, differs=scaled, knobs=("scale",))


def write(config: ModelConfig) -> dict[str, Any]:
    """Its config.json."""
    return {
        **_stack.write_llama(config),
        "attention_bias": config.attention_bias,
        "mlp_bias": config.mlp_bias,
        "embedding_multiplier": config.embedding_scale,
        "attention_multiplier": config.attention.options.scale,
        "residual_multiplier": config.residual.options.scale,
        "logits_scaling": config.logit_divisor,
    }


def read(source: Source) -> dict[str, Any]:
    """The values of a ModelConfig."""
    return {
        **_stack.read_llama(source, scale=source.number("attention_multiplier", 1.0)),
        "attention_bias": bool(source.get("attention_bias")),
        "mlp_bias": bool(source.get("mlp_bias")),
        "embedding_scale": source.number("embedding_multiplier", 1.0),
        "residual": {"name": "plain", "scale": source.number("residual_multiplier", 1.0)},
        "logit_divisor": source.number("logits_scaling", 1.0),
    }
