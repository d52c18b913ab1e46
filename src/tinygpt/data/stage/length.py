"""Leave out rows whose texts are too short or too long.

Roles, ids and metadata are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tinygpt.data import scrub
from tinygpt.data.stages import Context, Row, Step


@dataclass(frozen=True, kw_only=True)
class Config:
    """How long rows may be."""

    min_chars: Annotated[int, "Fewest letters of all texts of a row."] = 1
    max_chars: Annotated[int, "Most letters; 0: any number."] = 0


def build(config: Config, context: Context) -> Step:
    """The stage."""

    def step(row: Row) -> Row | str:
        n = sum(map(len, scrub.texts(row)))
        if n < config.min_chars:
            return f"shorter than {config.min_chars} letters"
        return f"longer than {config.max_chars} letters" if 0 < config.max_chars < n else row

    return step
