"""GPT-2: learned positions, LayerNorm, GELU, biases everywhere; matrices lie transposed, q, k, v in one.

mlx_lm reads it with tanh GELU and four times the width only.

Paper: Radford et al. 2019, Language Models are Unsupervised Multitask Learners.
Differs: nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tinygpt.core.backend import mx
from tinygpt.core.config import Pick
from tinygpt.model.arch._source import GRID, Source
from tinygpt.model.config import ATTENTION, ModelConfig

CLASS = "GPT2LMHeadModel"
USUAL = {
    "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "initializer_range": 0.02,
    "n_positions": 1024,
}  # fmt: skip
GELUS = {"gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "gelu": "none"}
SIZES = {
    "vocab_size": "vocab_size",
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_positions": "max_position_embeddings",
    "n_inner": "intermediate_size",
    "layer_norm_epsilon": "norm_eps",
    "initializer_range": "initializer_range",
}
PLAIN = {
    "tie_word_embeddings": True,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}
# Of dropout, of other tasks and of the precision of scores.
IDLE = (
    "attn_pdrop", "n_ctx", "reorder_and_upcast_attn", "summary_activation", "summary_first_dropout",
    "summary_proj_to_labels", "summary_type", "summary_use_proj",
)  # fmt: skip
# Ours, its own.
NAMES = (
    (r"model\.embed_tokens\.", "wte."),
    (r"model\.embed_positions\.", "wpe."),
    (r"model\.norm\.", "ln_f."),
    (r"model\.layers\.(\d+)\.input_layernorm\.", r"h.\1.ln_1."),
    (r"model\.layers\.(\d+)\.post_attention_layernorm\.", r"h.\1.ln_2."),
    (r"model\.layers\.(\d+)\.self_attn\.o_proj\.", r"h.\1.attn.c_proj."),
    (r"model\.layers\.(\d+)\.mlp\.up_proj\.", r"h.\1.mlp.c_fc."),
    (r"model\.layers\.(\d+)\.mlp\.down_proj\.", r"h.\1.mlp.c_proj."),
)


def fits(config: ModelConfig) -> bool:
    """Whether the stack could be one."""
    slots = (config.mlp.name, config.position.name, config.norm.name)
    return (
        slots == ("gelu", "learned", "layernorm")
        and config.attention == Pick("gqa", ATTENTION.config("gqa")())
        and config.num_key_value_heads == config.num_attention_heads
        and config.head_dim * config.num_attention_heads == config.hidden_size
        and config.tie_word_embeddings
    )


def write(config: ModelConfig) -> dict[str, Any]:
    """Its config.json."""
    gelu = config.mlp.options.approximate
    return {
        **{theirs: getattr(config, name) for theirs, name in SIZES.items()},
        "n_ctx": config.max_position_embeddings,
        "activation_function": "gelu_new" if gelu == "tanh" else "gelu",
        "tie_word_embeddings": True,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "resid_pdrop": 0.0,
    }


def read(source: Source) -> dict[str, Any]:
    """The values of a ModelConfig."""
    for key, usual in PLAIN.items():
        source.only(key, usual)
    for key in IDLE:
        source.get(key)
    sizes = {name: source.get(theirs) for theirs, name in SIZES.items()}
    sizes |= {name: source.data.get(name) for name in GRID}
    gelu = source.activation(GELUS, "activation_function")
    return {
        **{name: value for name, value in sizes.items() if value is not None},
        "mlp": {"name": "gelu", "approximate": gelu},
        "position": "learned",
        "norm": "layernorm",
        "attention_bias": True,
        "mlp_bias": True,
    }


def to_disk(weights: Mapping[str, mx.array], config: ModelConfig) -> dict[str, mx.array]:
    """Our tensors under its names and in its layout."""
    result: dict[str, mx.array] = {}
    for name, value in weights.items():
        if re.search(r"self_attn\.[qkv]_proj", name):
            continue
        new = _rename(name, NAMES)
        result[new] = value.T if new.endswith(".weight") and ".c_" in new else value
    for layer in range(config.num_hidden_layers):
        for part, join in (("weight", lambda ms: mx.concatenate(ms, axis=0).T), ("bias", mx.concatenate)):
            heads = [weights[f"model.layers.{layer}.self_attn.{h}_proj.{part}"] for h in "qkv"]
            result[f"h.{layer}.attn.c_attn.{part}"] = join(heads)
    return result


def from_disk(weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """The inverse. mlx_lm's files have the prefix `model.` and matrices that are turned already.

    Tensors come back in row order: a product with a transposed view rounds differently, and a resumed run
    must not."""
    back = tuple((_escape(new), _unescape(old)) for old, new in NAMES)
    turn = "model.wte.weight" not in weights
    result: dict[str, mx.array] = {}
    for name, value in weights.items():
        name = name.removeprefix("transformer.").removeprefix("model.")
        if re.fullmatch(r"h\.\d+\.attn\.(masked_)?bias", name):
            continue  # old GPT-2 files carry the causal mask, a constant, beside the weights
        turned = turn and name.endswith(".weight") and ".c_" in name
        fused = re.fullmatch(r"h\.(\d+)\.attn\.c_attn\.(\w+)", name)
        if fused:
            layer, part = fused.groups()
            for h, piece in zip("qkv", mx.split(value.T if turned else value, 3, axis=0)):
                result[f"model.layers.{layer}.self_attn.{h}_proj.{part}"] = mx.contiguous(piece)
            continue
        result[_rename(name, back)] = mx.contiguous(value.T) if turned else value
    return result


def _rename(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for pattern, new in table:
        renamed, n = re.subn(f"^{pattern}", new, name)
        if n:
            return renamed
    return name


def _escape(new: str) -> str:
    return re.escape(new).replace(r"\\1", r"(\d+)")


def _unescape(old: str) -> str:
    return old.replace(r"(\d+)", r"\1").replace("\\.", ".")
