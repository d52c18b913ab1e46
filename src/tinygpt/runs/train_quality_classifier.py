"""Learn to tell wanted texts from unwanted ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.data.classifier import Settings
from tinygpt.runs import _judged

PURPOSE = "quality"
CLASSES = ("negative", "positive")


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """What is learned from, and where it goes."""

    positive: Annotated[tuple[Path, ...], "Files of wanted texts: rows, or text with blank lines between."]
    negative: Annotated[tuple[Path, ...], "Files of unwanted texts."]
    out: Annotated[Path, "Directory to write."]
    field: Annotated[str, "Learn from this field of a row; by default from all that it says."] = ""
    per_line: Annotated[bool, "Every line is a text of its own."] = False
    held_out: Annotated[float, "Share of each class that is kept back for the report."] = 0.2
    force: Annotated[bool, "Replace an existing classifier."] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.held_out < 1:
            raise ConfigError(f"--held-out must be between 0 and 1, got {self.held_out}")
        if not self.positive or not self.negative:
            raise ConfigError("--positive and --negative are needed", hint="a file of texts for each")
        if both := set(self.positive) & set(self.negative):
            raise ConfigError(f"{min(both)} is both --positive and --negative", hint="leave one out")


def run(config: Config, events: Events) -> dict[str, Any]:
    """Learn, judge by held-out texts, save; returns the report."""
    from tinygpt.runs import _classifier

    _classifier.refuse(config.out, force=config.force)
    bad: list[tuple[int, str]] = []

    def pairs() -> Iterator[tuple[str, int]]:
        bad.clear()
        for label, paths in enumerate((config.negative, config.positive)):
            for path in paths:
                for document in _judged.documents(path, config.field, config.per_line, bad):
                    yield from ((piece, label) for piece in document.pieces)

    made, report = _classifier.trained(
        pairs, CLASSES, _judged.plain(config), events, held_out=config.held_out
    )
    report["dropped"]["without text"] = len(bad)
    _classifier.save(config.out, made, report, purpose=PURPOSE, force=config.force)
    return {"out": str(config.out), **report}
