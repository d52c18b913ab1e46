"""How commands that have a model write pack its matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.errors import ConfigError
from tinygpt.model.quantized import Packing


@dataclass(frozen=True, kw_only=True)
class Packs:
    """Whether matrices are packed as they are read; adapters go on top."""

    quantize: Annotated[str, "Pack matrices as they are read: 8, 6, 5, 4, 3, 2, mxfp4, mxfp8 or nvfp4."] = ""
    quantize_group: Annotated[int, "Weights that share a scale; 0: the usual number."] = 0

    def __post_init__(self) -> None:
        _ = self.packing

    @property
    def packing(self) -> Packing | None:
        """A number of bits ("4", "int4"), or the name of a mode ("mxfp4"); None: as they lie."""
        if not self.quantize:
            if self.quantize_group:
                raise ConfigError(
                    "--quantize-group means nothing without --quantize", hint="add --quantize 4"
                )
            return None
        bits = self.quantize.removeprefix("int")
        if bits.isdecimal():
            return Packing(bits=int(bits), group_size=self.quantize_group)
        return Packing(mode=self.quantize, group_size=self.quantize_group)
