"""Documents that a classifier judges: rows, parts of a text between blank lines, or lines of either."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.data import card, scrub, table
from tinygpt.data.classifier import Settings
from tinygpt.data.message import json_of, text_of, to_message
from tinygpt.data.where import column
from tinygpt.runs import _dedupe_units

USER = ("user", "human")


@dataclass(frozen=True)
class Document:
    """One of them: its number, what was read, and what is judged of it."""

    number: int
    item: Any
    pieces: list[str]


def plain(config: Settings) -> Settings:
    """The settings of the classifier alone."""
    return Settings(**{f.name: getattr(config, f.name) for f in fields(Settings)})


def source(path: Path) -> card.Source:
    """A file as the source of a card. DataError where there is none."""
    if not path.is_file():
        raise DataError(f"there is no file {path}", hint="check the path")
    return card.of_file(path)


def unit(path: Path, per_line: bool) -> str:
    """What a file is read as: "row", "doc" or "line"."""
    found = _dedupe_units.kind("auto", [path])
    return found if found == "row" or per_line else "doc"


def documents(
    path: Path, field: str, per_line: bool, bad: list[tuple[int, str]], most: int = 0
) -> Iterator[Document]:
    """The documents of a file, the first `most` of them (0: all); what has no text is added to `bad`. `field`
    is what is judged of a row, by default all that it says."""
    what, n = unit(path, per_line), 0
    if field and what != "row":
        raise ConfigError(f"--field {field} means nothing: {path} has no rows", hint="leave it out")
    for number, read in _dedupe_units.items(path, what):
        try:
            item = json_of(read(), "row") if what == "row" else read()
            text = item if isinstance(item, str) else said(item, field)
            if not text.strip():
                raise DataError("it has no text")
        except DataError as error:
            bad.append((number, error.message))
            continue
        pieces = [line for line in text.split("\n") if line.strip()] if per_line else [text]
        yield Document(number, item, pieces)
        n += 1
        if n == most:
            return


def said(row: Any, field: str) -> str:
    """What is judged of a row."""
    if not field:
        return "\n".join(scrub.texts(row))
    found = column(row, field)
    if found is None:
        raise DataError(f"no '{field}' in the row")
    return text_of(found, field)


def shortened(document: Document, keep: Sequence[bool], field: str) -> Any:
    """What is left of a document when some of its lines go; None where nothing is."""
    if not any(keep):
        return None
    if all(keep) or isinstance(document.item, str):
        return document.item
    left = "\n".join(piece for piece, stays in zip(document.pieces, keep, strict=True) if stays)
    return document.item | {field: left}


def question(row: Any, field: str) -> str:
    """What a row asks: its field, else its prompt, its text, or the last turn of the user. DataError where it
    asks nothing."""
    if not isinstance(row, dict):
        raise DataError("expected a JSON object")
    if field:
        return _some(said(row, field), field)
    for name in ("prompt", "question", "instruction", "text"):
        if isinstance(row.get(name), str):
            return _some(row[name], name)
    for name in ("messages", "conversations", "prompt"):
        turns = row.get(name)
        if isinstance(turns, str) and turns.lstrip().startswith("["):
            turns = table.parse(turns)
        if isinstance(turns, list):
            messages = [to_message(m, f"{name}[{i}]") for i, m in enumerate(turns)]
            asked = [m["content"] for m in messages if m["role"] == "user"]
            if asked:
                return _some(asked[-1], name)
    raise DataError(f"it asks nothing; its keys: {', '.join(map(str, row)) or 'none'}")


def _some(text: str, name: str) -> str:
    if not text.strip():
        raise DataError(f"'{name}' is empty")
    return text
