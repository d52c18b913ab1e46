"""The JSON values of a file: one a line, an array, or several over many lines; and which format they are."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tinygpt.core.errors import DataError
from tinygpt.core.family import Family
from tinygpt.data import card, table

FORMATS = Family("tinygpt.data.traces", verb="read")
ENDINGS = (".atraj", ".jsonl", ".ndjson", ".json")
LOOKED = 10  # lines that are tried until one is JSON by itself


def find(paths: Sequence[Path]) -> list[Path]:
    """The files that are named, and those of folders, at any depth, in their order. Hidden files and cards
    are none. DataError where nothing is there."""
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            below = (one for one in sorted(path.rglob("*")) if one.is_file())
            inside = [one for one in below if _may(one.relative_to(path))]
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
    if _lined(path):
        for number, line in table.lines(path):
            place = f"{path}:{number}"
            if not line.lstrip().startswith("["):
                yield place, lambda line=line: table.parse(line)
                continue
            for value in _parts(table.parse(line)):
                yield place, lambda value=value: value
        return
    with table.opened(path) as file:
        text = file.read().decode("utf-8", "replace").removeprefix("\ufeff")
    decoder, at = json.JSONDecoder(), 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            line = text.count("\n", 0, getattr(error, "pos", at)) + 1
            raise DataError(
                f"{path}:{line} is no JSON: {getattr(error, 'msg', 'nested too deeply')}"
            ) from error
        place = f"{path}:{text.count(chr(10), 0, at) + 1}"
        for part in _parts(value):
            yield place, lambda part=part: part
        at = end


def parsed(value: Any) -> Any:
    """A value that may be JSON text."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return table.parse(value)
        except DataError:
            return value
    return value


def _lined(path: Path) -> bool:
    """Whether lines are values by themselves."""
    for _, line in itertools.islice(table.lines(path), LOOKED):
        try:
            if line[0] in "{[" and len(line) > 3 and isinstance(table.parse(line), dict | list):
                return True
        except DataError:
            continue
    return False


def _parts(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _may(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return table.kind(path) in ENDINGS and not hidden and not path.name.endswith(card.SUFFIX)
