"""How a model lies on disk: config.json and tensor names as other tools expect them.

A config whose slots are those of Llama, Qwen3 (QK-norm), Mistral (a sliding window) or GPT-2 is written with
that `model_type`, names and layout, so `transformers` and `mlx_lm` open the directory as it lies. Any other
config has `model_type` "tinygpt" and its slots spelled out.

mlx_lm reads a Mistral without its window: the same up to `sliding_window` tokens, and beyond them only with
caches of that size (`RotatingKVCache(max_size=sliding_window)`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tinygpt.core.backend import mx
from tinygpt.core.config import Pick, from_dict, to_dict
from tinygpt.core.errors import CheckpointError, ConfigError, nearest
from tinygpt.model import _rope_layout
from tinygpt.model.config import ATTENTION, ModelConfig

SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "max_position_embeddings",
    "tie_word_embeddings",
    "attention_bias",
    "mlp_bias",
    "initializer_range",
)
GRID = ("qat_bits", "qat_group_size")  # written where the weights were trained for quantization
SLOTS = ("attention", "mlp", "position", "norm", "residual", "head")
# Written for other readers; they say nothing that our config does not already say.
DERIVED = {
    "architectures",
    "model_type",
    "torch_dtype",
    "dtype",
    "hidden_act",
    "rope_parameters",
    "rope_scaling",
    "use_cache",
    "transformers_version",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "pretraining_tp",
    "attention_dropout",
}
LLAMAS = {"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM", "mistral": "MistralForCausalLM"}
# What a stack means by leaving a key out, where our own defaults differ: as in transformers.
LEFT_OUT: dict[str, dict[str, Any]] = {
    "llama": {"max_position_embeddings": 2048},
    "qwen3": {"max_position_embeddings": 32768, "head_dim": 128},
    "mistral": {"max_position_embeddings": 131072, "num_key_value_heads": 8},
}
# Keys of one kind alone.
OWN = {
    "llama": set[str](),
    "qwen3": {"use_sliding_window", "sliding_window", "max_window_layers", "layer_types"},
    "mistral": {"sliding_window"},
}
NO_BIAS = {"llama": (), "qwen3": ("mlp_bias",), "mistral": ("attention_bias", "mlp_bias")}
GPT2_DERIVED = {
    "architectures",
    "model_type",
    "torch_dtype",
    "dtype",
    "n_ctx",
    "embd_pdrop",
    "attn_pdrop",
    "resid_pdrop",
    "use_cache",
    "transformers_version",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "add_cross_attention",
    "reorder_and_upcast_attn",
    "scale_attn_by_inverse_layer_idx",
    "scale_attn_weights",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "tie_word_embeddings",
}
Weights = dict[str, mx.array]


def model_type(config: ModelConfig) -> str:
    """The name other tools know this stack by: "llama", "qwen3", "mistral", "gpt2", or "tinygpt" when none
    fits."""
    if config.attention.name != "gqa" or config.attention.options.key_shift:
        return "tinygpt"  # other tools know neither another attention nor shifted keys
    if config.embedding_norm is not None or config.depth.name != "all":
        return "tinygpt"
    slots = tuple(getattr(config, slot).name for slot in SLOTS)
    # mlx_lm reads one `attention_bias` for all four projections and so do we.
    llama = slots == ("gqa", "swiglu", config.position.name, "rmsnorm", "plain", "linear")
    if llama and config.position.name in _rope_layout.TYPES:
        return _llama_kind(config)
    if config.attention != Pick("gqa", ATTENTION.config("gqa")()):
        return "tinygpt"
    whole_heads = config.num_key_value_heads == config.num_attention_heads
    square = config.head_dim * config.num_attention_heads == config.hidden_size
    biased = config.attention_bias and config.mlp_bias and config.tie_word_embeddings
    if (
        slots == ("gqa", "gelu", "learned", "layernorm", "plain", "linear")
        and whole_heads
        and square
        and biased
    ):
        return "gpt2"
    return "tinygpt"


def _llama_kind(config: ModelConfig) -> str:
    """Of the stacks that are built as Llama is, the one with this attention."""
    normed, window = config.attention.options.qk_norm, config.attention.options.window
    kind = "qwen3" if normed else "mistral" if window else "llama"
    # mlx_lm knows Qwen3 without biases only; a Mistral has none anywhere.
    biased = config.mlp_bias or config.attention_bias
    return "tinygpt" if kind != "llama" and biased else kind


def to_hf(
    config: ModelConfig, *, eos: int | None = None, bos: int | None = None, pad: int | None = None
) -> dict[str, Any]:
    """The content of config.json."""
    kind = model_type(config)
    ids = {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad}
    grid = {name: getattr(config, name) for name in GRID if config.qat_bits}
    if kind == "gpt2":
        gelu = config.mlp.options.approximate
        return {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "vocab_size": config.vocab_size,
            "n_embd": config.hidden_size,
            "n_layer": config.num_hidden_layers,
            "n_head": config.num_attention_heads,
            "n_positions": config.max_position_embeddings,
            "n_ctx": config.max_position_embeddings,
            "n_inner": config.intermediate_size,
            "activation_function": "gelu_new" if gelu == "tanh" else "gelu",
            "layer_norm_epsilon": config.norm_eps,
            "initializer_range": config.initializer_range,
            "tie_word_embeddings": True,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
            "resid_pdrop": 0.0,
            **grid,
            **ids,
        }
    sizes = {name: getattr(config, name) for name in SIZES}
    if kind in LLAMAS:
        return {
            "architectures": [LLAMAS[kind]],
            "model_type": kind,
            "hidden_act": "silu",
            **{name: value for name, value in sizes.items() if name not in NO_BIAS[kind]},
            "rms_norm_eps": config.norm_eps,
            **_window_to_hf(config, kind),
            **_rope_layout.rope_to_hf(config),
            **grid,
            **ids,
        }
    slots = {slot: to_dict(getattr(config, slot)) for slot in SLOTS}
    if config.embedding_norm is not None:
        slots["embedding_norm"] = to_dict(config.embedding_norm)
    if config.depth.name != "all":
        slots["depth"] = to_dict(config.depth)
    return {
        "architectures": ["TinyGPT"],
        "model_type": "tinygpt",
        **sizes,
        "norm_eps": config.norm_eps,
        **slots,
        **grid,
        **ids,
    }


def known(kind: object) -> bool:
    """Whether the native decoder opens models of this model_type."""
    return kind in (*LLAMAS, "gpt2", "tinygpt")


def from_hf(data: Mapping[str, Any], where: str = "config.json") -> ModelConfig:
    """A ModelConfig from config.json. Keys that could change the mathematics and are not known are refused by
    name."""
    kind = data.get("model_type")
    try:
        if kind == "gpt2":
            return _from_gpt2(data, where)
        if kind in LLAMAS:
            return _from_llama(data, kind, where)
        if kind == "tinygpt":
            known = {k: v for k, v in data.items() if k not in DERIVED}
            return from_dict(ModelConfig, known)
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error.message}", hint=error.hint) from error
    raise CheckpointError(
        f"{where}: model_type '{kind}' is not one this build opens",
        hint=f"it opens {', '.join(LLAMAS)}, gpt2 and tinygpt",
    )


def _refuse(data: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in data:
        if key not in known:
            raise CheckpointError(
                f"{where} has the key '{key}', which this build does not know.{nearest(key, known)}",
                hint="it could change what the model computes, so it is not ignored",
            )


def _from_llama(data: Mapping[str, Any], kind: str, where: str) -> ModelConfig:
    _refuse(data, {*SIZES, *DERIVED, *GRID, *OWN[kind], "rms_norm_eps", "rope_theta"}, where)
    if data.get("hidden_act", "silu") != "silu":
        raise CheckpointError(f"{where}: activation '{data['hidden_act']}' is not supported")
    for name in NO_BIAS[kind]:
        if data.get(name):
            raise CheckpointError(f"{where}: a {kind} with {name} is not supported")
    sizes = {name: data[name] for name in (*SIZES, *GRID) if data.get(name) is not None}
    usual = {"tie_word_embeddings": False, **LEFT_OUT[kind]}
    usual = {name: value for name, value in usual.items() if name not in data}
    values = {"max_position_embeddings": 2048, **usual, "norm_eps": data.get("rms_norm_eps", 1e-6), **sizes}
    position = _rope_layout.rope_from_hf(data, values["max_position_embeddings"], where)
    window = _window_from_hf(data, kind, where)
    attention = {"name": "gqa", "window": window, "qk_norm": kind == "qwen3"}
    return from_dict(ModelConfig, {**values, "position": position, "attention": attention})


def _window_to_hf(config: ModelConfig, kind: str) -> dict[str, Any]:
    """The keys that say how far back the layers read."""
    window = config.attention.options.window
    if kind == "mistral":
        return {"sliding_window": window}
    if kind == "qwen3":
        layers = config.num_hidden_layers
        return {
            "use_sliding_window": bool(window),
            "sliding_window": window or None,
            "max_window_layers": 0 if window else layers,
            "layer_types": ["sliding_attention" if window else "full_attention"] * layers,
        }
    return {}


def _window_from_hf(data: Mapping[str, Any], kind: str, where: str) -> int:
    """The window of all layers, 0 for none; layers that differ are refused."""
    if kind == "mistral":
        return data.get("sliding_window", 4096) or 0
    if kind != "qwen3":
        return 0
    window = (data.get("sliding_window", 4096) or 0) if data.get("use_sliding_window") else 0
    layers, first = data.get("num_hidden_layers", 32), data.get("max_window_layers", 28)
    slides = data.get("layer_types") or [
        "sliding_attention" if window and i >= first else "full_attention" for i in range(layers)
    ]
    if set(slides) == {"full_attention"}:
        return 0
    if set(slides) != {"sliding_attention"} or not window:
        raise CheckpointError(
            f"{where}: the windows of its layers differ, or layer_types and use_sliding_window do",
            hint="this build has one window for all layers",
        )
    return window


def _from_gpt2(data: Mapping[str, Any], where: str) -> ModelConfig:
    own = {"vocab_size", "n_embd", "n_layer", "n_head", "n_positions", "n_inner", "activation_function"}
    _refuse(data, {*own, *GPT2_DERIVED, *GRID, "layer_norm_epsilon", "initializer_range"}, where)
    plain = {
        "tie_word_embeddings": True, "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    }  # fmt: skip
    for key, usual in plain.items():
        if data.get(key, usual) is not usual:
            raise CheckpointError(f"{where}: a GPT-2 with {key} = {data[key]} is not supported")
    gelus = {"gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "gelu": "none"}
    if data.get("activation_function", "gelu_new") not in gelus:
        raise CheckpointError(f"{where}: activation '{data['activation_function']}' is not supported")
    names = {
        "vocab_size": "vocab_size",
        "n_embd": "hidden_size",
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "n_positions": "max_position_embeddings",
        "n_inner": "intermediate_size",
        "layer_norm_epsilon": "norm_eps",
        "initializer_range": "initializer_range",
        **{name: name for name in GRID},
    }
    sizes = {ours: data[theirs] for theirs, ours in names.items() if data.get(theirs) is not None}
    slots = {
        "mlp": {"name": "gelu", "approximate": gelus[data.get("activation_function", "gelu_new")]},
        "position": "learned", "norm": "layernorm",
    }  # fmt: skip
    return from_dict(ModelConfig, {**sizes, **slots, "attention_bias": True, "mlp_bias": True})


# GPT-2's own names; its matrices lie transposed (input, output) and q, k, v are one.
_GPT2 = (
    (r"model\.embed_tokens\.", "wte."),
    (r"model\.embed_positions\.", "wpe."),
    (r"model\.norm\.", "ln_f."),
    (r"model\.layers\.(\d+)\.input_layernorm\.", r"h.\1.ln_1."),
    (r"model\.layers\.(\d+)\.post_attention_layernorm\.", r"h.\1.ln_2."),
    (r"model\.layers\.(\d+)\.self_attn\.o_proj\.", r"h.\1.attn.c_proj."),
    (r"model\.layers\.(\d+)\.mlp\.up_proj\.", r"h.\1.mlp.c_fc."),
    (r"model\.layers\.(\d+)\.mlp\.down_proj\.", r"h.\1.mlp.c_proj."),
)


def to_disk(weights: Mapping[str, mx.array], config: ModelConfig) -> Weights:
    """Our tensors under the names and in the layout of the config's model_type."""
    if model_type(config) != "gpt2":
        return dict(weights)
    result: Weights = {}
    for name, value in weights.items():
        if re.search(r"self_attn\.[qkv]_proj", name):
            continue
        new = _rename(name, _GPT2)
        result[new] = value.T if new.endswith(".weight") and ".c_" in new else value
    for layer in range(config.num_hidden_layers):
        for part, join in (("weight", lambda ms: mx.concatenate(ms, axis=0).T), ("bias", mx.concatenate)):
            heads = [weights[f"model.layers.{layer}.self_attn.{h}_proj.{part}"] for h in "qkv"]
            result[f"h.{layer}.attn.c_attn.{part}"] = join(heads)
    return result


def from_disk(weights: Mapping[str, mx.array], config: ModelConfig) -> Weights:
    """The inverse of to_disk. Names that do not belong to the layout come back as they are, to be reported.

    Tensors come back in row order: a product with a transposed view rounds differently, and a resumed run
    must not."""
    if model_type(config) != "gpt2":
        return dict(weights)
    back = tuple((_escape(new), _unescape(old)) for old, new in _GPT2)
    result: Weights = {}
    for name, value in weights.items():
        name = name.removeprefix("transformer.")
        if re.fullmatch(r"h\.\d+\.attn\.(masked_)?bias", name):
            continue  # old GPT-2 files carry the causal mask, a constant, beside the weights
        fused = re.fullmatch(r"h\.(\d+)\.attn\.c_attn\.(weight|bias)", name)
        if fused:
            layer, part = fused.groups()
            rows = value.T if part == "weight" else value
            for h, piece in zip("qkv", mx.split(rows, 3, axis=0)):
                result[f"model.layers.{layer}.self_attn.{h}_proj.{part}"] = mx.contiguous(piece)
            continue
        turned = name.endswith(".weight") and ".c_" in name
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
