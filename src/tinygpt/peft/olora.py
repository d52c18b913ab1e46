"""OLoRA: LoRA that starts from orthonormal directions of the matrix itself, by a QR decomposition.

`W = Q R` with orthonormal columns in Q; `B = Q_r`, the first r columns, and `A = R_r`, the first r rows,
learn, and the frozen matrix is `W - (alpha/r) Q_r R_r`, so that the model starts as the base does. An
orthonormal B is well conditioned, and a QR costs a fraction of PiSSA's SVD.

Paper: Bueyuekakyuez 2024, arXiv:2406.01775 (algorithm 1).
Differs: the start is taken off beside the matrix instead of inside it, as for PiSSA here: the same function,
exact over quantized matrices too, and saved as a plain LoRA of rank 2r on the untouched base.
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
    """Knobs of OLoRA."""


def wrap(layer: nn.Module, config: Config, key: mx.array) -> _low_rank.LowRank:
    """A layer with a LoRA that starts from its QR decomposition; nothing is drawn."""
    import numpy as np

    q, r = np.linalg.qr(_low_rank.matrices(layer))
    pair = _low_rank.pair_of(r, q, config.rank)
    return _low_rank.LowRank(layer, pair, config.alpha / config.rank, start=pair, tied=config.tied)


def empty(layer: nn.Module, config: Config) -> _low_rank.LowRank:
    """The same, to be filled from a file."""
    pair = _low_rank.zeros(layer, config.rank)
    return _low_rank.LowRank(layer, pair, config.alpha / config.rank, start=pair, tied=config.tied)


def to_peft(config: Config, wrappers: Mapping[str, nn.Module]) -> dict[str, Any]:
    """What adapter_config.json says of this technique: a plain LoRA, its start taken off."""
    return _low_rank.to_peft(config, wrappers)


def from_peft(data: Mapping[str, Any], targets: tuple[str, ...]) -> Config | None:
    """The config of an adapter that peft started with OLoRA and saved unconverted, whose start is made again
    from the base; None when of another type."""
    rs, dora, start = _low_rank.features(data)
    if data.get("peft_type") != "LORA" or rs or dora or start != "olora":
        return None
    return _low_rank.from_peft(Config, data, targets, set())
