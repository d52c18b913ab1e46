"""Conditions on the columns of a row, as people type them: `score>=0.5`, `meta.lang=en`, `text~colou?r`.

A column inside others is named with dots. `=` and `!=` compare as text, `<`, `<=`, `>` and `>=` as numbers,
`~` looks for a regular expression. A row that lacks the column meets `!=` alone.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tinygpt.core.errors import ConfigError

_FORM = re.compile(r"\s*([^=!<>~]+?)\s*(!=|>=|<=|==|=|<|>|~)\s*(.*?)\s*", re.DOTALL)
_ORDER: dict[str, Callable[[float, float], bool]] = {
    "<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
}  # fmt: skip


@dataclass(frozen=True)
class Condition:
    """One of them. ConfigError where the text is none."""

    said: str

    def __post_init__(self) -> None:
        _, sign, value = self._parts
        try:
            _ = float(value) if sign in _ORDER else re.compile(value) if sign == "~" else None
        except (ValueError, re.error) as error:
            raise ConfigError(
                f"--where {self.said}: {value!r} is no {'pattern' if sign == '~' else 'number'}: {error}"
            ) from error

    @functools.cached_property
    def _parts(self) -> tuple[str, str, str]:
        found = _FORM.fullmatch(self.said)
        if not found:
            raise ConfigError(
                f"--where {self.said} is no condition",
                hint="such as score>=0.5, meta.lang=en or text~colou?r",
            )
        return found[1], found[2], found[3]

    def holds(self, row: Any) -> bool:
        """Whether a row meets it."""
        name, sign, value = self._parts
        found = column(row, name)
        if sign in ("=", "=="):
            return found is not None and text_of(found) == value
        if sign == "!=":
            return found is None or text_of(found) != value
        if sign == "~":
            return isinstance(found, str) and re.search(value, found) is not None
        try:
            return not isinstance(found, bool) and _ORDER[sign](float(found), float(value))
        except (TypeError, ValueError):
            return False


def column(row: Any, name: str) -> Any:
    """The value of a column, by its name or its path with dots; None where there is none."""
    if isinstance(row, dict) and name in row:
        return row[name]
    for part in name.split("."):
        row = row.get(part) if isinstance(row, dict) else None
    return row


def text_of(value: Any) -> str:
    """A value as people type it: true, 3, en."""
    return str(value).lower() if isinstance(value, bool) else str(value)
