"""Gemma 2: sandwich norms, GEGLU, bounded scores and logits; every other layer reads a window.

mlx_lm reads it without its window. transformers computes its bounded scores in its eager attention.

Paper: Gemma Team 2024, arXiv:2408.00118.
Differs: nothing.
"""

from __future__ import annotations

from typing import Any

from tinygpt.model.arch import _gemma, _rope
from tinygpt.model.arch._gemma import to_disk as to_disk
from tinygpt.model.arch._source import Source
from tinygpt.model.config import ModelConfig

CLASS = "Gemma2ForCausalLM"
USUAL = {
    **_gemma.USUAL, "vocab_size": 256000, "max_position_embeddings": 8192, "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}  # fmt: skip


def fits(config: ModelConfig) -> bool:
    """Whether the stack could be one."""
    return not config.attention.options.qk_norm and _gemma.fits(config, knobs=())


def write(config: ModelConfig) -> dict[str, Any]:
    """Its config.json."""
    return {**_gemma.write(config), **_rope.write(config)}


def read(source: Source) -> dict[str, Any]:
    """The values of a ModelConfig."""
    source.get("sliding_window_size")  # in older files, beside the one that counts
    slides = [i % 2 == 0 for i in range(source.depth())]
    return {**_gemma.read(source, slides), "position": _rope.read(source)}
