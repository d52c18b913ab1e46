"""What caches must have in common to be one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinygpt.infer.decode import Decoder
from tinygpt.infer.request import Request
from tinygpt.model.cache.parts import PIECE

if TYPE_CHECKING:
    from tinygpt.infer.engine import Engine


@dataclass(frozen=True)
class Kind:
    """What caches must have in common to be one batch."""

    sinks: int = 0
    window: int = 0
    kv_bits: int = 0

    @classmethod
    def of(cls, request: Request) -> Kind:
        return cls(request.config.sinks, request.config.window, request.config.kv_bits)

    @property
    def piece(self) -> int:
        """Tokens of a prompt that are read at once, where the caches depend on it; 0: any."""
        return PIECE if self.kv_bits else 0

    def decoder(self, engine: Engine, pads: Sequence[int]) -> Decoder:
        """Empty caches of this kind."""
        return Decoder(
            engine.model, pads, engine.fixed_step, sinks=self.sinks, window=self.window, kv_bits=self.kv_bits
        )
