"""Settings that runs on top of a base share: which weights learn, and how the base is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from tinygpt.core.config import Fills, Pick, refuse_idle
from tinygpt.core.errors import ConfigError
from tinygpt.model.quantized import Packing
from tinygpt.peft import _adapter
from tinygpt.runs import _learned, _pieces
from tinygpt.runs._settings import FreshModel

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer
    from tinygpt.model.lm import LM


class Opened(NamedTuple):
    """What a run starts from. `base` is the directory of the base, None for fresh weights."""

    model: LM
    tokenizer: Tokenizer
    base: Path | None


@dataclass(frozen=True, kw_only=True)
class Tuned(FreshModel):
    """Settings of runs that learn an adapter on a base, all of its weights, or fresh ones."""

    adapter: Annotated[Pick, "How few weights learn.", _adapter.PEFT] = Pick("lora")
    full: Annotated[bool, "Learn all weights instead of an adapter; a fresh model always does."] = False
    lora_plus_ratio: Annotated[
        float, "LoRA+: learning rate of the adapter's matrices B over that of A; the paper has 16."
    ] = 1.0

    qlora: Annotated[
        bool,
        "Pack the base's matrices as they are read, and learn an adapter on all of those in the blocks.",
        Fills({"adapter": {"targets": ["all-linear"]}}),
    ] = False
    qlora_bits: Annotated[int, "Bits of a packed weight: 2, 3, 4, 5, 6 or 8; 0: 4, of mxfp8 8."] = 0
    qlora_mode: Annotated[
        Literal["affine", "mxfp4", "nvfp4", "mxfp8"], "How --qlora packs: integers, or small floats."
    ] = "affine"
    qlora_group_size: Annotated[int, "Weights that share a scale; 0: the mode's usual number."] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_idle(self, dict.fromkeys(("qlora_bits", "qlora_mode", "qlora_group_size"), "qlora"))
        _ = self.packing  # refuses bits and groups that the mode does not have
        if self.whole and self.qlora:
            raise ConfigError(
                "--qlora packs a base under an adapter, but all weights will learn",
                hint="give a base without --full, or leave --qlora out",
            )
        if self.lora_plus_ratio <= 0:
            raise ConfigError(f"--lora-plus-ratio must be positive, got {self.lora_plus_ratio:g}")
        if self.whole and self.lora_plus_ratio != 1:
            raise ConfigError(
                "--lora-plus-ratio is about an adapter, but all weights will learn",
                hint="leave it out, or give a base without --full",
            )
        if self.qat != "off" and not self.whole:
            raise ConfigError(
                "--qat rounds the matrices that learn, and an adapter learns beside them",
                hint="leave it out, or learn all weights with --full",
            )
        if self.whole and self.adapter != type(self).adapter.resolve(_adapter.PEFT, "adapter"):
            raise ConfigError(
                "an adapter was described, but all weights will learn",
                hint="leave --adapter out, or give a base without --full",
            )

    @property
    def packing(self) -> Packing | None:
        """How the base is packed as it is read; None: as it lies."""
        if not self.qlora:
            return None
        return Packing(bits=self.qlora_bits, group_size=self.qlora_group_size, mode=self.qlora_mode)

    @property
    def whole(self) -> bool:
        """Whether all weights learn."""
        return self.full or self.base is None

    def group_rules(self) -> dict[str, Any]:
        return {**super().group_rules(), "lora_plus": self.lora_plus_ratio}

    def around(self, optimizer: Any, before: int) -> Any:
        wrap = None if self.whole else getattr(_adapter.PEFT.load(self.adapter.name), "optimizer", None)
        if wrap is None:
            return optimizer
        return wrap(optimizer, self.adapter.options, steps=self.amounts.steps, before=before)

    def open(self, seed: int, packing: Packing | None = None) -> Opened:
        """The base with its tokenizer, packed as the settings or `packing` say, or fresh weights drawn from
        `seed`."""
        if self.base is None:
            tokenizer = _pieces.open_tokenizer(self.tokenizer)
            return Opened(self.fresh(tokenizer.vocab_size, seed), tokenizer, None)
        # What does not learn is kept in the compute dtype, where one is asked for.
        dtype = "auto" if self.whole else self.dtype
        loaded, tokenizer = _pieces.open_model(self.base, dtype=dtype, packing=packing or self.packing)
        return Opened(loaded.model, tokenizer, loaded.path)

    def learned(self, opened: Opened, seed: int) -> tuple[_learned.Write, _learned.Resume]:
        """How what learns is written and put back; the adapter, if one learns, is put on the model here."""
        adapter = None if self.whole else self.adapter
        return _learned.learned(
            opened.model, opened.tokenizer, base=opened.base, adapter=adapter, seed=seed, packing=self.packing
        )
