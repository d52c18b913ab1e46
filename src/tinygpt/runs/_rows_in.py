"""Rows on their way in: columns renamed, recognised, made into rows of ours, and counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tinygpt.core.errors import DataError
from tinygpt.data import recognise, rows, table
from tinygpt.data.recognise import Guess
from tinygpt.data.tally import Tally

SAMPLE = 100  # rows that are looked at to tell what they are
ANY = "any"  # the format of rows that are left as they are


def pairs(given: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Renames as `new=old`, or as `old:new`, which the original has."""
    plain: list[str] = []
    for one in (part.strip() for text in given for part in text.split(",") if part.strip()):
        if "=" not in one and ":" in one:
            old, _, new = one.partition(":")
            one = f"{new}={old}"
        plain.append(one)
    return rows.renames(plain, known=recognise.COLUMNS)


def sample(paths: Iterable[Path], renames: Sequence[tuple[str, list[str]]], n: int = SAMPLE) -> list[Any]:
    """The first rows of some files; what is no row is passed over. DataError where there is none."""
    found: list[Any] = []
    for path in paths:
        for _, row in table.records(path):
            try:
                found.append(rows.renamed(row(), renames))
            except DataError:
                continue
            if len(found) == n:
                return found
    return found


def guess(paths: Sequence[Path], renames: Sequence[tuple[str, list[str]]], wanted: str) -> Guess:
    """What the rows of some files are, by the first of them."""
    looked = sample(paths, renames)
    if not looked:
        for path in paths[:1]:  # the error of the first row says more than that there is none
            for _, row in table.records(path):
                rows.renamed(row(), renames)
        raise DataError(f"there are no rows in {paths[0] if paths else 'no files'}")
    return recognise.agreed(looked, wanted)


def converted(
    path: Path, renames: Sequence[tuple[str, list[str]]], wanted: str, tally: Tally
) -> Iterator[dict[str, Any]]:
    """The rows of a file as rows of ours; those that cannot be made into one are counted by reason."""
    for number, row in table.records(path):
        try:
            found = rows.renamed(row(), renames)
            if wanted == ANY:
                if not isinstance(found, dict):
                    raise DataError("expected a JSON object")
            else:
                found = recognise.convert(found, wanted)
        except DataError as error:
            tally.drop(error.message, f"{path.name} {table.unit(path)} {number}")
            continue
        tally.keep()
        yield found
