"""1 where a regular expression matches the answer, or where it does not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.errors import ConfigError
from tinygpt.eval.reward._answer import Answer


@dataclass(frozen=True, kw_only=True)
class Config:
    """The expression, as Python's re reads it."""

    pattern: Annotated[str, "Regular expression; dots match line ends too."]
    whole: Annotated[bool, "It must match the whole answer, without space around it."] = False
    absent: Annotated[bool, "It must not match."] = False
    ignore_case: Annotated[bool, "Upper and lower case are the same."] = False

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ConfigError(f"'{self.pattern}' is no regular expression: {error}") from error


def score(answer: Answer, config: Config) -> float:
    """1 or 0."""
    flags = re.DOTALL | (re.IGNORECASE if config.ignore_case else 0)
    call = re.fullmatch if config.whole else re.search
    return float((call(config.pattern, answer.text.strip(), flags) is not None) != config.absent)
