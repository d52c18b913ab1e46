"""Adapters that peft trained on matrices which hold several of ours: put on each of them, exactly.

Phi-3's queries, keys and values lie one below the other in one matrix, as gate and up do; GPT-2's too.
A change of low rank `B A` of such a matrix is that of its parts: each has the same A and its own rows of B,
and of DoRA's magnitudes, since they are a norm of each row."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tinygpt.core.backend import mx, nn
from tinygpt.core.config import Pick
from tinygpt.core.errors import CheckpointError
from tinygpt.peft import _layers

HEADS = tuple(f"self_attn.{h}_proj" for h in "qkv")
# Pattern of a layer's name on their side: what it is called here, one or several, in the order of the rows.
THEIRS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"model\.layers\.(\d+)\.self_attn\.qkv_proj", HEADS),
    (r"model\.layers\.(\d+)\.mlp\.gate_up_proj", ("mlp.gate_proj", "mlp.up_proj")),
    (r"(?:transformer\.|model\.)?h\.(\d+)\.attn\.c_attn", HEADS),
    (r"(?:transformer\.|model\.)?h\.(\d+)\.attn\.c_proj", ("self_attn.o_proj",)),
    (r"(?:transformer\.|model\.)?h\.(\d+)\.mlp\.c_fc", ("mlp.up_proj",)),
    (r"(?:transformer\.|model\.)?h\.(\d+)\.mlp\.c_proj", ("mlp.down_proj",)),
)
PARTS = r"\.(lora_A\.weight|lora_B\.weight|lora_magnitude_vector(?:\.weight)?)"
ROWWISE = ("lora", "rslora", "dora")  # others start from the fused matrix as a whole


def as_ours(
    pick: Pick, found: Mapping[str, mx.array], model: nn.Module, prefix: str, where: str
) -> tuple[Pick, dict[str, mx.array]]:
    """An adapter of peft's with its tensors on the layers of this model. Where none of its layers is another
    tool's the adapter comes back as it is."""
    known = _layers.layers(model)
    made: dict[str, mx.array] = {}
    targets: dict[str, None] = {}
    moved = ""
    for name, value in found.items():
        layers, part = _place(name.removeprefix(prefix), known)
        if not layers:
            made[name] = value
            targets |= dict.fromkeys(n for n in known if name.startswith(f"{prefix}{n}."))
            continue
        moved = moved or name
        targets |= dict.fromkeys(layers)
        rows = [_layers.shape(known[layer])[0] for layer in layers]
        pieces = [value] * len(layers)
        if len(layers) > 1 and not part.startswith("lora_A"):
            if value.shape[0] != sum(rows):
                raise CheckpointError(
                    f"{where}: {name} has {value.shape[0]} rows, and {', '.join(layers)} have {sum(rows)}",
                    hint="it was trained on a base of other sizes",
                )
            pieces = mx.split(value, [sum(rows[: i + 1]) for i in range(len(rows) - 1)], axis=0)
        made |= {f"{prefix}{layer}.{part}": piece for layer, piece in zip(layers, pieces, strict=True)}
    if not moved:
        return pick, dict(found)
    if pick.name not in ROWWISE:
        raise CheckpointError(
            f"{where}: {moved} belongs to a matrix that is several here, {pick.name} starts from it whole",
            hint=f"fuse it into its base with peft; {', '.join(ROWWISE)} can be put on",
        )
    options: Any = pick.options
    return Pick(pick.name, replace(options, targets=tuple(sorted(targets)), exclude=())), made


def _place(name: str, known: Mapping[str, nn.Module]) -> tuple[tuple[str, ...], str]:
    """(layers of ours, the tensor's part of a wrapper) of a tensor on a layer that is another tool's."""
    for pattern, ours in THEIRS:
        match = re.fullmatch(pattern + PARTS, name)
        if match and name.removesuffix(f".{match[2]}") not in known:
            layers = tuple(f"model.layers.{match[1]}.{one}" for one in ours)
            return (layers, match[2]) if all(layer in known for layer in layers) else ((), "")
    return (), ""
