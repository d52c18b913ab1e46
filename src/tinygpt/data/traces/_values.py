"""The JSON values of a file: one a line, an array, or several over many lines; and which format they are."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tinygpt.core.errors import DataError
from tinygpt.core.family import Family
from tinygpt.data import card, table

FORMATS = Family("tinygpt.data.traces", verb="read")
ENDINGS = (".atraj", ".jsonl", ".ndjson", ".json")
SPACE = re.compile(r"\s*")
LOOKED = 10  # lines that are tried until one is JSON by itself


def find(paths: Sequence[Path]) -> list[Path]:
    """The files that are named, and those of folders, at any depth, in their order. Hidden files and cards
    are none, nor is what has a card, as rows have that were made of traces. DataError where nothing is
    there."""
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            below = (one for one in sorted(path.rglob("*")) if one.is_file())
            inside = [one for one in below if _may(one.relative_to(path)) and not card.beside(one).is_file()]
            if not inside:
                raise DataError(
                    f"{path} has no files of traces", hint=f"their names end in {', '.join(ENDINGS)}"
                )
            found |= dict.fromkeys(inside)
        elif path.is_file():
            found[path] = None
        else:
            raise DataError(f"there is no file {path}", hint="check the path")
    return list(found)


def format_of(path: Path) -> str:
    """The name of a file's format; "" where it is none that is known."""
    if table.kind(path) == ".atraj":
        return "atraj"
    names = FORMATS.names()
    for _, read in itertools.islice(values(path), LOOKED):
        try:
            value = read()
        except DataError:
            continue
        if name := next((name for name in names if FORMATS.load(name).knows(value)), ""):
            return name
    return ""


def values(path: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """(place, what gives the value) of every value; arrays are taken apart. A line that is wrong raises
    DataError when it is asked for; a file that is wrong as a whole at once."""
    how = _laid(path)
    if how == "array" and table.kind(path) == ".json":
        yield from ((f"{path}:{number}", read) for number, read in table.records(path))
        return
    if how == "lines":
        for number, line in table.lines(path):
            yield from _of_line(f"{path}:{number}", line)
        return
    with table.opened(path) as file:
        text = file.read().decode("utf-8", "replace").removeprefix("\ufeff")
    decoder = json.JSONDecoder()
    at = len(text) - len(text.lstrip())
    line = 1 + text.count("\n", 0, at)
    while at < len(text):
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            line += text.count("\n", at, getattr(error, "pos", at))
            why = getattr(error, "msg", "nested too deeply")
            raise DataError(f"{path}:{line} is no JSON: {why}") from error
        for part in _parts(value):
            yield f"{path}:{line}", lambda part=part: part
        rest = SPACE.match(text, end)
        assert rest is not None
        line, at = line + text.count("\n", at, rest.end()), rest.end()


def why(path: Path, error: DataError) -> str:
    """What an error says, without the name of the file, so that the same of many files counts as one."""
    said = error.message.replace(f"{path}: ", "").replace(f"{path}:", "line ")
    return said.replace(f"{path} ", "")


def parsed(value: Any) -> Any:
    """A value that may be JSON text."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return table.parse(value)
        except DataError:
            return value
    return value


def _of_line(place: str, line: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """A line's value, or those of its array."""
    found = _whole(line) if line.lstrip().startswith("[") else None
    if found is None:
        yield place, lambda: table.parse(line)
    else:
        yield from ((place, lambda value=value: value) for value in found)


def _laid(path: Path) -> str:
    """How values lie: "lines", each a value by itself, an "array", or "whole"."""
    for n, (_, line) in enumerate(itertools.islice(table.lines(path), LOOKED)):
        if line[0] in "{[" and len(line) > 3 and _whole(line) is not None:
            return "lines"
        if not n and line.lstrip().startswith("["):
            return "array"
    return "whole"


def _whole(line: str) -> Any:
    """What a line says by itself, if it is an object or an array; None where it is none."""
    try:
        found = table.parse(line)
    except DataError:
        return None
    return found if isinstance(found, dict | list) else None


def _parts(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _may(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return table.kind(path) in ENDINGS and not hidden and not path.name.endswith(card.SUFFIX)
