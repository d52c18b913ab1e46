"""Any low-rank adapter as one plain LoRA, for programs that know nothing else: `y = W x + scale B A x`.

What a technique does on top of that is multiplied in: AdaLoRA's values and VeRA's vectors into A and B, a
start that is taken off as r more directions. DoRA keeps its lengths. IA3 adds nothing and has no such form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tinygpt.core.backend import mx
from tinygpt.core.config import Pick
from tinygpt.core.errors import UnsupportedError

Pair = tuple[mx.array, mx.array]


@dataclass(frozen=True)
class Plain:
    """By name of the layer: A (r, in) and B (out, r), an embedding's A (r, V) and B (D, r), experts' with E
    in front; `lengths` (out,) of DoRA."""

    rank: int
    scale: float
    pairs: dict[str, Pair]
    lengths: dict[str, mx.array] = field(default_factory=dict[str, mx.array])


def plain(pick: Pick, wrappers: Mapping[str, Any]) -> Plain:
    """The adapter that these wrappers are. UnsupportedError where none is equal to it."""
    pairs: dict[str, Pair] = {}
    lengths: dict[str, mx.array] = {}
    scales: set[float] = set()
    for name, wrapper in wrappers.items():
        if getattr(wrapper, "own_matrix", False):
            raise UnsupportedError(
                f"the technique {pick.name} changes the base's matrices too, and no other format holds that",
                hint="bake it into its base with bake-lora, or keep it as it is",
            )
        if hasattr(wrapper, "parts"):
            parts: list[tuple[float, mx.array, mx.array]] = wrapper.parts()
            scale = parts[0][0]
            scales.add(scale)
            pairs[name] = (
                mx.concatenate([a for _, a, _ in parts], axis=-2),
                mx.concatenate([(factor / scale) * b if scale else b for factor, _, b in parts], axis=-1),
            )
        else:
            raise UnsupportedError(
                f"an adapter of the technique {pick.name} has no low-rank form", hint="use --format peft"
            )
        if "lora_magnitude_vector" in wrapper:
            lengths[name] = wrapper.lora_magnitude_vector
    ranks = {a.shape[-2] for a, _ in pairs.values()}
    if len(ranks) > 1 or len(scales) > 1:
        raise UnsupportedError("the layers of this adapter have several ranks or scales", hint="use peft")
    return Plain(ranks.pop(), scales.pop(), pairs, lengths)
