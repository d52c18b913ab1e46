"""Leave out rows that were there before, in any source.

Of each row 16 bytes of a hash are remembered; ids and metadata do not count. Near duplicates are for the
command `dedupe`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tinygpt.data.stages import Context, Row, Step, digest


@dataclass(frozen=True, kw_only=True)
class Config:
    """What makes two rows the same."""

    fold: Annotated[bool, "Take texts as the same that differ in case and spaces alone."] = True


def build(config: Config, context: Context) -> Step:
    """The stage."""
    seen: set[bytes] = set()

    def step(row: Row) -> Row | str:
        found = digest(row, fold=config.fold)
        if found in seen:
            return "a duplicate"
        seen.add(found)
        return row

    return step
