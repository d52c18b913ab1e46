"""1 where the answer is as long as it should be, less the further it is from that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tinygpt.core.errors import ConfigError
from tinygpt.eval.reward._answer import Answer


@dataclass(frozen=True, kw_only=True)
class Config:
    """Bounds, both included."""

    least: Annotated[int, "Fewest."] = 1
    most: Annotated[int | None, "Most; not given: no bound."] = None
    unit: Annotated[Literal["words", "characters", "lines"], "What is counted."] = "words"
    slack: Annotated[int, "How far beyond a bound the score has fallen to 0; it falls evenly."] = 1

    def __post_init__(self) -> None:
        if self.least < 0 or self.slack < 1 or (self.most is not None and self.most < self.least):
            raise ConfigError("length needs 0 <= least <= most, and a slack of at least 1")


def score(answer: Answer, config: Config) -> float:
    """From 0 to 1."""
    text = answer.text.strip()
    parts = {"words": text.split(), "characters": text, "lines": text.splitlines()}[config.unit]
    n = len(parts)
    beyond = max(config.least - n, n - config.most if config.most is not None else 0, 0)
    return max(0.0, 1 - beyond / config.slack)
