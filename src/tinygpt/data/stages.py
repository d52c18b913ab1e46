"""Stages that rows go through, by name: each keeps a row, changes it, or says why it is left out.

A stage is a function `(options, seed) -> step`, and a step a function `row -> row | str`: a text is the
reason why the row goes no further. TABLE says where each one is; it is imported when it is named. A step sees
one row at a time, in order, so what it remembers it must keep small.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from tinygpt.core import config as configs
from tinygpt.core.errors import ConfigError, DataError, unknown
from tinygpt.data import recognise, rows

Row = dict[str, Any]
Step = Callable[[Row], "Row | str"]

# name -> module:function. Others may add theirs here; nothing is imported before it is asked for.
TABLE = {
    "length": "tinygpt.data.stages:length",
    "match": "tinygpt.data.stages:match",
    "shape": "tinygpt.data.stages:shape",
    "exact": "tinygpt.data.stages:exact",
    "sample": "tinygpt.data.stages:sample",
    "language": "tinygpt.data.filters:language",
    "repetition": "tinygpt.data.filters:repetition",
    "pii": "tinygpt.data.filters:pii",
    "secrets": "tinygpt.data.filters:secrets",
}
ASIDE = ("metadata", "_meta", "id", "source")  # columns that say where a row is from, not what it is


@dataclass(frozen=True, kw_only=True)
class Length:
    """How long rows may be."""

    min_chars: Annotated[int, "Fewest letters of all texts of a row."] = 1
    max_chars: Annotated[int, "Most letters; 0: any number."] = 0


@dataclass(frozen=True, kw_only=True)
class Match:
    """Which texts rows must have, or must not."""

    pattern: Annotated[str, "Regular expression that is looked for in the texts of a row."]
    keep: Annotated[bool, "Keep the rows in which it is found; false: those in which it is not."] = True


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What rows must be."""

    format: Annotated[str, "sft, dpo or plain."]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """How many rows are kept."""

    share: Annotated[float, "The share of the rows that is kept, drawn by their content and the seed."]


@dataclass(frozen=True, kw_only=True)
class Exact:
    """What makes two rows the same."""

    fold: Annotated[bool, "Take texts as the same that differ in case and spaces alone."] = True


def opened(table: Mapping[str, Any], seed: int, more: Mapping[str, str] | None = None) -> tuple[str, Step]:
    """(name, step) of an entry {name, option...}; ConfigError for a name or option that is not known. `more`
    are stages of the caller, written as in TABLE."""
    options, known = dict(table), {**TABLE, **(more or {})}
    name = str(options.pop("name", ""))
    if name not in known:
        raise unknown("stage", name, known)
    module, _, function = known[name].partition(":")
    return name, getattr(importlib.import_module(module), function)(options, seed)


def texts(row: Any) -> Iterator[str]:
    """Every text in a row, but those that say where it is from."""
    return rows.strings(row, lambda key: key in ASIDE)


def digest(row: Row, *, fold: bool = False, salt: str = "") -> bytes:
    """What a row is known by: 16 bytes of a hash of its keys and values, without those of ASIDE."""
    total = hashlib.sha256(salt.encode())

    def add(value: Any) -> None:
        if isinstance(value, Mapping):
            total.update(b"{")
            for key in sorted(map(str, value)):
                if key not in ASIDE:
                    total.update(key.encode("utf-8", "surrogatepass") + b":")
                    add(value.get(key))
        elif isinstance(value, list):
            total.update(b"[")
            for one in value:
                add(one)
        else:
            text = " ".join(value.casefold().split()) if fold and isinstance(value, str) else str(value)
            total.update(text.encode("utf-8", "surrogatepass") + b"\0")

    add(row)
    return total.digest()[:16]


def length(options: Mapping[str, Any], seed: int) -> Step:
    """Leave out what is too short or too long."""
    known = configs.from_dict(Length, options, "stages.length")

    def step(row: Row) -> Row | str:
        n = sum(len(text) for text in texts(row))
        if n < known.min_chars:
            return f"shorter than {known.min_chars} letters"
        return f"longer than {known.max_chars} letters" if known.max_chars and n > known.max_chars else row

    return step


def match(options: Mapping[str, Any], seed: int) -> Step:
    """Keep or leave out what a pattern is found in."""
    known = configs.from_dict(Match, options, "stages.match")
    try:
        pattern = re.compile(known.pattern)
    except re.error as error:
        raise ConfigError(f"stages.match: {known.pattern!r} is no pattern: {error}") from error

    def step(row: Row) -> Row | str:
        found = any(pattern.search(text) for text in texts(row))
        return row if found == known.keep else f"the pattern is {'' if found else 'not '}in it"

    return step


def shape(options: Mapping[str, Any], seed: int) -> Step:
    """Make rows of one format, and leave out what is none."""
    wanted = configs.from_dict(Shape, options, "stages.shape").format
    if wanted not in recognise.FORMATS:
        raise unknown("format", wanted, recognise.FORMATS)

    def step(row: Row) -> Row | str:
        try:
            return recognise.convert(row, wanted)
        except DataError as error:
            return error.message

    return step


def exact(options: Mapping[str, Any], seed: int) -> Step:
    """Leave out what was there before, in any source; 16 bytes of each row are remembered."""
    fold = configs.from_dict(Exact, options, "stages.exact").fold
    seen: set[bytes] = set()

    def step(row: Row) -> Row | str:
        found = digest(row, fold=fold)
        if found in seen:
            return "a duplicate"
        seen.add(found)
        return row

    return step


def sample(options: Mapping[str, Any], seed: int) -> Step:
    """Keep a share: whether a row is in it depends on the row and the seed, not on its place."""
    share = configs.from_dict(Sample, options, "stages.sample").share
    if not 0 < share <= 1:
        raise ConfigError(f"stages.sample: the share must be above 0 and at most 1, got {share:g}")

    def step(row: Row) -> Row | str:
        return row if drawn(row, seed, "sample") < share else "not drawn"

    return step


def drawn(row: Row, seed: int, purpose: str) -> float:
    """A number in [0, 1) that a row has for a purpose, the same on every machine; rows that differ in case
    and spaces alone have the same."""
    return int.from_bytes(digest(row, fold=True, salt=f"{seed} {purpose} ")[:8], "big") / 2**64
