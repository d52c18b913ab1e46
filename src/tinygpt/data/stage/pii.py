"""Take private data out of rows, or leave out the rows that hold any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tinygpt.data import filters, scrub
from tinygpt.data.stages import Context, Step


@dataclass(frozen=True, kw_only=True)
class Config:
    """What counts as private, and what becomes of it."""

    pii: Annotated[tuple[str, ...], "auto, all, or names of recognisers."] = ("auto",)
    drop: Annotated[bool, "Leave the row out; false: put [EMAIL] and the like in its place."] = False


def build(config: Config, context: Context) -> Step:
    """The stage. ConfigError for a recogniser that is not there."""
    return filters.step(filters.Filters(pii=scrub.named(config.pii), drop_pii=config.drop))
