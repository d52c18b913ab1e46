"""Templates of what a tool does: text in which {name} stands for an argument, and {{ }} for braces."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_PIECE = re.compile(r"\{\{|\}\}|\{([A-Za-z_][\w-]*)(\.\.\.)?\}|[{}]")


@dataclass(frozen=True)
class Field:
    """The place of an argument. spread: a list, each of its values by itself."""

    name: str
    spread: bool = False


Template = tuple[str | Field, ...]


def parse(text: str) -> Template:
    """The pieces of a template. ValueError: a brace stands alone."""
    found: list[str | Field] = []
    end = 0
    for match in _PIECE.finditer(text):
        found.append(text[end : match.start()])
        end = match.end()
        if match[1]:
            found.append(Field(match[1], bool(match[2])))
        elif len(match[0]) == 2:
            found.append(match[0][0])
        else:
            raise ValueError(f"{text!r} has a brace that stands alone: write {{{{ or }}}} for one")
    found.append(text[end:])
    return _joined(found)


def names(template: Template) -> set[str]:
    """The arguments that it speaks of."""
    return {piece.name for piece in template if isinstance(piece, Field)}


def fill(template: Template, arguments: Mapping[str, Any]) -> str:
    """The text with its arguments in their places; all of them are there."""
    return "".join(p if isinstance(p, str) else as_text(arguments[p.name]) for p in template)


def as_text(value: Any) -> str:
    """A plain value as a program reads it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def given(arguments: Mapping[str, Any], wanted: Iterable[str]) -> bool:
    """Whether all of them are there; null is as good as missing."""
    return all(arguments.get(name) is not None for name in wanted)


def _joined(pieces: list[str | Field]) -> Template:
    found: list[str | Field] = []
    for piece in pieces:
        if isinstance(piece, str) and found and isinstance(last := found[-1], str):
            found[-1] = last + piece
        elif piece:
            found.append(piece)
    return tuple(found)
