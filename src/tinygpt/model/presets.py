"""Named sizes: Llama-shaped presets, the original's GPT-2-shaped ones, and sizing by depth."""

from __future__ import annotations

import dataclasses
from typing import Any

from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError, unknown
from tinygpt.model.config import ModelConfig

# name: layers, width, heads, context. The original's table (GPT-2-shaped, byte vocabulary).
SIZES = {
    "tiny": (4, 128, 4, 128),
    "small": (6, 192, 6, 256),
    "huge": (12, 256, 8, 256),
    "mega": (24, 512, 8, 1024),
    "behemoth": (32, 1024, 16, 1024),
    "titan": (48, 1536, 24, 1024),
}
# Shapes that were drawn as a Llama from the start and have no GPT-2-shaped twin.
LLAMAS: dict[str, dict[str, Any]] = {
    "mini-llama": {
        "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 16, "num_key_value_heads": 4,
        "intermediate_size": 8192, "max_position_embeddings": 2048, "tie_word_embeddings": False,
    },
}  # fmt: skip


def names() -> list[str]:
    """All preset names: `tiny` is Llama-shaped, `gpt2-tiny` has the original's layout."""
    return [*SIZES, *LLAMAS, *(f"gpt2-{name}" for name in SIZES)]


def preset(name: str, *, vocab_size: int, **changes: Any) -> ModelConfig:
    """The config of a preset; `changes` replace single fields. Unknown names get the nearest one."""
    if name in LLAMAS:
        return ModelConfig(**{"vocab_size": vocab_size, **LLAMAS[name], **changes})
    size = name.removeprefix("gpt2-")
    if size not in SIZES:
        raise unknown("preset", name, names())
    layers, width, heads, context = SIZES[size]
    base: dict[str, Any] = {
        "vocab_size": vocab_size, "hidden_size": width, "num_hidden_layers": layers,
        "num_attention_heads": heads, "max_position_embeddings": context,
    }  # fmt: skip
    if name.startswith("gpt2-"):
        base |= {
            "attention_bias": True, "mlp_bias": True,
            "mlp": Pick("gelu"), "position": Pick("learned"), "norm": Pick("layernorm"),
        }  # fmt: skip
    else:
        # Two query heads share a key and value head: the cache halves, quality hardly moves at these sizes.
        base["num_key_value_heads"] = heads // 2
    return ModelConfig(**{**base, **changes})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Depth:
    """What `--depth N` derives: the model and a training plan to go with it."""

    model: ModelConfig
    lr: float
    batch: int
    steps: int
    tokens: int


def by_depth(depth: int, *, vocab_size: int, context: int = 1024, tokens_per_parameter: int = 20) -> Depth:
    """One-knob sizing: width 64 x depth, one head per 64 features, and a compute-optimal token budget.

    Rules (the original's `--depth`): peak LR = clamp(3e-3 sqrt(512 / d), 1e-4, 6e-3), batch = max(1, 32 d /
    context) rows, tokens = k 12 L d^2 with k = 20 (Hoffmann et al. 2022, arXiv:2203.15556) or 40
    (overtrained, better to serve)."""
    if depth < 1:
        raise ConfigError(f"--depth must be at least 1, got {depth}")
    width = 64 * depth
    model = ModelConfig(
        vocab_size=vocab_size, hidden_size=width, num_hidden_layers=depth, num_attention_heads=depth,
        max_position_embeddings=context,
    )  # fmt: skip
    batch = max(1, 32 * width // context)
    tokens = tokens_per_parameter * 12 * depth * width * width
    return Depth(
        model=model,
        lr=min(6e-3, max(1e-4, 3e-3 * (512 / width) ** 0.5)),
        batch=batch,
        steps=max(1, tokens // (batch * context)),
        tokens=tokens,
    )
