"""LoRA-FA: LoRA whose A stays as it was drawn, so that only B learns and less has to be kept.

`y = W x + (alpha/r) B A x` with A frozen: the change lies in the column space of B, which is learned, and
reads r fixed random directions. The gradient of B needs `A x` (r values a token) alone, not x (in values), so
a training step keeps less, and half as many values learn.

Paper: Zhang et al. 2023, arXiv:2308.03303 (eq. 3).
Differs: A is drawn uniformly in +-1/sqrt(in), as for LoRA here, where the paper draws from a normal
distribution. On an embedding A is the random part too (LoRA's own would be zero there, and stay so). peft's
LoRA-FA optimizer also rescales the gradient of B; here it is the plain one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tinygpt.core.backend import mx, nn
from tinygpt.peft import _low_rank

ON, check = _low_rank.ON, _low_rank.check


@dataclass(frozen=True, kw_only=True)
class Config(_low_rank.Knobs):
    """Knobs of LoRA-FA."""


def wrap(layer: nn.Module, config: Config, key: mx.array) -> _low_rank.LowRank:
    """A layer with a LoRA beside it whose A is frozen; `key` seeds A."""
    pair = _low_rank.drawn(layer, config.rank, key, zero_b=True)
    wrapper = _low_rank.LowRank(layer, pair, config.alpha / config.rank, tied=config.tied)
    wrapper.hold()
    return wrapper


def to_peft(config: Config, wrappers: Mapping[str, nn.Module]) -> dict[str, Any]:
    """What adapter_config.json says of this technique: in a file it is a plain LoRA."""
    return _low_rank.to_peft(config, wrappers)


def from_peft(data: Mapping[str, Any], targets: tuple[str, ...]) -> None:
    """Never: how an adapter was trained is not said in peft's file, and a plain one opens as LoRA."""
