"""Whether a message that a model wrote is worth keeping: not too short or long, no loop, in the language."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.errors import ConfigError
from tinygpt.data import language as languages

RUN = 3  # words of a run
SHORT, LONG, LOOP, FOREIGN = "too short", "too long", "repeats itself", "another language"


@dataclass(frozen=True, kw_only=True)
class Sift:
    """What messages must be."""

    min_letters: Annotated[int, "Fewest letters of a message."] = 3
    max_letters: Annotated[int, "Most letters of a message; 0: any number."] = 0
    max_repetition: Annotated[
        float, "Largest share of a message's runs of three words that came before in it; 1: any."
    ] = 0.5
    language: Annotated[
        tuple[str, ...], "Languages of messages, as en,de; not given: any. Short ones have none."
    ] = ()

    def __post_init__(self) -> None:
        if self.min_letters < 1 or self.max_letters < 0 or 0 < self.max_letters < self.min_letters:
            raise ConfigError(
                f"--min-letters {self.min_letters} and --max-letters {self.max_letters} leave nothing"
            )
        if not 0 <= self.max_repetition <= 1:
            raise ConfigError(f"--max-repetition must be from 0 to 1, got {self.max_repetition}")
        if self.language:
            languages.checked(self.language)

    def fault(self, text: str) -> str:
        """Why a message is dropped; "" where it is kept."""
        text = text.strip()
        if len(text) < self.min_letters:
            return SHORT
        if self.max_letters and len(text) > self.max_letters:
            return LONG
        if repetition(text) > self.max_repetition:
            return LOOP
        code = languages.of(text)[0] if self.language else ""
        return FOREIGN if code and code not in self.language else ""


def repetition(text: str) -> float:
    """The share of runs of three words that came before; of letters, where there are no words between
    spaces, as in a line of one letter."""
    words = re.findall(r"\w+|[^\w\s]", text)
    units: list[str] = words if len(words) > RUN else list(text)
    runs = [tuple(units[i : i + RUN]) for i in range(len(units) - RUN + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0
