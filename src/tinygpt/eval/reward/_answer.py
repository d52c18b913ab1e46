"""An answer as reward dimensions see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What was written, after what, and what was expected.

    `prompt` is the text or the messages before it, `expected` the answer that the row has, or None, and
    `row` the row itself, with whatever a person put there."""

    text: str
    prompt: str | list[dict[str, Any]] = ""
    expected: str | None = None
    row: Mapping[str, Any] = field(default_factory=dict[str, Any])


def plain(text: str, *, ignore_case: bool = False) -> str:
    """A text without regard to how much space is where, and to case where asked."""
    found = " ".join(text.split())
    return found.casefold() if ignore_case else found


def unfenced(text: str) -> str:
    """The text within a ``` block, where all of it is one."""
    lines = text.strip().splitlines()
    fenced = len(lines) > 1 and lines[0].startswith("```") and lines[-1].strip() == "```"
    return "\n".join(lines[1:-1]) if fenced else text.strip()
