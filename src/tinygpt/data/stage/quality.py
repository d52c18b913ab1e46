"""Keep what a classifier of train-quality-classifier finds good (extra `classify`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tinygpt.data import scrub
from tinygpt.data.stages import Context, Row, Step


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which rows are good."""

    model: Annotated[Path, "A classifier of train-quality-classifier."]
    least: Annotated[float, "Keep rows that are at least this probable to be of the positive class."] = 0.5


def build(config: Config, context: Context) -> Step:
    """The stage. CheckpointError where there is no such classifier."""
    made = context.classifier(config.model)

    def step(row: Row) -> Row | str:
        score = made.score(["\n".join(scrub.texts(row))])[0]
        return row if score >= config.least else f"quality below {config.least:g}"

    return step
