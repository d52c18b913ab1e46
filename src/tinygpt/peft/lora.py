"""LoRA: learn a low-rank change of a frozen matrix, `y = W x + (alpha/r) B A x`.

A (r, in) reads r directions of the input, B (out, r) writes them back; only A and B learn, r (in + out)
numbers in place of in x out. B starts at zero, so the adapted model starts as the base model. The factor
alpha/r keeps the size of the change, and so the learning rate, about the same when r is varied. Fused, it
is `W + (alpha/r) B A`.

Paper: Hu et al., ICLR 2022, arXiv:2106.09685 (section 4.1).
Differs: A is drawn uniformly in +-1/sqrt(in), as peft does, unless init is "gaussian"; on an embedding A is
zero and B normal, as peft does. There is no dropout: a layer is called with its input alone, and the keys
of a row's noise do not come with it; the dropout that a foreign adapter was trained with is not applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from tinygpt.core.backend import mx, nn
from tinygpt.peft import _low_rank

ON, check = _low_rank.ON, _low_rank.check


@dataclass(frozen=True, kw_only=True)
class Config(_low_rank.Knobs):
    """Knobs of LoRA."""

    init: Annotated[Literal["kaiming", "gaussian"], "How A starts: uniform +-1/sqrt(in), or normal / r."] = (
        "kaiming"
    )


def wrap(layer: nn.Module, config: Config, key: mx.array) -> _low_rank.LowRank:
    """A layer with a LoRA beside it; `key` seeds A."""
    pair = _low_rank.drawn(layer, config.rank, key, config.init)
    return _low_rank.LowRank(layer, pair, config.alpha / config.rank, tied=config.tied)


def to_peft(config: Config, wrappers: Mapping[str, nn.Module]) -> dict[str, Any]:
    """What adapter_config.json says of this technique."""
    start = True if config.init == "kaiming" else "gaussian"
    return _low_rank.to_peft(config, wrappers, init_lora_weights=start)


def from_peft(data: Mapping[str, Any], targets: tuple[str, ...]) -> Config | None:
    """The config of an adapter that peft wrote, None when of another type; what we lack is refused."""
    rs, dora, start = _low_rank.features(data)
    if data.get("peft_type") != "LORA" or rs or dora or str(start).startswith(("pissa", "olora")):
        return None
    _low_rank.refuse_start(data)
    init = "gaussian" if start == "gaussian" else "kaiming"
    return _low_rank.from_peft(Config, data, targets, set(), init=init)
