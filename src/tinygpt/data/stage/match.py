"""Keep the rows in which a pattern is found, or those in which it is not.

Roles, ids and metadata are not looked through.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.errors import ConfigError
from tinygpt.data import scrub
from tinygpt.data.stages import Context, Row, Step


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which texts rows must have, or must not."""

    pattern: Annotated[str, "Regular expression that is looked for in each text of a row."]
    keep: Annotated[bool, "Keep the rows in which it is found; false: those in which it is not."] = True

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ConfigError(f"stage 'match': {self.pattern!r} is no pattern: {error}") from error


def build(config: Config, context: Context) -> Step:
    """The stage."""
    pattern = re.compile(config.pattern)

    def step(row: Row) -> Row | str:
        found = any(map(pattern.search, scrub.texts(row)))
        return row if found == config.keep else f"the pattern is {'' if found else 'not '}in it"

    return step
