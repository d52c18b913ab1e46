"""Gemma 3, the text model: as Gemma 2 with normed heads, and five layers of a window to one of all tokens.

Layers with a window turn positions by a short base (`rope_local_base_freq`), the others by a long one.

Paper: Gemma Team 2025, arXiv:2503.19786.
Differs: no attention in both directions, which only embedding models of the family have.
"""

from __future__ import annotations

from typing import Any

from tinygpt.model.arch import _gemma, _rope, _windows
from tinygpt.model.arch._gemma import to_disk as to_disk
from tinygpt.model.arch._source import Source
from tinygpt.model.config import ModelConfig

CLASS = "Gemma3ForCausalLM"
LOCAL = "rope_local_base_freq"
PATTERN = "sliding_window_pattern"
USUAL = {
    **_gemma.USUAL, "vocab_size": 262208, "max_position_embeddings": 131072, PATTERN: 6,
    "rope_theta": 1000000.0, LOCAL: 10000.0,
}  # fmt: skip


def fits(config: ModelConfig) -> bool:
    """Whether the stack could be one: its layers with a window are those with the second position."""
    slides = [i for i, slide in enumerate(_windows.sliding(config)) if slide]
    knobs = ("qk_norm",)
    return config.attention.options.qk_norm and (
        list(config.second_layers) == slides and _gemma.fits(config, "second_position", knobs=knobs)
    )


def write(config: ModelConfig) -> dict[str, Any]:
    """Its config.json."""
    whole = config.attention.options.full_layers
    rope = _rope.write(config)
    tables = {"full_attention": rope["rope_parameters"]}
    if config.second_position is not None:
        local, table = _rope.spelled(config.second_position)
        tables["sliding_attention"] = {"rope_theta": local, **table}
        rope[LOCAL] = local
    # mlx_lm knows no list of layers, only that every so many read everything.
    every = whole[0] + 1 if whole else config.num_hidden_layers + 1
    return {**_gemma.write(config), **rope, "rope_parameters": tables, PATTERN: every}


def read(source: Source) -> dict[str, Any]:
    """The values of a ModelConfig."""
    # transformers 5 writes it with a bar before it.
    every = source.whole(PATTERN if source.get(f"_{PATTERN}") is None else f"_{PATTERN}")
    source.get(PATTERN)
    slides = [bool((i + 1) % every) for i in range(source.depth())]
    values = _gemma.read(source, slides, qk_norm=True)
    values["position"] = _rope.read(source, part="full_attention")
    knobs, count = values["attention"], len(slides)
    second = [i for i in range(count) if "window" in knobs and i not in knobs["full_layers"]]
    local = _rope.read(source, part="sliding_attention", theta=LOCAL)
    return {**values, "second_position": local, "second_layers": second} if second else values
