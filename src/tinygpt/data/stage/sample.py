"""Keep a share of the rows: which ones depends on their content and the seed, not on their places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.errors import ConfigError
from tinygpt.data.stages import Context, Row, Step, drawn


@dataclass(frozen=True, kw_only=True)
class Config:
    """How many rows are kept."""

    share: Annotated[float, "The share of the rows that is kept, above 0 and at most 1."]

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"stage 'sample': the share must be above 0 and at most 1, got {self.share:g}")


def build(config: Config, context: Context) -> Step:
    """The stage."""

    def step(row: Row) -> Row | str:
        return row if drawn(row, context.seed, "sample") < config.share else "not drawn"

    return step
