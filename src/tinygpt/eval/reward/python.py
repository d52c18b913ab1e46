"""A function of one's own: function(answer) -> a number; the answer has text, prompt, expected and row.

    [[dimensions]]
    name = "polite"
    kind = "python"
    function = "my_rewards.py:polite"

It is code that is run as it is, so it is read from a file that you name, never from a model's folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tinygpt.eval.reward._answer import Answer
from tinygpt.eval.reward._python import call, function


@dataclass(frozen=True, kw_only=True)
class Config:
    """Where the function is."""

    function: Annotated[str, "'file.py:name', or 'module:name' of an installed module."]

    def __post_init__(self) -> None:
        function(self.function)


def score(answer: Answer, config: Config) -> float:
    """What the function says. DataError: it failed, or gave no finite number."""
    return call(config.function, answer)
