"""What a stack is made of, to tell architectures apart, and the part of config.json that most have alike."""

from __future__ import annotations

from typing import Any

from tinygpt.core.config import to_dict
from tinygpt.model.arch import _rope
from tinygpt.model.arch._source import Source, read_sizes, write_sizes
from tinygpt.model.config import ATTENTION, ModelConfig

SILU = {"silu": "swiglu", "swish": "swiglu"}


def built(
    config: ModelConfig,
    *,
    mlp: str = "swiglu",
    norm: str = "rmsnorm",
    residual: str = "plain",
    differs: tuple[str, ...] = (),
    knobs: tuple[str, ...] = (),
    longrope: bool = False,
) -> bool:
    """Whether a stack has these slots and rotary positions, and is plain but for what is named: `differs`,
    fields of the config, and `knobs` of its attention. LongRoPE is Phi-3's."""
    slots = (config.mlp.name, config.norm.name, config.residual.name)
    if slots != (mlp, norm, residual) or config.position.name not in _rope.TYPES:
        return False
    if config.position.name == "rope_longrope" and not longrope:
        return False
    plain = {
        "second_position": None, "embedding_scale": 1.0, "logit_divisor": 1.0, "logit_cap": 0.0,
        "residual": 1.0, "attention_bias": False, "mlp_bias": False,
    }  # fmt: skip
    found = {name: getattr(config, name) for name in plain}
    found["residual"] = getattr(config.residual.options, "scale", 1.0)
    usual, given = to_dict(ATTENTION.config("gqa")()), to_dict(config.attention.options)
    odd = {name for name in given if given[name] != usual[name]}
    return all(found[name] == value for name, value in plain.items() if name not in differs) and odd <= {
        *knobs
    }


def read_llama(source: Source, **attention: Any) -> dict[str, Any]:
    """Sizes, positions and SwiGLU of a Llama-like config, with these knobs of its attention."""
    return {
        **read_sizes(source),
        "mlp": source.activation(SILU),
        "position": _rope.read(source),
        "attention": {"name": "gqa", **attention},
    }


def write_llama(config: ModelConfig) -> dict[str, Any]:
    """The inverse of read_llama, but for the attention."""
    return {"hidden_act": "silu", **write_sizes(config), **_rope.write(config)}
