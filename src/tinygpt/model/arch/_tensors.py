"""Names and layouts of tensors in the files of other tools, and the way from them to ours.

Reading goes by the names that are found, not by what config.json calls the model: one stack lies on disk in
several ways, and transformers, mlx_lm and older tools each have theirs. What follows a module's name
(`weight`, `bias`, and `scales` and `biases` of quantized ones) stays; rows are outputs in all of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from tinygpt.core.backend import mx
from tinygpt.core.errors import CheckpointError
from tinygpt.model.config import ModelConfig

Weights = dict[str, mx.array]
Table = tuple[tuple[str, str], ...]

# Ours, theirs: norms are called after their place in the block, which depends on the residual rule.
POSTNORM: Table = (
    (".input_layernorm.", ".post_attention_layernorm."),
    (".post_attention_layernorm.", ".post_feedforward_layernorm."),
)
SANDWICH: Table = (
    (".attn_residual.norm.", ".post_attention_layernorm."),
    (".post_attention_layernorm.", ".pre_feedforward_layernorm."),
    (".mlp_residual.norm.", ".post_feedforward_layernorm."),
)
# One of the names that only these files have.
NORMS = {"postnorm": (POSTNORM, ".post_feedforward_layernorm."), "sandwich": (SANDWICH, ".pre_feedforward_")}
OF_EXPERTS = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}  # Mixtral's names
_PLACE = r"(?P<layer>model\.layers\.\d+)\.(?:mlp|block_sparse_moe)"
_ONE = re.compile(rf"{_PLACE}\.experts\.(?P<expert>\d+)\.(?P<matrix>\w+)\.(?P<part>\w+)")
_ALL = re.compile(rf"{_PLACE}\.(?:experts|switch_mlp)\.(?P<matrix>[a-z_]+)(?:\.(?P<part>\w+))?")
_ROUTER = re.compile(rf"{_PLACE}\.gate\.(?P<part>\w+)")
_PICTURES = re.compile(r"(?:model\.)?(?:vision_tower|multi_modal_projector)\.")
_LANGUAGE = ((r"^language_model\.", ""), (r"^model\.language_model\.", "model."))


def renamed(weights: Mapping[str, mx.array], table: Table) -> Weights:
    """The tensors with the first part of a name that the table has replaced."""
    return {_replaced(name, table): value for name, value in weights.items()}


def _replaced(name: str, table: Table) -> str:
    return next((name.replace(ours, theirs) for ours, theirs in table if ours in name), name)


def ours(weights: Mapping[str, mx.array], config: ModelConfig) -> Weights:
    """Tensors of any spelling under our names; those that belong to none come back as they are."""
    result = _language(weights)
    table, telling = NORMS.get(config.residual.name, ((), ""))
    if table and any(telling in name for name in result):
        result = renamed(result, tuple((theirs, own) for own, theirs in table))
    result = _experts(_split(result, config))
    if config.tie_word_embeddings:
        _drop_tied(result)
    return result


def _language(weights: Mapping[str, mx.array]) -> Weights:
    """The language model's tensors, without constants that older tools save beside them."""
    result: Weights = {}
    several = any("language_model." in name for name in weights)
    for name, value in weights.items():
        if name.endswith("rotary_emb.inv_freq") or (several and _PICTURES.match(name)):
            continue
        for pattern, new in _LANGUAGE:
            name = re.sub(pattern, new, name)
        result[name] = value
    return result


def _drop_tied(weights: Weights) -> None:
    """Leave out an output matrix that is saved although it is the embedding; refuse one that differs."""
    head, embedding = weights.get("lm_head.weight"), weights.get("model.embed_tokens.weight")
    if head is None or embedding is None:
        return
    if head.shape != embedding.shape or not mx.array_equal(head, embedding).item():
        raise CheckpointError(
            "config.json says that the output matrix is the embedding (tie_word_embeddings), and "
            "lm_head.weight differs from model.embed_tokens.weight",
            hint="set tie_word_embeddings to false in config.json if the model was trained with both",
        )
    for part in ("weight", "scales", "biases"):
        weights.pop(f"lm_head.{part}", None)


# --- fused matrices -----------------------------------------------------------------------------------------


def _split(weights: Weights, config: ModelConfig) -> Weights:
    """q, k, v and gate, up out of matrices that hold them one below the other."""
    wide = config.num_attention_heads * config.head_dim
    narrow = config.num_key_value_heads * config.head_dim
    cuts = {
        "self_attn.qkv_proj": ([f"self_attn.{h}_proj" for h in "qkv"], [wide, wide + narrow]),
        "mlp.gate_up_proj": (["mlp.gate_proj", "mlp.up_proj"], [config.intermediate_size]),
    }
    result: Weights = {}
    for name, value in weights.items():
        found = next((joint for joint in cuts if f".{joint}." in name), None)
        if found is None:
            result[name] = value
            continue
        parts, places = cuts[found]
        for part, piece in zip(parts, mx.split(value, places, axis=0)):
            result[name.replace(found, part)] = piece
    return result


def fused(weights: Mapping[str, mx.array]) -> Weights:
    """The inverse: q, k, v in one matrix and gate, up in another."""
    joints = {
        "self_attn.q_proj": ("self_attn.qkv_proj", ["self_attn.k_proj", "self_attn.v_proj"]),
        "mlp.gate_proj": ("mlp.gate_up_proj", ["mlp.up_proj"]),
    }
    result: Weights = {}
    for name, value in weights.items():
        first = next((part for part in joints if f".{part}." in name), None)
        if first is not None:
            joint, others = joints[first]
            rows = [value, *(weights[name.replace(first, other)] for other in others)]
            result[name.replace(first, joint)] = mx.concatenate(rows, axis=0)
        elif not any(f".{other}." in name for _, others in joints.values() for other in others):
            result[name] = value
    return result


# --- experts ------------------------------------------------------------------------------------------------


def _experts(weights: Weights) -> Weights:
    """Experts one by one, stacked, or stacked with gate and up in one, as our stacks (E, out, in)."""
    result: Weights = {}
    singles: dict[tuple[str, str, str], dict[int, str]] = {}
    for name, value in weights.items():
        if match := _ROUTER.fullmatch(name):
            result[f"{match['layer']}.mlp.router.{match['part']}"] = value
        elif match := _ONE.fullmatch(name):
            matrix = OF_EXPERTS.get(match["matrix"], match["matrix"])
            singles.setdefault((match["layer"], matrix, match["part"]), {})[int(match["expert"])] = name
        elif match := _ALL.fullmatch(name):
            layer, matrix, part = match["layer"], match["matrix"], match["part"]
            packed = f"{name.removesuffix(f'.{part}')}.scales" in weights
            gated = matrix == "gate_up_proj"
            pieces = mx.split(value, 2, axis=1) if gated else [value]
            for piece, one in zip(pieces, ("gate_proj", "up_proj") if gated else (matrix,)):
                result[_stack_name(layer, one, part, packed)] = piece
        else:
            result[name] = value
    for (layer, matrix, part), names in singles.items():
        if sorted(names) != list(range(len(names))):  # one is missing: shown as it is found
            result |= {name: weights[name] for name in names.values()}
            continue
        packed = (layer, matrix, "scales") in singles
        rows = [weights[names[i]] for i in range(len(names))]
        result[_stack_name(layer, matrix, part, packed)] = mx.stack(rows)
    return result


def _stack_name(layer: str, matrix: str, part: str | None, packed: bool) -> str:
    name = f"{layer}.mlp.experts.{matrix}"
    return name if part in (None, "weight") and not packed else f"{name}.{part or 'weight'}"


def apart(weights: Mapping[str, mx.array], place: str, called: Callable[[str], str] = str) -> Weights:
    """The inverse: experts one by one, as `place`.experts.0.`called(matrix)`.weight, the router as a gate."""
    result: Weights = {}
    for name, value in weights.items():
        match = _ALL.fullmatch(name)
        if match is None:
            result[name.replace(".mlp.router.", f".{place}.gate.")] = value
            continue
        for i in range(value.shape[0]):
            expert = f"{match['layer']}.{place}.experts.{i}.{called(match['matrix'])}"
            result[f"{expert}.{match['part'] or 'weight'}"] = value[i]
    return result
