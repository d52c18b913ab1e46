"""Settings of commands that use a model with adapters on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core.config import refuse_idle
from tinygpt.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Adapters:
    """Which adapters, and how much each counts."""

    adapter: Annotated[
        tuple[Path, ...],
        "Adapter to put on the model: ours, peft's, mlx-lm's, or the original's .lora; may be repeated.",
    ] = ()
    adapter_weight: Annotated[
        tuple[float, ...], "How much each adapter counts, in their order, e.g. 0.7,0.3; not given: 1 each."
    ] = ()
    force: Annotated[bool, "Also take an adapter that was trained on other weights than the model's."] = False

    def __post_init__(self) -> None:
        if self.adapter_weight and len(self.adapter_weight) != len(self.adapter):
            raise ConfigError(
                f"--adapter-weight has {len(self.adapter_weight)} numbers for {len(self.adapter)} adapters",
                hint="give one for each --adapter, in their order, e.g. --adapter-weight 0.7,0.3",
            )
        refuse_idle(self, {"force": "adapter"})

    @property
    def worn(self) -> dict[str, Any]:
        """What `_pieces.open_model` is told of them."""
        return {"adapters": self.adapter, "weights": self.adapter_weight, "force": self.force}
