"""1 where the answer is the expected one, whatever the space between words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.errors import DataError
from tinygpt.eval.reward._answer import Answer, plain


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is expected."""

    value: Annotated[str | None, "The expected answer; not given: the row's own."] = None
    ignore_case: Annotated[bool, "Upper and lower case are the same."] = False


def score(answer: Answer, config: Config) -> float:
    """1 or 0. DataError: nothing is expected."""
    expected = answer.expected if config.value is None else config.value
    if expected is None:
        raise DataError(
            "a row has no expected answer", hint="add one (completion), or give the dimension a 'value'"
        )
    return float(
        plain(answer.text, ignore_case=config.ignore_case) == plain(expected, ignore_case=config.ignore_case)
    )
