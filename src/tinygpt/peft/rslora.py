"""rsLoRA: LoRA with the scale `alpha / sqrt(r)`, so that a high rank learns as fast as a low one.

LoRA's `alpha / r` makes the change smaller the higher the rank: B A is a sum of r terms whose gradients are
not aligned, so its size grows as sqrt(r), not as r. With `y = W x + (alpha / sqrt(r)) B A x` activations and
gradients stay of one size for every rank, and a higher rank pays.

Paper: Kalajdzievski 2023, arXiv:2312.03732 (theorem 3.2).
Differs: nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

from tinygpt.core.backend import mx, nn
from tinygpt.peft import _low_rank

ON, check = _low_rank.ON, _low_rank.check


@dataclass(frozen=True, kw_only=True)
class Config(_low_rank.Knobs):
    """Knobs of rsLoRA; the scale is alpha / sqrt(rank)."""


def wrap(layer: nn.Module, config: Config, key: mx.array) -> _low_rank.LowRank:
    """A layer with a LoRA of this scale beside it; `key` seeds A."""
    pair = _low_rank.drawn(layer, config.rank, key)
    return _low_rank.LowRank(layer, pair, config.alpha / sqrt(config.rank), tied=config.tied)


def to_peft(config: Config, wrappers: Mapping[str, nn.Module]) -> dict[str, Any]:
    """What adapter_config.json says of this technique."""
    return _low_rank.to_peft(config, wrappers, use_rslora=True)


def from_peft(data: Mapping[str, Any], targets: tuple[str, ...]) -> Config | None:
    """The config of an adapter that peft wrote, None when of another type; what we lack is refused."""
    if data.get("peft_type") != "LORA" or _low_rank.features(data)[:2] != (True, False):
        return None
    _low_rank.refuse_start(data)
    return _low_rank.from_peft(Config, data, targets, {"use_rslora"})
