"""What `dedupe` compares: lines, documents and files of text, or rows; read again as often as needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.data import card, corpus, rows, table
from tinygpt.data.message import json_of, kind_of, text_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROWS = (".jsonl", ".ndjson", ".json", *table.TABLES)
Item = tuple[int, Callable[[], Any]]


class Unit(NamedTuple):
    """One thing to compare: where it is, what of it is compared, all that it says, and its score."""

    file: int
    number: int
    text: str
    whole: str
    score: float


def find(where: corpus.Where) -> list[Path]:
    """The files that settings name. Of folders and patterns without hidden files, and without cards."""
    named = set(corpus.by_hand(where))
    cards = (card.SUFFIX, Path(card.SUFFIX).with_suffix(".md").name)
    found = [f for f in corpus.find(where) if f in named or not f.name.startswith(".")]
    found = [f for f in found if f in named or not f.name.endswith(cards)]
    if not found:
        raise DataError("there are only hidden files and cards", hint="name the file itself")
    return found


def kind(asked: str, files: Sequence[Path]) -> str:
    """What the files are read as; ConfigError where they do not fit."""
    with_rows = [file for file in files if table.kind(file) in ROWS]
    if asked == "auto":
        if with_rows and len(with_rows) < len(files):
            other = next(file for file in files if file not in with_rows)
            raise ConfigError(
                f"{with_rows[0]} has rows and {other} has text", hint="give --unit, or one kind of files"
            )
        return "row" if with_rows else "line"
    if asked == "row" and len(with_rows) < len(files):
        other = next(file for file in files if file not in with_rows)
        raise ConfigError(f"{other} has no rows", hint=f"files of rows end in {', '.join(ROWS)}")
    return asked


def items(file: Path, unit: str) -> Iterator[Item]:
    """(number from 1, what gives the item) of a file: rows count as `table.records` does, lines and documents
    by the line that they begin on."""
    if unit == "row":
        yield from table.records(file)
    elif unit == "line":
        for number, line in table.lines(file):
            yield number, lambda line=line: line.rstrip("\r\n")
    elif unit == "file":
        yield 1, lambda: {"text": _text(file), "file": file.name}
    else:
        for number, part in _documents(file):
            yield number, lambda part=part: part


def _documents(file: Path) -> Iterator[tuple[int, str]]:
    """The parts of a text between blank lines."""
    begun, parts, last = 0, list[str](), 0
    for number, line in table.lines(file):
        if parts and number > last + 1:
            yield begun, "\n".join(parts)
            parts = []
        begun = begun if parts else number
        parts.append(line.rstrip("\r\n"))
        last = number
    if parts:
        yield begun, "\n".join(parts)


def _text(file: Path) -> str:
    facts = corpus.new_facts()
    text = "".join(part for _, part in corpus.blocks(file, facts))
    if facts["first_bad"]:
        raise DataError(facts["first_bad"][0])
    return text


def units(
    files: Sequence[Path], unit: str, field: str, score: str, whole: bool, bad: list[tuple[str, str]]
) -> Iterator[Unit]:
    """Everything to compare, in order. What cannot be read is left out and added to `bad`, as (place, why);
    `whole` asks for all that a row says."""
    for i, file in enumerate(files):
        for number, read in items(file, unit):
            try:
                yield _unit(i, number, read(), field, score, whole)
            except DataError as error:
                bad.append((f"{file} {number}", error.message))


def _unit(file: int, number: int, item: Any, field: str, score: str, whole: bool) -> Unit:
    if isinstance(item, str):
        return Unit(file, number, item, item, 0.0)
    text = text_in(json_of(item, "row"), field)  # what JSON has not cannot be written later
    return Unit(file, number, text, "\n".join(rows.strings(item)) if whole else "", _score(item, score))


def text_in(item: Any, field: str) -> str:
    """What is compared of an item: a field of its row, or all that it says."""
    if isinstance(item, str):
        return item
    if not field:
        return rows.whole(item)
    if not isinstance(item, dict):
        raise DataError(f"expected a JSON object, got {kind_of(item)}")
    if field not in item:
        raise DataError(f"no '{field}' in the row; its keys: {', '.join(item) or 'none'}")
    return text_of("\n".join(rows.strings(item[field])), field)


def _score(row: Any, name: str) -> float:
    value = row.get(name) if name and isinstance(row, dict) else None
    numeric = isinstance(value, int | float) and not isinstance(value, bool) and value == value
    return float(value) if numeric and value is not None else float("-inf")


def picked(
    files: Sequence[Path],
    unit: str,
    of: NDArray[np.int32],
    numbers: NDArray[np.int64],
    mask: NDArray[np.bool_],
) -> Iterator[tuple[int, Any]]:
    """(index, item) of what the mask picks, read again; `of` and `numbers` say where each was. DataError
    where a file is no longer what it was."""
    import numpy as np

    for i, file in enumerate(files):
        wanted = iter(np.flatnonzero(mask & (of == i)).tolist())
        index = next(wanted, None)
        for number, read in items(file, unit) if index is not None else ():
            if index is not None and number == numbers[index]:
                yield index, read()
                index = next(wanted, None)
        if index is not None:
            raise DataError(f"{file} changed while it was read", hint="begin again")


def stamp(files: Sequence[Path]) -> list[tuple[int, int]]:
    """What tells whether a file was written to."""
    return [(found.st_size, found.st_mtime_ns) for found in (file.stat() for file in files)]
