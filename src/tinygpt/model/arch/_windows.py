"""Layers that read a window and layers that read everything, as other tools list them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygpt.model.arch._source import Source
from tinygpt.model.config import ModelConfig

KINDS = {"sliding_attention": True, "full_attention": False}


def knobs(window: int, slides: Sequence[bool]) -> dict[str, Any]:
    """The knobs of the attention whose marked layers read a window."""
    if not window or not any(slides):
        return {}
    return {"window": window, "full_layers": [i for i, slide in enumerate(slides) if not slide]}


def listed(source: Source, layers: int) -> list[bool] | None:
    """What `layer_types` says: whether each layer reads a window. None where it is left out."""
    types = source.layers("layer_types", layers)
    for kind in types or ():
        if not isinstance(kind, str) or kind not in KINDS:
            raise source.wrong(f"layer_types has the kind '{kind}', and this build knows {', '.join(KINDS)}")
    return None if types is None else [KINDS[kind] for kind in types]


def switched(source: Source) -> int:
    """`sliding_window` where `use_sliding_window` says so, else 0."""
    window = source.get("sliding_window") or 0
    return window if source.get("use_sliding_window") else 0


def read_switched(source: Source) -> dict[str, Any]:
    """The windows of a config that has `use_sliding_window`, and from `max_window_layers` on reads them."""
    layers = source.depth()
    window = switched(source)
    first = source.number("max_window_layers")
    slides = listed(source, layers)
    if slides is None:
        slides = [i >= first for i in range(layers)]
    elif any(slides) and not window:
        raise source.wrong("layer_types has windows, but use_sliding_window or sliding_window has none")
    return knobs(window, slides)


def write_switched(config: ModelConfig) -> dict[str, Any]:
    """The inverse of read_switched."""
    window, slides = config.attention.options.window, sliding(config)
    return {
        "use_sliding_window": bool(window),
        "sliding_window": window or None,
        "max_window_layers": slides.index(True) if window else config.num_hidden_layers,
        "layer_types": types(slides),
    }


def sliding(config: ModelConfig) -> list[bool]:
    """Whether each layer reads a window."""
    knobs = config.attention.options
    return [bool(knobs.window) and i not in knobs.full_layers for i in range(config.num_hidden_layers)]


def types(slides: Sequence[bool]) -> list[str]:
    """`layer_types` of these layers."""
    names = {slide: name for name, slide in KINDS.items()}
    return [names[slide] for slide in slides]
