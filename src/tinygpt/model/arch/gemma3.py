"""Gemma 3 with pictures: its text part is opened, and it is written as that.

The vision tower's tensors are left out; what the model answers to text is the same.

Paper: Gemma Team 2025, arXiv:2503.19786.
Differs: no pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinygpt.model.arch import gemma3_text
from tinygpt.model.arch._source import Source
from tinygpt.model.config import ModelConfig

CLASS = "Gemma3ForConditionalGeneration"
USUAL: dict[str, Any] = {"tie_word_embeddings": True}
# Of pictures; they change nothing for text.
PICTURES = (
    "vision_config", "mm_tokens_per_image", "image_token_index", "image_token_id", "boi_token_index",
    "boi_token_id", "eoi_token_index", "eoi_token_id", "initializer_range", "vocab_size",
)  # fmt: skip


def fits(config: ModelConfig) -> bool:
    """Never: what we write has no pictures."""
    return False


def write(config: ModelConfig) -> dict[str, Any]:
    """Its text part's config.json."""
    return gemma3_text.write(config)


def read(source: Source) -> dict[str, Any]:
    """The values of a ModelConfig, out of `text_config`."""
    text = source.get("text_config")
    if not isinstance(text, Mapping):
        raise source.wrong("a gemma3 needs a table text_config", hint="the text models are gemma3_text")
    for key in PICTURES:
        source.get(key)
    tied = source.get("tie_word_embeddings")
    inner = Source(text, "gemma3_text", gemma3_text.USUAL, f"{source.where}: text_config")
    values = gemma3_text.read(inner)
    inner.close()
    return values | {"tie_word_embeddings": bool(text.get("tie_word_embeddings", tied))}
