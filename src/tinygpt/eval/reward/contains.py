"""The share of some texts that the answer holds: words that must be in it, or must not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.errors import DataError
from tinygpt.eval.reward._answer import Answer, plain


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is looked for."""

    values: Annotated[tuple[str, ...], "Texts to look for; not given: the row's expected answer."] = ()
    absent: Annotated[bool, "They must not be there: the score is the share that is missing."] = False
    ignore_case: Annotated[bool, "Upper and lower case are the same."] = False


def score(answer: Answer, config: Config) -> float:
    """From 0 to 1. DataError: there is nothing to look for."""
    values = config.values or ((answer.expected,) if answer.expected is not None else ())
    if not values:
        raise DataError(
            "a row has no expected answer", hint="add one (completion), or give the dimension 'values'"
        )
    text = plain(answer.text, ignore_case=config.ignore_case)
    found = sum(plain(value, ignore_case=config.ignore_case) in text for value in values)
    return (len(values) - found if config.absent else found) / len(values)
