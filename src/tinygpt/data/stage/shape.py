"""Make rows of one format, and leave out what cannot be made into one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.errors import DataError
from tinygpt.data import recognise
from tinygpt.data.recognise import Format
from tinygpt.data.stages import Context, Row, Step


@dataclass(frozen=True, kw_only=True)
class Config:
    """What rows must be."""

    format: Annotated[Format, "What the rows are for."]


def build(config: Config, context: Context) -> Step:
    """The stage."""

    def step(row: Row) -> Row | str:
        try:
            return recognise.convert(row, config.format)
        except DataError as error:
            return error.message

    return step
