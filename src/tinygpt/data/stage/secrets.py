"""Take keys and passwords out of rows, or leave out the rows that hold any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tinygpt.data import filters
from tinygpt.data.stages import Context, Step


@dataclass(frozen=True, kw_only=True)
class Config:
    """What becomes of secrets."""

    drop: Annotated[bool, "Leave the row out; false: put [SECRET] in its place."] = False


def build(config: Config, context: Context) -> Step:
    """The stage."""
    return filters.step(filters.Filters(secrets="drop" if config.drop else "redact"))
