"""Leave out texts that repeat themselves, by the limits of Gopher (`data/repetition.py`)."""

from __future__ import annotations

from dataclasses import dataclass

from tinygpt.data import filters
from tinygpt.data.stages import Context, Step


@dataclass(frozen=True, kw_only=True)
class Config:
    """No knobs: the limits are the paper's."""


def build(config: Config, context: Context) -> Step:
    """The stage."""
    return filters.step(filters.Filters(repetition=True))
